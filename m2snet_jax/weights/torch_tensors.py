"""The tensors of a PyTorch file: views of its storages."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True, slots=True)
class ElementType:
    """The type of the elements of a storage: as they lie in the file, and as `Tensor.array` returns them."""

    stored: np.dtype
    returned: np.dtype


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` elements of the storage `key`, from its element `first` on."""

    key: str
    type: ElementType
    count: int
    first: int = 0

    def nbytes(self) -> int:
        """Returns the size of the elements in the file."""
        return self.count * self.type.stored.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage: offset and strides count elements of `type`."""

    storage: Storage
    type: ElementType
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def nbytes(self) -> int:
        """Returns the size of `array`, which an expanded view can make far larger than the storage."""
        return math.prod(self.size) * self.type.returned.itemsize

    def array(self, buffer: Any, start: int) -> Shaped[np.ndarray, '...']:
        """Returns a contiguous copy of the elements; the storage begins at `start` in the buffer."""
        if 0 in self.size:
            return np.zeros(self.size, self.type.returned)
        start += self.storage.first * self.storage.type.stored.itemsize + self.offset * self.type.stored.itemsize
        strides = [step * self.type.stored.itemsize for step in self.stride]
        return np.ndarray(self.size, self.type.stored, buffer, start, strides).astype(self.type.returned, order='C')
