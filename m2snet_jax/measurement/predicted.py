"""The lesions in the maps that `predict` has written, from an earlier call too."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.images import nifti
from m2snet_jax.measurement.findings import Findings, find_lesions
from m2snet_jax.measurement.scans import Scan, scans_of
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

    Their `labels` are empty, so that memory does not grow with the number of images.

    The maps are read from their files. A NIfTI volume, or a DICOM series of slices, is measured as a whole; the
    probabilities of NIfTI are those of `--raw`. Every other image is measured for itself.

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
        for scan in _written(series, writer, raw):
            read = _volume if series.reader is nifti else _pictures
            masks, maps = read(scan, series, writer, classes, threshold, raw)
            spacing = scan.spacing()
            notes += [scan.note, spacing.note]
            measured = find_lesions(scan.name, masks, maps, spacing, smallest, scan.slices)
            found += [dataclasses.replace(one, labels=one.labels[..., :0].copy()) for one in measured]
    return found, list(dict.fromkeys(note for note in notes if note))


def _written(series: Series, writer: 'Writer', raw: str | None) -> list[Scan]:
    """Returns the scans of the images whose maps exist; the fault of another image has been reported."""
    if series.reader is nifti:
        return scans_of(series) if all(file.exists() for file in result_files(series, writer.folder, raw)) else []
    files = {name: writer.paths(name, series)['map'] for name, _ in series.images}
    left = [(name, path) for name, path in series.images if all(file.exists() for file in files[name])]
    return scans_of(dataclasses.replace(series, images=left))


def _pictures(scan: Scan, series: Series, writer: 'Writer', classes: int, threshold: float, raw: str | None) -> tuple:
    """Returns the masks and probabilities of a picture, or of the slices of a DICOM series."""
    maps = []
    for name, _ in scan.images:
        files = writer.paths(name, series)['map']
        one = np.stack([_read(file) for file in files], -1) if len(files) > 1 else _read(files[0])
        maps.append(one.reshape(*one.shape[:2], classes))
    maps = np.stack(maps) if scan.is_volume else maps[0]
    highest = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(maps.dtype, 1)
    return is_lesion(maps, threshold * (highest if highest > 255 else 1)), maps / np.float32(highest)


def _volume(scan: Scan, series: Series, writer: 'Writer', classes: int, threshold: float, raw: str | None) -> tuple:
    """Returns the masks of a NIfTI volume, and its probabilities or None."""
    files = result_files(series, writer.folder, raw)
    labels, *maps = (
        np.stack([nifti.read_samples(file, number).values for number in range(nifti.count(file))]) for file in files
    )
    masks = labels[..., None] == np.arange(1, classes + 1)
    return masks, maps[0].reshape(masks.shape) if maps else None


def _read(file: Path):
    """Returns a map as it was written, uint8, uint16 or float32."""
    try:
        values = np.load(file) if file.suffix == '.npy' else cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError):
        values = None
    if values is None:
        raise InputError(f'{file}: cannot be read; remove it, and repeat the command')
    return values
