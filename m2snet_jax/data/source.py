"""What a dataset is made from: the members of each split, and the pixels of a member, read and checked."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.data.pairs import Pair, read_pair, sha256, tree_hash
from m2snet_jax.errors import InputError


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
    folds: dict[str, int] = dataclasses.field(default_factory=dict)
    published: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    split_problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def source_of(root: Path, splits: dict[str, list[Pair]], **attributes: Any) -> Source:
    """Returns the Source of the pairs of files below `root`, {split: pairs}; `attributes` are those of a Source."""
    pairs = [pair for members in splits.values() for pair in members]
    names = {split: [pair.name for pair in members] for split, members in splits.items()}
    shaping = {key: attributes.get(key) for key in ('classes', 'values', 'window')}
    return Source(tree_hash(pairs, root, names, shaping), str(root), splits, **attributes)


_UNSET = np.zeros((0, 0), np.uint8)


class Contents(NamedTuple):
    """The pixels of one member of a Source.

    Attributes:
        faults: a line for each file that cannot be used; if there are any, the rest is empty.
        image: RGB.
        mask: its levels 0…255 or class indices, the union where there are several files.
        stored: the masks, uint8 [H, W], as their files hold them.
        hashes: SHA-256 of image and mask, of the files or of the generated arrays.
    """

    faults: list[str]
    image: UInt8[np.ndarray, 'height width 3'] = _UNSET
    mask: UInt8[np.ndarray, 'height width'] = _UNSET
    stored: Any = ()
    hashes: tuple[str, str] = ('', '')


def read_contents(member: Any, source: Source) -> Contents:
    """Returns the Contents of a member of a Source: reads and checks its files, or generates it."""
    if not isinstance(member, Pair):
        image, mask = member.generate()
        image_sha256, mask_sha256 = (hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in (image, mask))
        return Contents([], image, mask, [mask], (image_sha256, mask_sha256))
    image, masks, faults = read_pair(member, source.window)
    levels = []
    for mask, path in zip(masks, member.masks, strict=True):
        try:
            levels += [] if mask is None else [mask_levels(mask, path, source)]
        except InputError as error:
            faults.append(str(error))
    if faults or image is None:
        return Contents(faults)
    return Contents([], image, np.maximum.reduce(levels), masks, (sha256(member.image), sha256(*member.masks)))


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
            wrong = int(mask[mask > classes].min())
            raise InputError(
                f'{path}: value {wrong} found, but data.classes={classes} allows 0 (background) to {classes}: '
                'classes mismatch; correct the mask or data.classes'
            )
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
