"""Images that get one file of results together: the slices of a NIfTI volume, the images of a DICOM series."""

import dataclasses
from collections.abc import Hashable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images import dicom, nifti
from m2snet_jax.images.dicom_segmentation import encode_segmentation
from m2snet_jax.images.formats import locate, reader_of

Maps = UInt8[np.ndarray, 'height width classes'] | Float32[np.ndarray, 'height width classes']
Lesions = Bool[np.ndarray, 'height width classes']


@dataclasses.dataclass(eq=False)
class Series:
    """One image, or several with a common file of results.

    Attributes:
        name: of the file of results.
        reader: `dicom` or `nifti`, None for an ordinary image, which has no such file.
        images: (name, address), see formats.py.
    """

    name: str
    reader: ModuleType | None
    images: list[tuple[str, Path]]


def group_series(images: Iterable[tuple[str, Path]]) -> list[Series]:
    """Returns the series of (name, address), in the order of their first images."""
    found, key_of = {}, {}
    for name, path in images:
        file, number = locate(path)
        if file not in key_of:
            key_of[file] = _key(file)
        key = key_of[file] or path
        name_of_file = name if number is None else name.removesuffix(f'_{path.name}')
        series = found.setdefault(key, Series(name_of_file, reader_of(file) if key_of[file] else None, []))
        series.images.append((name, path))
    return list(found.values())


def _key(file: Path) -> Hashable | None:
    """Returns a key that is equal for the images of one series, None for those that get no file of results."""
    reader = reader_of(file)
    try:
        return file if reader is nifti else dicom.series_of(file) if reader is dicom else None
    except InputError:  # reported when the image is read
        return None


def result_files(series: Series, folder: Path, raw: str | None) -> list[Path]:
    """Returns the paths of the files of results of a series; none for an ordinary image."""
    if series.reader is dicom:
        return [folder / f'{series.name}_seg.dcm']
    endings = [] if series.reader is None else ['.nii.gz', '_raw.nii.gz'] if raw else ['.nii.gz']
    return [folder / f'{series.name}{ending}' for ending in endings]


def encode_results(series: Series, maps: dict[str, Maps], lesions: dict[str, Lesions], predictor: Any) -> list[bytes]:
    """Returns the bytes of the files of results of a DICOM or NIfTI series, in the order of `result_files`.

    `maps` and `lesions` have the names of the images that could be read, `predictor` is the Predictor of the maps. In a
    volume of several classes a lesion gets the class of the highest map.

    Raises:
        InputError: a slice of a volume is missing, or no segmentation can refer to the images.
    """
    left = [(name, path) for name, path in series.images if name in maps]
    files = list(dict.fromkeys(locate(path)[0] for _, path in left))
    if series.reader is dicom:
        masks = np.stack([lesions[name] for name, _ in left])
        model_name = predictor.config.model.name if predictor.config else 'm2snet'
        return [encode_segmentation(files, masks, model_name, predictor.model_hash)]
    missing = len(series.images) - len(left)
    if missing:
        raise InputError(f'{locate(series.images[0][1])[0]}: {missing} slices cannot be read; no mask is written')
    labels = [np.where(lesions[name].any(-1), np.argmax(maps[name], -1) + 1, 0).astype(np.uint8) for name, _ in left]
    results = [nifti.encode_nifti(files[0], np.stack(labels))]
    if maps[left[0][0]].dtype == np.float32:
        stack = np.stack([maps[name] for name, _ in left])
        results.append(nifti.encode_nifti(files[0], stack[..., 0] if stack.shape[-1] == 1 else stack))
    return results
