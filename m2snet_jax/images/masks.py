"""From the samples of a mask or map to levels or class indices, as the Reading of its set says."""

from pathlib import Path

import numpy as np
from jaxtyping import Num, Shaped, UInt8
from PIL import Image

from m2snet_jax.errors import InputError
from m2snet_jax.images.colors import BLACK, grey, indices_of, packed, proposal
from m2snet_jax.images.depth import DEEPEST, check_positive, levels_of
from m2snet_jax.images.file_samples import Samples
from m2snet_jax.images.reading import Reading

Levels = UInt8[np.ndarray, 'height width']
JPEG_CHROMA = 16  # channels of a grey that JPEG stores as colour may differ by so much


def mask_levels(samples: Samples, reading: Reading, classes: int, path: str | Path) -> Levels:
    """Returns the levels 0…255 of a mask, or its class indices where there are several classes or it holds them.

    Raises:
        InputError: numbers that are neither levels nor indices, or a colour that `data.colors` does not name.
    """
    if samples.values.ndim == 3 and samples.values.shape[2] != 3:
        raise InputError(f'{path}: has {samples.values.shape[2]} channels; a mask is grey or RGB')
    if reading.colors:
        indices = indices_of(colours_of(samples, path), samples.alpha, reading.colors, path)
        return indices if classes > 1 else np.uint8(255) * indices
    if reading.alpha and samples.alpha is not None:
        levels = _one_level(samples.alpha, reading, path)
    elif reading.one_colour and is_coloured(samples):
        levels = np.where(packed(colours_of(samples, path)) == BLACK, 0, 255).astype(np.uint8)
    else:
        levels = _one_level(grey_values(samples, path), reading, path)
    if classes > 1 and samples.unit > 1:
        levels = levels // samples.unit
    return _inverted(levels, classes, path) if samples.inverted else levels


def map_levels(
    samples: Samples, reading: Reading, classes: int, path: str | Path
) -> Shaped[np.ndarray, 'h w *classes']:
    """Returns the levels 0…255 of a map: [H, W] of one class, [H, W, C] of a file that has a map for each class.

    Args:
        samples: of one class; with `classes` above 1, of all of them: floats or levels [H, W, C], or class indices.
        reading: of the maps.
        classes: in the file.
        path: for messages.

    Raises:
        InputError: values that are no probabilities, another number of classes.
    """
    values = samples.values
    if samples.palette is None and values.ndim == 3 and values.shape[2] == classes > 1:
        return _map_of(values, reading, path)
    if classes > 1:
        indices = grey_values(samples, path)
        if values.ndim == 3 or indices.max() > classes:
            raise InputError(
                f'{path}: neither {classes} maps nor class indices 0 to {classes}; give one file a class, NAME_1 …'
            )
        return np.where(indices[..., None] == np.arange(1, classes + 1), 255, 0).astype(np.uint8)
    if values.ndim == 3 and values.shape[2] != 3:
        raise InputError(f'{path}: holds {values.shape[2]} maps; set --config.data.classes={values.shape[2]}')
    if reading.alpha and samples.alpha is not None:
        levels = samples.alpha
    elif is_coloured(samples) and reading.one_colour:
        levels = np.where(packed(colours_of(samples, path)) == BLACK, 0, 255).astype(np.uint8)
    elif is_coloured(samples) and (samples.palette is None or reading.level is None):
        levels = _luma(colours_of(samples, path))
    else:
        values = grey_values(samples, path)
        if reading.level is not None:
            levels = np.where(values != 0, 255, 0).astype(np.uint8)
        else:
            levels = _map_of(values, reading, path)
    return 255 - levels if samples.inverted else levels


def is_coloured(samples: Samples) -> bool:
    """Whether any pixel, or any entry of the palette, is a colour and not a grey."""
    if samples.palette is not None:
        return bool((samples.palette != samples.palette[:, :1]).any())
    return samples.values.ndim == 3 and not _is_grey(samples.values)


def grey_values(samples: Samples, path: str | Path) -> Num[np.ndarray, 'height width']:
    """Returns the grey values; of a palette its greys, or its indices where it has colours; of colour the luma."""
    values = samples.values
    if samples.palette is not None:
        return values if is_coloured(samples) else samples.palette[:, 0][values]
    if values.ndim == 2:
        return values
    if samples.is_deep and _is_grey(values):
        return values[:, :, 0]
    return _luma(colours_of(samples, path))


def class_mismatch(mask: Levels, classes: int, reading: Reading, path: str | Path) -> str:
    """Returns the message on a mask with levels that are no index up to `classes`."""
    wrong = int(mask[mask > classes].min())
    text = (
        f'{path}: value {wrong} found, but data.classes={classes} allows 0 (background) to {classes}: classes '
        'mismatch; correct the mask or data.classes'
    )
    if len(reading.found) > 2:
        text += f', or name its levels, background first: {proposal(grey(level) for level in reading.found)}'
    return text


def _one_level(values, reading, path):
    """Returns values as uint8, the one that is lesion as 255 where the whole set has but one."""
    check_positive(values, path)
    highest = values.max()
    if reading.level is not None or (reading.two_levels and highest >= 128) or (highest > 255 and _is_two(values)):
        return np.where(values != 0, 255, 0).astype(np.uint8)
    if values.dtype == np.uint8:
        return values
    if (values == np.floor(values)).all():
        if highest <= 255:
            return values.astype(np.uint8)
        if highest > DEEPEST // 2:
            return levels_of(values, DEEPEST, path)
        raise InputError(
            f'{path}: values up to {highest:g} found, neither two levels nor 8 or 16 bits of grey; store 0/255, or '
            'class indices'
        )
    return levels_of(values, reading.white(highest, floats=True), path)


def _inverted(levels, classes, path):
    if classes > 1:
        raise InputError(f'{path}: a tag (WhiteIsZero, MONOCHROME1) inverts class indices; store it with black as 0')
    return 255 - (levels * np.uint8(255) if levels.max() == 1 else levels)


def colours_of(samples: Samples, path: str | Path) -> UInt8[np.ndarray, 'height width 3']:
    """Returns the samples of a mask as 8-bit RGB."""
    if samples.palette is not None:
        return samples.palette[samples.values]
    values = samples.values
    if samples.is_deep:
        values = _one_level(values, Reading(), path) if values.ndim == 2 else levels_of(values, DEEPEST, path)
    return np.repeat(values[:, :, None], 3, axis=2) if values.ndim == 2 else values


def _is_grey(colour):
    """Whether the channels agree, but for what JPEG changes."""
    if colour.dtype == np.uint8:
        return int(np.ptp(colour, axis=2).max()) <= JPEG_CHROMA
    return bool((colour == colour[:, :, :1]).all())


def _is_two(values):
    """Whether 0 and one other number are all that there is."""
    return bool(((values == 0) | (values == values.max())).all())


def _luma(colour):
    """Returns the grey of colours, as ITU-R 601 weighs them."""
    return np.asarray(Image.fromarray(colour).convert('L'))


def _map_of(values, reading, path):
    if values.dtype == np.uint8:
        return values
    return levels_of(values, reading.white(values.max(), values.dtype.kind == 'f'), path)
