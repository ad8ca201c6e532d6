"""The lesions in a folder of masks of any origin."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from m2snet_jax.data.affixes import match_names
from m2snet_jax.data.patterns import describe_content, top_folder
from m2snet_jax.errors import InputError
from m2snet_jax.images import nifti
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.decisions import map_reading, mask_reading
from m2snet_jax.images.formats import read_map, read_mask, reader_of
from m2snet_jax.images.reading import UNDECIDED
from m2snet_jax.images.spacing import UNKNOWN, Spacing, read_spacing
from m2snet_jax.measurement.findings import Findings, find_lesions
from m2snet_jax.measurement.scans import Scan, scans_of
from m2snet_jax.prediction.folders import MARK, index_of
from m2snet_jax.prediction.series import group_series


class MaskImages:
    """Masks of a folder or a pattern: pictures, NIfTI volumes as a whole, and DICOM series of slices as a whole.

    Of a folder that `predict` wrote, its maps are read; its own masks and overlays are left out. The maps of several
    classes, NAME_1.png, NAME_2.png …, are those of one image.

    Args:
        folder: folder, pattern or file (see data/patterns.py).
        flag: that gave it, for messages.
        data: `config.data`: classes and colors.
        threshold: of levels 0…255 as probabilities; what is below is no lesion. Class indices are taken as they are.
        images: folder or pattern of the images of the masks; they give the spacing, and which masks are a volume.

    Attributes:
        names: of pictures and volumes.
        notes: how the files are read.

    Raises:
        InputError: no such folder, no masks in it, masks that cannot be read by one rule, or no image of a mask's name.
    """

    def __init__(
        self, folder: str | Path, flag: str, data: Any, threshold: float = 0.5, images: str | Path | None = None
    ):
        top = top_folder(Path(folder))
        own = _own_folder(top)
        self._is_own, self._threshold = own is not None, threshold
        self._classes = data.classes if own is None else _own_classes(own, data.classes)
        index = index_of(folder, flag, lambda path: own is not None and _is_beside_maps(path, top))
        if not index:
            raise InputError(f'--{flag}={folder}: no masks found; {describe_content(folder)}')
        self._files = _class_files(index, self._classes if own else 1)
        maps = [path for name in self._files if self._is_map(name) for path in self._files[name]]
        masks = [path for name in self._files if not self._is_map(name) for path in self._files[name]]
        self._of_maps = map_reading(maps, is_own=True) if maps else UNDECIDED
        colors = parse_colors(data.colors, self._classes)
        self._of_masks = mask_reading(masks, self._classes, colors) if masks else UNDECIDED
        readings = self._of_maps, self._of_masks
        for reading in readings:
            if reading.problem:
                raise InputError(reading.problem)
        self._scans = {scan.name: scan for scan in self._find_scans(flag, images)}
        self.names = list(self._scans)
        notes = [*(note for reading in readings for note in reading.notes), *(s.note for s in self._scans.values())]
        self.notes = [note for note in dict.fromkeys(notes) if note]

    def _is_map(self, name: str) -> bool:
        """Whether the files of an image are maps of `predict`, one of each class or an array of all."""
        files = self._files[name]
        return self._is_own and (self._classes == 1 or len(files) > 1 or files[0].suffix == '.npy')

    def _find_scans(self, flag: str, images: str | Path | None) -> list[Scan]:
        """Returns what is measured as one, with the addresses of the images, else those of the masks."""
        series = group_series((name, files[0]) for name, files in self._files.items())
        volumes = [one for one in series if one.reader is nifti]
        pictures = {name: path for one in series if one.reader is not nifti for name, path in one.images}
        partners = {} if images is None else _pair_images([*(one.name for one in volumes), *pictures], flag, images)
        scans = [
            Scan(one.name, one.images, partners.get(one.name, one.images[0][1]), is_volume=True) for one in volumes
        ]
        places = [(name, partners.get(name, path)) for name, path in pictures.items()]
        return scans + [scan for one in group_series(places) for scan in scans_of(one)]

    def spacing(self, name: str) -> Spacing:
        """Returns the spacing of an image, else of its mask; raises InputError where a file cannot be read."""
        scan = self._scans[name]
        spacing = scan.spacing()
        return read_spacing(self._files[scan.images[0][0]][0]) if spacing == UNKNOWN else spacing

    def slices(self, name: str) -> list[str]:
        """Returns the names of the slices of a volume, none of a picture."""
        return self._scans[name].slices

    def masks(self, name: str) -> Bool[np.ndarray, '*slices height width classes']:
        """Returns the masks of each class of a picture or a volume; raises InputError where they cannot be read."""
        scan = self._scans[name]
        masks = [self._masks_of(one) for one, _ in scan.images]
        if any(mask.shape != masks[0].shape for mask in masks):
            raise InputError(f'{name}: its slices have masks of different sizes; correct them')
        return np.stack(masks) if scan.is_volume else masks[0]

    def _masks_of(self, name):
        """Returns the masks of each class of a picture or a slice."""
        files = self._files[name]
        if self._is_map(name):
            maps = [read_map(path, self._of_maps, self._classes if len(files) == 1 else 1) for path in files]
            levels = np.stack(maps, -1) if maps[0].ndim == 2 else maps[0]
            return levels >= self._threshold * 255
        (path,) = files
        if self._is_own and reader_of(path) is None:
            raise InputError(f'{path}: maps of other classes are missing; predict the image again')
        levels = read_mask(path, self._of_masks, self._classes)
        if self._classes == 1:
            return (levels >= self._threshold * 255)[..., None]
        if levels.max() > self._classes:
            raise InputError(
                f'{path}: value {levels.max()} found, but data.classes={self._classes}; correct the mask or '
                'data.classes'
            )
        return levels[..., None] == np.arange(1, self._classes + 1)


def _own_folder(top: Path) -> Path | None:
    """Returns the folder of `predict` that a path is, or of whose masks it is the folder; None of any other."""
    folders = [top, *([top.parent] if top.name == 'masks' else [])]
    return next((folder for folder in folders if (folder / MARK).exists()), None)


def _own_classes(folder: Path, classes: int) -> int:
    """Returns the number of classes of the maps in a folder of `predict`."""
    try:
        recorded = json.loads((folder / MARK).read_text(encoding='utf-8')).get('classes', classes)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f'{folder / MARK}: cannot be read ({error}); predict the images again') from None
    if classes not in (1, recorded):
        raise InputError(f'{folder}: holds maps of {recorded} classes, but data.classes={classes}; leave it out')
    return recorded


def _class_files(index: dict[str, Path], classes: int) -> dict[str, list[Path]]:
    """Returns {name of an image: its files}; of several classes NAME_1, NAME_2 … are those of NAME."""
    bases = [name.removesuffix('_1') for name in index if name.endswith('_1')] if classes > 1 else []
    groups = {base: [f'{base}_{number}' for number in range(1, classes + 1)] for base in bases}
    groups = {base: names for base, names in groups.items() if all(name in index for name in names)}
    first = {names[0]: base for base, names in groups.items()}
    others = {name for names in groups.values() for name in names[1:]}
    return {
        first.get(name, name): [index[one] for one in groups[first[name]]] if name in first else [path]
        for name, path in index.items()
        if name not in others
    }


def _is_beside_maps(path: Path, top: Path) -> bool:
    """Whether a file in a folder of `predict` is no map that is measured."""
    inside = path.relative_to(top).parts if path.is_relative_to(top) else ()
    beside = ('_raw.nii.gz', '_seg.dcm', '_uncertainty.nii.gz')
    return inside[:1] in (('masks',), ('overlays',), ('uncertainty',)) or path.name.endswith(beside)


def measure_masks(masks: MaskImages, smallest: int = 0) -> tuple[list[Findings], list[str], list[str]]:
    """Returns the findings of all masks, notes, and a line for each file that cannot be read.

    Args:
        masks: see MaskImages.
        smallest: lesions of fewer pixels, in a volume voxels, are left out.
    """
    found, notes, faults = [], list(masks.notes), []
    for name in masks.names:
        try:
            spacing = masks.spacing(name)
            found += find_lesions(name, masks.masks(name), None, spacing, smallest, masks.slices(name))
            notes.append(spacing.note)
        except InputError as error:
            faults.append(str(error))
    return found, list(dict.fromkeys(note for note in notes if note)), faults


def _pair_images(names: Sequence[str], flag: str, folder: str | Path) -> dict[str, Path]:
    """Returns {name of a mask: address of its image}, of a volume that of its first slice; see data/affixes.py."""
    images = {}
    for series in group_series(index_of(folder, 'images').items()):
        if series.reader is nifti:
            images[series.name] = series.images[0][1]
        else:
            images |= dict(series.images)
    partners, _ = match_names(names, images, (flag, 'images'))
    if not partners:
        raise InputError(f'--images={folder}: no image has the name of a mask, as {names[0]!r}')
    return {name: images[image] for name, image in partners.items()}


def pair_findings(
    found: Sequence[Findings],
    reference: Sequence[Findings],
    names: tuple[Sequence[str], Sequence[str]],
    faults: Sequence[str],
) -> tuple[list[Findings], list[Findings], list[str]]:
    """Pairs the findings of masks with those of a reference by name; see data/affixes.py.

    Args:
        found, reference: one of each image and class, of images that could be measured.
        names: of all images of both sides.
        faults: a line for each file that could not be read; they come first.

    Returns:
        The findings of both sides in one order, and a line for each image without a partner of its size.

    Raises:
        InputError: no name in common, or no image that could be measured on both sides.
    """
    partners, lines = match_names(*names, ('masks', 'reference'))
    for line in lines:
        print(line, file=sys.stderr)
    if not partners:
        raise InputError(f'--reference: no mask of it has the name of one of --masks, as {names[0][:1]}')
    absent = [f'{name}: has no mask in --reference' for name in names[0] if name not in partners]
    absent += [f'{name}: has no mask in --masks' for name in names[1] if name not in partners.values()]
    of_reference = {(one.image, one.class_index): one for one in reference}
    measured = {image for image, _ in of_reference}
    found = [one for one in found if partners.get(one.image) in measured]
    if not found:
        more = f' ({len(faults) - 1} more)' if len(faults) > 1 else ''
        raise InputError(f'{faults[0]}{more}')
    classes = [max(one.class_index for one in side) for side in (found, reference)]
    if classes[0] != classes[1]:
        raise InputError(
            f'--reference: has masks of {classes[1]} classes, --masks of {classes[0]}; set --config.data.classes'
        )
    pairs = [(one, of_reference[partners[one.image], one.class_index]) for one in found]
    for one, other in pairs:
        if one.labels.shape != other.labels.shape:
            sizes = ['x'.join(map(str, side.labels.shape)) for side in (one, other)]
            absent.append(f'{one.image}: the mask has {sizes[0]} pixels, its reference {sizes[1]}; give both one size')
    pairs = [(one, other) for one, other in pairs if one.labels.shape == other.labels.shape]
    return [one for one, _ in pairs], [other for _, other in pairs], [*faults, *absent]
