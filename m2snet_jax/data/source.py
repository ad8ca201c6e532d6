"""What a dataset is made from: the members of each split, and the pixels of a member, read and checked."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.data.pairs import Pair, join_names, sha256, tree_hash
from m2snet_jax.data.patterns import name_of
from m2snet_jax.errors import InputError
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.decisions import image_reading, mask_reading
from m2snet_jax.images.formats import load_image, load_mask
from m2snet_jax.images.masks import class_mismatch
from m2snet_jax.images.reading import UNDECIDED, Reading, joined


@dataclasses.dataclass
class Source:
    """What `find` of a dataset returns: the examples of each split, and how their files are read.

    Attributes:
        key: the hash of it, a part of the path of the prepared records.
        root: the folder of the files as text, 'generated' where there are none.
        splits: {split: its members}; 'train' and the test sets. A member is a Pair of files, or has a `name` and a
            method `generate()` that returns image (uint8 [H, W, 3]) and mask (uint8 [H, W]).
        classes: foreground classes of the masks.
        values: {level in the mask files: class index} where files hold levels in place of class indices.
        window: of images of more than 8 bits, as `data.window`.
        colors: of background and classes, as `data.colors`, parsed.
        reading: of all images and masks, see `decide_reading`.
        folds: {name: fold} where folds are in use.
        published: {split: count of images as published}.
        problems: a line for each file that cannot be used because of the files beside it, as one without partner.
        split_problems: a line for each fault of the lists that say which image is in which split.
        warnings: a line for each thing that a reader of the scores should know and that is no fault.
    """

    key: str
    root: str
    splits: dict[str, list]
    classes: int = 1
    values: dict[int, int] | None = None
    window: str | None = None
    colors: tuple[str, ...] = ()
    reading: Reading = UNDECIDED
    folds: dict[str, int] = dataclasses.field(default_factory=dict)
    published: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    split_problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


READING = 2  # version of how files are read: records of another are never served


def source_of(root: Path, splits: dict[str, list[Pair]], **attributes: Any) -> Source:
    """Returns the Source of the pairs of files below `root`, {split: pairs}; `attributes` are those of a Source."""
    pairs = [pair for members in splits.values() for pair in members]
    names = {split: [pair.name for pair in members] for split, members in splits.items()}
    shaping = {key: attributes.get(key) for key in ('classes', 'values', 'window')}
    return Source(tree_hash(pairs, root, names, shaping), name_of(root), splits, **attributes)


SHOWN = 5  # names in a warning
BORDER = 0.9  # share of its border that is lesion in a mask that looks inverted
_UNSET = np.zeros((0, 0), np.uint8)


class Contents(NamedTuple):
    """The pixels of one member of a Source.

    Attributes:
        faults: a line for each file that cannot be used; if there are any, the rest is empty.
        image: RGB.
        mask: its levels 0…255 or class indices, the union where there are several files.
        stored: the masks, uint8 [H, W], as their files hold them.
        hashes: SHA-256 of image and mask, of the files or of the generated arrays.
        turned_apart: whether EXIF data turned the image or its mask, and not the other.
    """

    faults: list[str]
    image: UInt8[np.ndarray, 'height width 3'] = _UNSET
    mask: UInt8[np.ndarray, 'height width'] = _UNSET
    stored: Any = ()
    hashes: tuple[str, str] = ('', '')
    turned_apart: bool = False


def read_contents(member: Any, source: Source) -> Contents:
    """Returns the Contents of a member of a Source: reads and checks its files, or generates it."""
    if not isinstance(member, Pair):
        image, mask = member.generate()
        image_sha256, mask_sha256 = (hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in (image, mask))
        return Contents([], image, mask, [mask], (image_sha256, mask_sha256))
    image, masks, faults, turned_apart = read_pair(member, source)
    levels = []
    for mask, path in zip(masks, member.masks, strict=True):
        try:
            levels += [] if mask is None else [mask_levels(mask, path, source)]
        except InputError as error:
            faults.append(str(error))
    if faults or image is None:
        return Contents(faults)
    hashes = sha256(member.image), sha256(*member.masks)
    return Contents([], image, np.maximum.reduce(levels), masks, hashes, turned_apart)


def read_pair(pair: Pair, source: Source) -> tuple[np.ndarray | None, list, list[str], bool]:
    """Reads an image and its masks, as the reading of their source says, and compares their sizes.

    Returns:
        (image, masks, faults, turned_apart): uint8 [H, W, 3] or None, a uint8 [H, W] or None for each mask, a line for
        each file that is unreadable or of the wrong size, and whether EXIF data turned some of the files alone.
    """
    faults = []

    def read(function, *arguments):
        try:
            return function(*arguments)
        except InputError as error:
            faults.append(str(error))
            return None, False

    image, turned = read(load_image, pair.image, source.window, source.reading)
    masks = [read(load_mask, path, source.reading, source.classes) for path in pair.masks]
    turned_apart = any(mask_turned != turned for _, mask_turned in masks)
    for (mask, _), path in zip(masks, pair.masks, strict=True):
        if image is not None and mask is not None and image.shape[:2] != mask.shape:
            (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
            why = '; EXIF data turn one of them alone: store both upright' if turned_apart else ''
            faults.append(
                f'{path}: {mask_width}x{mask_height} pixels, but its image {pair.image} has {width}x{height}'
                f'{why or "; give both the same size"}'
            )
    return image, [mask for mask, _ in masks], faults, turned_apart


def foreground_share(mask: UInt8[np.ndarray, 'height width'], classes: int) -> float:
    """Returns the share of the pixels of a mask that are foreground: above half of its highest level, or any class."""
    return float(np.mean(mask > (mask.max() / 2 if classes == 1 else 0)))


def mask_levels(
    mask: UInt8[np.ndarray, 'height width'], path: Path | str, source: Source
) -> UInt8[np.ndarray, 'height width']:
    """Returns a mask's levels 0…255 when there is one class, else its class indices, checked.

    Args:
        mask: as stored in the file.
        path: the file, for the message.
        source: whose `classes` and `values` say how masks are stored.
    """
    if source.colors or source.reading.problem:
        return mask  # by colour: see images/masks.py
    if source.values:
        unknown = ~np.isin(mask, list(source.values))
        if unknown.any():
            known = ', '.join(map(str, sorted(source.values)))
            raise InputError(f'{path}: value {mask[unknown].min()} found, masks of this set hold {known}; correct it')
        indices = np.zeros(256, np.uint8)
        for value, index in source.values.items():
            indices[value] = index
        return indices[mask]
    highest, classes = int(mask.max()), source.classes
    if classes > 1:
        if highest > classes:
            raise InputError(class_mismatch(mask, classes, source.reading, path))
        return mask
    if highest == 1:
        return mask * np.uint8(255)
    if 1 < highest < 128:
        values = np.unique(mask)
        shown = ', '.join(map(str, values[:5])) + (', …' if len(values) > 5 else '')
        raise InputError(
            f'{path}: values {shown} found, neither 0/1 nor 0/255: for class indices set '
            f'--config.data.classes={highest}, else store 0/255'
        )
    return mask


def decide_reading(source: Source) -> None:
    """Sets the reading of a source from all of its files, see images/decisions.py."""
    pairs = [member for members in source.splits.values() for member in members if isinstance(member, Pair)]
    masks = [path for pair in pairs for path in pair.masks]
    of_masks = UNDECIDED if source.values else mask_reading(masks, source.classes, source.colors)
    source.reading = joined([image_reading([pair.image for pair in pairs], source.window), of_masks])


def looks_inverted(mask: UInt8[np.ndarray, 'height width']) -> bool:
    """Whether nearly all of the border of a binary mask is lesion, and not all of the mask."""
    lesion = mask > mask.max() / 2
    border = np.concatenate([lesion[0], lesion[-1], lesion[1:-1, 0], lesion[1:-1, -1]])
    return bool(border.mean() > BORDER and not lesion.all())


def doubtful_masks(turned: Sequence[str], inverted: int, count: int) -> list[str]:
    """Returns a line on images and masks of which EXIF data turn one alone, and one on masks that look inverted.

    Args:
        turned: names of the images.
        inverted: number of masks for which `looks_inverted`.
        count: of all masks.
    """
    lines = []
    if turned:
        lines.append(
            f'{len(turned)} images or their masks are turned by EXIF data and the other is not; if a mask was drawn on '
            f'the unturned image, store both upright: {join_names(turned, SHOWN)}'
        )
    if inverted > count / 2:
        lines.append(
            f'{inverted} of {count} masks are lesion along the border and look inverted; if 0 is the lesion, invert '
            'them, or name its colour last in data.colors'
        )
    return lines


def apply_keys(source: Source, data: Any) -> None:
    """Sets what the keys `data.colors` and `data.window`, which all datasets share, say of a source.

    Raises:
        InputError: colours that cannot be used, or for masks whose levels are known.
    """
    colors = parse_colors(data.get('colors'), data.classes)
    are_pairs = all(isinstance(member, Pair) for members in source.splits.values() for member in members)
    if colors and (source.values or not are_pairs):
        raise InputError(f'--config.data.colors={colors}: data.name={data.name} has levels of its own; unset it')
    source.colors, source.window = colors, data.window
    source.key = hashlib.sha256(repr((source.key, READING, colors, data.window)).encode()).hexdigest()[:16]
