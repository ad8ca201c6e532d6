"""What is measured as one: a picture, or a volume with its slices in order."""

import dataclasses
from pathlib import Path

from m2snet_jax.images import dicom, nifti
from m2snet_jax.images.spacing import Spacing, read_spacing, read_stack
from m2snet_jax.prediction.series import Series


@dataclasses.dataclass(frozen=True)
class Scan:
    """A picture or a volume.

    Attributes:
        name: of the picture; of a volume that of its series.
        images: (name, address) of the picture, or of the slices in their order.
        place: address of the file with the spacing.
        is_volume: whether its slices are measured as one.
        stack: spacing of the slices of a DICOM series; None: the spacing is that of `place`.
        note: why the images of a series are not a volume, '' otherwise.
    """

    name: str
    images: list[tuple[str, Path]]
    place: Path
    is_volume: bool = False
    stack: Spacing | None = None
    note: str = ''

    def spacing(self) -> Spacing:
        """Returns the spacing; raises InputError where its file cannot be read."""
        return self.stack or read_spacing(self.place)

    @property
    def slices(self) -> list[str]:
        """The names of the slices of a volume, none of a picture."""
        return [name for name, _ in self.images] if self.is_volume else []


def scans_of(series: Series) -> list[Scan]:
    """Returns what is measured as one of a series.

    A NIfTI file is a volume. The images of a DICOM series are one if `read_stack` finds their order; otherwise each is
    a picture, as ordinary images are.

    Raises:
        InputError: the header of a DICOM file cannot be read.
    """
    images, note = series.images, ''
    if series.reader is nifti:
        return [Scan(series.name, images, images[0][1], is_volume=True)]
    if series.reader is dicom and len(images) > 1:
        order, stack = read_stack([path for _, path in images])
        if order:
            return [Scan(series.name, [images[k] for k in order], images[0][1], is_volume=True, stack=stack)]
        note = stack.note
    return [Scan(name, [(name, path)], path, note=note) for name, path in images]
