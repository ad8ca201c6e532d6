"""Images that get one file of results together: the slices of a NIfTI volume, the images of a DICOM series."""

import dataclasses

import numpy as np

from m2snet_jax import dicom, nifti
from m2snet_jax.errors import InputError
from m2snet_jax.images import locate, reader_of


@dataclasses.dataclass(eq=False)
class Series:
    """One image by itself, or several that belong together.

    Attributes:
        name: of the file of results.
        reader: `dicom` or `nifti`, None for an ordinary image, which has no such file.
        images: [(name, path)], paths being addresses (see images.py).
    """

    name: str
    reader: object
    images: list


def group_series(images):
    """Returns the series of [(name, path)], in the order of their first images."""
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


def _key(file):
    """Returns what the images of one series have in common, None for those that get no file of results."""
    reader = reader_of(file)
    try:
        return file if reader is nifti else dicom.series_of(file) if reader is dicom else None
    except InputError:  # told when the image is read
        return None


def result_files(series, folder, raw):
    """Returns the paths of the files of results of a series; none for an ordinary image."""
    if series.reader is dicom:
        return [folder / f'{series.name}_seg.dcm']
    endings = [] if series.reader is None else ['.nii.gz', '_raw.nii.gz'] if raw else ['.nii.gz']
    return [folder / f'{series.name}{ending}' for ending in endings]


def encode_results(series, maps, cut, predictor):
    """Returns the bytes of the files of results of a series, in the order of `result_files`.

    Args:
        series: not that of an ordinary image.
        maps: {name of an image: its maps [C, H, W]} of those that could be read, 8-bit levels or float32.
        cut: level from which a map marks a lesion; in a volume of several classes the highest map counts.
        predictor: whose maps they are.

    Raises:
        InputError: a slice of a volume is missing, or no segmentation can refer to the images.
    """
    left = [(name, path) for name, path in series.images if name in maps]
    files = list(dict.fromkeys(locate(path)[0] for _, path in left))
    if series.reader is dicom:
        masks = np.stack([np.stack(maps[name], -1) >= cut for name, _ in left])
        model_name = predictor.config.model.name if predictor.config else 'm2snet'
        return [dicom.encode_segmentation(files, masks, model_name, predictor.model_hash)]
    missing = len(series.images) - len(left)
    if missing:
        raise InputError(f'{locate(series.images[0][1])[0]}: {missing} slices cannot be read; no mask is written')
    labels = [
        np.where(np.max(maps[name], 0) >= cut, np.argmax(maps[name], 0) + 1, 0).astype(np.uint8) for name, _ in left
    ]
    results = [nifti.encode_nifti(files[0], np.stack(labels))]
    if maps[left[0][0]][0].dtype == np.float32:
        stack = np.stack([np.stack(maps[name], -1) for name, _ in left])
        results.append(nifti.encode_nifti(files[0], stack[..., 0] if stack.shape[-1] == 1 else stack))
    return results
