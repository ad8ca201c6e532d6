"""The lesions in the maps that `predict` has written, from an earlier call too."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.images import nifti
from m2snet_jax.images.spacing import read_spacing
from m2snet_jax.measurement.findings import Findings, find_lesions
from m2snet_jax.prediction.predictor import is_lesion
from m2snet_jax.prediction.series import Series, group_series, result_files

if TYPE_CHECKING:
    from m2snet_jax.prediction.writer import Writer


def predicted_findings(
    images: Sequence[tuple[str, Path]],
    writer: 'Writer',
    classes: int,
    threshold: float = 0.5,
    smallest: int = 0,
    raw: str | None = None,
) -> tuple[list[Findings], list[str]]:
    """Returns the findings of all images whose maps exist, and notes on their spacing.

    The maps are read from their files. A NIfTI volume is one picture of several slices; its probabilities are those of
    `--raw`. Every other image, also one of a DICOM series, is measured for itself.

    Args:
        images: (name, address), as given to `predict_files`.
        writer: that wrote the maps.
        classes: of the model.
        threshold: probability from which a pixel is lesion.
        smallest: lesions of fewer pixels are left out.
        raw: as given to the writer.
    """
    found, notes = [], []
    for series in group_series(images):
        pictures = _volumes if series.reader is nifti else _pictures
        for name, path, masks, maps in pictures(series, writer, classes, threshold, raw):
            spacing = read_spacing(path)
            notes.append(spacing.note)
            found += find_lesions(name, masks, maps, spacing, smallest)
    return found, list(dict.fromkeys(note for note in notes if note))


def _pictures(series: Series, writer: 'Writer', classes: int, threshold: float, raw: str | None) -> Iterator[tuple]:
    """Yields (name, address, masks, probabilities) of each image."""
    for name, path in series.images:
        files = writer.paths(name, series)['map']
        if not all(file.exists() for file in files):  # its fault has been reported
            continue
        maps = np.stack([_read(file) for file in files], -1) if len(files) > 1 else _read(files[0])
        maps = maps.reshape(*maps.shape[:2], classes)
        highest = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(maps.dtype, 1)
        yield name, path, is_lesion(maps, threshold * (highest if highest > 255 else 1)), maps / np.float32(highest)


def _volumes(series: Series, writer: 'Writer', classes: int, threshold: float, raw: str | None) -> Iterator[tuple]:
    """Yields (name, address, masks, probabilities) of a volume."""
    files = result_files(series, writer.folder, raw)
    if not all(file.exists() for file in files):
        return
    labels, *maps = (
        np.stack([nifti.read_samples(file, number).values for number in range(nifti.count(file))]) for file in files
    )
    masks = labels[..., None] == np.arange(1, classes + 1)
    yield series.name, series.images[0][1], masks, maps[0].reshape(masks.shape) if maps else None


def _read(file: Path):
    """Returns a map as it was written, uint8, uint16 or float32."""
    try:
        values = np.load(file) if file.suffix == '.npy' else cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError):
        values = None
    if values is None:
        raise InputError(f'{file}: cannot be read; remove it, and repeat the command')
    return values
