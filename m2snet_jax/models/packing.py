"""Packed maps: neighbouring columns side by side in the channels, so that a TPU computes with all its lanes.

A TPU computes 128 channels at once, however few a map has. A map of 26 channels with 4 columns packed has a quarter of
the columns and 104 channels. A convolution of packed maps is one with a larger kernel, which holds the same weights
several times and zeros between them; sums and products are the same.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from m2snet_jax.models.kernels import Maps, max_pool

LANES = 128
PackedMaps = Float[Array, 'batch height packed_width packed_channels']


@dataclasses.dataclass(frozen=True)
class Packing:
    """The order of packed channels: by group, then by column, then by channel of the group.

    Attributes:
        columns: that lie side by side; 1: maps are not packed.
        groups: of equal size into which the channels are divided, so that each can be taken out as a slice.
    """

    columns: int = 1
    groups: int = 1

    def spread(self, values: Float[Array, 'channels']) -> Float[Array, 'packed_channels']:
        """Returns one value per packed channel from one per channel."""
        if self.columns == 1:
            return values
        parts = values.reshape(self.groups, 1, -1)
        return jnp.broadcast_to(parts, (self.groups, self.columns, parts.shape[-1])).reshape(-1)

    def total(self, sums: Float[Array, 'packed_channels']) -> Float[Array, 'channels']:
        """Returns the sum of each channel from the sums of its columns."""
        return sums if self.columns == 1 else sums.reshape(self.groups, self.columns, -1).sum(1).reshape(-1)

    def count(self, x: PackedMaps) -> int:
        """Returns the number of pixels of all images."""
        return x.size // x.shape[-1] * self.columns


NOT_PACKED = Packing()


def columns_for(width: int, channels: int, stride: int = 1) -> int:
    """Returns the number of columns to pack in a map of that many channels.

    A power of two, so that the packed channels fit into the lanes and the width, before a convolution of that stride,
    is a multiple of stride · columns. 1 where it would be less than 4: two columns of 52 channels took longer than one.
    """
    columns = 1
    while width % (2 * columns * stride) == 0 and 2 * columns * channels <= LANES:
        columns *= 2
    return columns if columns >= 4 else 1


def pack(x: Maps, columns: int) -> PackedMaps:
    """Packs maps, whose width must be a multiple of `columns`, in one group."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width // columns, columns * channels)


def unpack(x: PackedMaps, columns: int) -> Maps:
    """Undoes `pack`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width * columns, channels // columns)


def max_pool_packed(x: PackedMaps, columns: int) -> Maps:
    """Returns the maximum of each 2×2 window of maps with 1 or 2 columns packed; not packed.

    As in `max_pool` the first of equal values gets the gradient. Rows are compared first, with all lanes.
    """
    if columns == 1:
        return max_pool(x, 2, 2)
    height = x.shape[1] // 2 * 2
    upper, lower = x[:, :height:2], x[:, 1:height:2]
    is_lower = (lower > upper) | jnp.isnan(lower)
    left, right = jnp.split(jnp.where(is_lower, lower, upper), columns, axis=-1)
    left_is_lower, right_is_lower = jnp.split(is_lower, columns, axis=-1)
    is_first = (right == left) & left_is_lower & ~right_is_lower  # the right one, of equal values
    return jnp.where((right > left) | is_first | jnp.isnan(right), right, left)


def pack_kernel(
    kernel: Float[Array, 'size size in out'], before: Packing, after: Packing
) -> Float[Array, 'size size packed_in packed_out']:
    """Returns the kernel, of size 1 or 3, that takes maps packed as `before` to maps packed as `after`.

    `before` has as many columns as `after` times the stride of the convolution, which then has stride 1 along the rows.
    """
    if before.columns == 1:
        return kernel
    size, _, inputs, outputs = kernel.shape
    parts = kernel.reshape(size, size, before.groups, inputs // before.groups, after.groups, outputs // after.groups)
    places = jnp.asarray(_places(size, before.columns, after.columns), kernel.dtype)
    packed = jnp.einsum('htacbf,tdio->hdaicbof', parts, places, precision='highest')
    return packed.reshape(size, size, before.columns * inputs, after.columns * outputs)


@functools.cache
def _places(size: int, before: int, after: int) -> Float[np.ndarray, 'size size before after']:
    """Where each weight of a row of a kernel goes in the packed kernel.

    [t, d, i, o] is 1 if weight t takes column i of packed column d to column o of the middle one.
    """
    weight, packed, start, end = np.indices((size, size, before, after))
    offset = (packed - size // 2) * before + start - end * (before // after)
    return (offset == weight - size // 2).astype(np.float32)
