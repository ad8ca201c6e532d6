"""What the folders in the names of images say: the split that is published, and which images stay together."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m2snet_jax.data.pairs import Pair, join_names
from m2snet_jax.errors import InputError

# The first part of a name that says which split an image is in: `Training`, `test_v2`, `val`, `TestDataset`.
PUBLISHED = re.compile(r'(train|test|val)(ing|id|idation)?[ _-]?(set|data|dataset)?(?![a-z])', re.IGNORECASE)


def published_split(pairs: list[Pair], root: Path, data: Any, warnings: list[str]) -> dict[str, list[Pair]] | None:
    """Returns {split: pairs} where the first part of every name says the split, else None.

    Splits are 'train', 'test' and 'val'; the folders that all names of one share are removed from them.

    Args:
        pairs: of files.
        root: the folder of the data.
        data: `fold` is read.
        warnings: list that gets a line on such a split.

    Raises:
        InputError: there is such a split, and a list or `data.fold` for another.
    """
    splits = {}
    for pair in pairs:
        first, slash, _ = pair.name.partition('/')
        match = PUBLISHED.match(first)
        if not slash or match is None:
            return None
        splits.setdefault(match[1].lower(), []).append(pair)
    if 'train' not in splits or len(splits) == 1:
        return None
    splits = {split: splits[split] for split in ('train', 'test', 'val') if split in splits}
    for path in (root / 'train.txt', root / 'test.txt'):
        if path.is_file():
            raise InputError(f'{path}: lists a split, but the folders are one ({join_names(splits)}); remove the list')
    if data.fold is not None:
        raise InputError(
            f'--config.data.fold={data.fold}: the folders are a split ({join_names(splits)}); unset it, or name the '
            'images and masks of one of them with data.images and data.masks'
        )
    counts = ', '.join(f'{split} {len(members)}' for split, members in splits.items())
    warnings.append(f'{root}: the folders divide the images, and that split is kept: {counts}')
    found = {}
    for split, members in splits.items():
        shared = _shared_folder([pair.name for pair in members])
        found[split] = [dataclasses.replace(pair, name=pair.name[len(shared) :]) for pair in members]
    return found


def group_by_folder(pairs: list[Pair], root: Path, warnings: list[str]) -> list[Pair]:
    """Returns pairs, those in subfolders with the first of these as their group.

    A folder that all images share is no group, since no split could divide them then.

    Args:
        pairs: of files.
        root: the folder of the data.
        warnings: list that gets a line on such folders.
    """
    names = [pair.name for pair in pairs]
    shared = _shared_folder(names)
    groups = [name[: name.find('/', len(shared))] if '/' in name[len(shared) :] else '' for name in names]
    counts = Counter(filter(None, groups))
    if shared:
        warnings.append(
            f'{root}: all {len(names)} images are in {shared[:-1]}, which is part of their names and no group: images '
            'of it may be in different splits'
        )
    if counts:
        shown = join_names(f'{group} ({count})' for group, count in counts.items())
        warnings.append(
            f'{root}: {counts.total()} of {len(names)} images are in subfolders, which are part of their names; the '
            f'images of each stay in one split: {shown}'
        )
    # The name itself is a group of one image; without it the shared folder would be one.
    return [
        dataclasses.replace(pair, group=group or (pair.name if shared else ''))
        for pair, group in zip(pairs, groups, strict=True)
    ]


def clusters_of(names: Sequence[str]) -> list[str] | None:
    """Returns the cluster of each image: its clip, or itself without one; None if each image is its own.

    The images of a cluster are drawn together by the bootstrap. A folder that all names share is no clip.
    """
    shared = len(_shared_folder(names))
    clips = [name[shared : name.rfind('/') + 1] for name in names]
    return [clip or name for clip, name in zip(clips, names, strict=True)] if any(clips) else None


def _shared_folder(names):
    """Returns the folder that all names share, with its '/', or ''."""
    folders = [name.split('/')[:-1] for name in names]
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(f'{parts[0]}/')
    return ''.join(shared)
