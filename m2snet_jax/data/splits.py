"""Which example is in which split: folds, images held out for validation, names left out of training.

All of it depends on `data.seed` and on the names, never on the seed of the run.
"""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from m2snet_jax.data import duplicates
from m2snet_jax.data.pairs import Pair
from m2snet_jax.data.patterns import valid_text
from m2snet_jax.data.source import Source
from m2snet_jax.errors import InputError

FOLDS_FILE = 'folds.csv'
VALIDATION, EXCLUDED = 'validation', 'excluded'
TRAINED_ON = ('train', VALIDATION)  # an image in one of these must not be in another split
NOT_TESTED = (*TRAINED_ON, EXCLUDED)  # every other split is a test set


def split_by_fold(
    pairs: Sequence[Pair], root: Path, config: Any, problems: list[str]
) -> tuple[dict[str, list[Pair]], dict[str, int]]:
    """Splits pairs by `data.fold`: it is the test, the other folds train; without it, all of them train.

    Folds come from `data.folds_file`, else from a `folds.csv` in the folder of the data, else they are dealt into
    `data.folds`, of equal size and with equal shares of each label. With `data.group_duplicates` they are always
    dealt, near-duplicates together.

    Args:
        pairs: of files.
        root: the folder of the data.
        config: `data.{fold, folds, folds_file, group_duplicates, seed}` are read.
        problems: list that gets a line for each fault of a file of folds.

    Returns:
        (splits, folds): {'train': pairs, 'test': pairs} and {name: fold}.
    """
    data = config.data
    if data.fold is None:
        return {'train': list(pairs)}, {}
    if data.folds < 2:
        raise InputError(f'--config.data.folds={data.folds}: must be at least 2')
    if not 0 <= data.fold < data.folds:
        raise InputError(f'--config.data.fold={data.fold}: there are the folds 0 to {data.folds - 1}')
    path = _folds_file(root, data)
    folds = deal_folds(pairs, data) if path is None else read_folds(path, pairs, data.folds, problems)
    splits = {'train': [], 'test': []}
    for pair in pairs:
        if pair.name in folds:
            splits['test' if folds[pair.name] == data.fold else 'train'].append(pair)
    problems += [f'{root}: no image is left for {split}; {len(pairs)} found' for split in splits if not splits[split]]
    return splits, folds


def deal_folds(pairs: Sequence[Pair], data: Any) -> dict[str, int]:
    """Returns {name: fold}: larger groups (see `groups_of`) first, each to the fold that has least of its labels."""
    members = {}
    for pair, group in zip(pairs, groups_of(pairs, data), strict=True):
        members.setdefault(group, []).append(pair)
    order = sorted(members.values(), key=lambda group: (-len(group), hash_fraction(group[0].name, data.seed)))
    totals = {label: sum(pair.label == label for pair in pairs) for label in {pair.label for pair in pairs}}
    shares = [dict.fromkeys(totals, 0.0) for _ in range(data.folds)]  # of all images of a label
    counts = [0] * data.folds
    folds = {}
    for group in order:
        fold = min(range(data.folds), key=lambda fold: (sum(shares[fold][pair.label] for pair in group), counts[fold]))
        for pair in group:
            folds[pair.name] = fold
            shares[fold][pair.label] += 1 / totals[pair.label]
            counts[fold] += 1
    return folds


def groups_of(members: Sequence, data: Any) -> Int[np.ndarray, 'members']:
    """Returns the number of each member's group; no split divides a group.

    That is what a Pair names as its group, frames of a clip, and with `data.group_duplicates` near-duplicates.
    """
    keys = [getattr(member, 'group', '') or clip_of(member.name) or member.name for member in members]
    links = _links(keys)
    if data.group_duplicates and members and hasattr(members[0], 'image'):
        links += _links(duplicates.groups_of_files([member.image for member in members], data.window))
    return duplicates.groups(len(members), links)


def names_by_entry(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """Returns {entry of a list: names of its images}: an entry is the name of one image or of a group."""
    named = {pair.name: [pair.name] for pair in pairs}
    for pair in pairs:
        if pair.group:
            named.setdefault(pair.group, []).append(pair.name)
    return named


def divided_group_problems(pairs: Iterable[Pair], sides: dict[str, Any], path: Path) -> list[str]:
    """Returns a line for each group that a list divides.

    Args:
        pairs: of files.
        sides: {name: where the list puts it}.
        path: of the list, for the line.
    """
    sides_of = {}
    for pair in pairs:
        if pair.group and pair.name in sides:
            sides_of.setdefault(pair.group, {})[sides[pair.name]] = pair.name
    return [
        f'{path}: {" and ".join(list(members.values())[:2])} are of one group on two sides; name {group!r} once'
        for group, members in sides_of.items()
        if len(members) > 1
    ]


def read_folds(path: Path, pairs: Sequence[Pair], count: int, problems: list[str]) -> dict[str, int]:
    """Returns {name: fold} of a CSV file with the columns name and fold, the folds being 0 to `count` − 1.

    Args:
        path: of the file.
        pairs: all that must be in it by name or as a group, and no other.
        count: of folds.
        problems: list that gets a line for each fault.
    """
    try:
        with Path(path).open(encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            rows = [(valid_text(row.get('name') or ''), row.get('fold') or '') for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'{path}: cannot be read as a table ({error})') from None
    if not {'name', 'fold'} <= set(reader.fieldnames or ()):
        raise InputError(f'{path}: the first line must name the columns name and fold')
    folds, known = {}, names_by_entry(pairs)
    for name, fold in rows:
        if name not in known:
            problems.append(f'{path}: no image is named {name!r}; correct the list')
        elif not folds.keys().isdisjoint(known[name]):
            problems.append(f'{path}: {name!r} is listed twice; keep one')
        elif fold not in map(str, range(count)):
            problems.append(f'{path}: {name!r} has fold {fold!r}, data.folds={count} allows 0 to {count - 1}')
        else:
            folds.update(dict.fromkeys(known[name], int(fold)))
    problems += [f'{path}: {pair.name!r} is missing; give it a fold' for pair in pairs if pair.name not in folds]
    problems += divided_group_problems(pairs, folds, path)
    problems += [
        f'{path}: fold {fold} is empty; data.folds={count}' for fold in range(count) if fold not in folds.values()
    ]
    return folds


def assign_splits(source: Source, config: Any) -> dict[str, list[str]]:
    """Assigns every example to its split, after `data.exclude` and `data.validation`.

    Members of 'train' that `exclude` names are in 'excluded', and those held out in 'validation'.

    Returns:
        {split of the source: the split of each of its members}.

    Raises:
        InputError: a list that cannot be used, or nothing is left to train on.
    """
    used = {split: [split] * len(members) for split, members in source.splits.items()}
    train, excluded = source.splits['train'], _read_excluded(config.data.exclude, source)
    left = [member for member in train if member.name not in excluded]
    held_out = _held_out(left, config.data) if config.data.validation is not None and left else set()
    if len(held_out) == len(left):
        raise InputError(
            f'--config.data.exclude={config.data.exclude}, --config.data.validation={config.data.validation}: '
            f'of {len(train)} training images none is left'
        )
    used['train'] = [
        EXCLUDED if member.name in excluded else VALIDATION if member.name in held_out else 'train' for member in train
    ]
    return used


def crosses_split(first: str, second: str) -> bool:
    """Returns whether one of two splits is trained on and the other is another one in use."""
    return first != second and EXCLUDED not in (first, second) and (first in TRAINED_ON or second in TRAINED_ON)


def clip_of(name: str) -> str:
    """Returns the clip of a frame, '' for a single image."""
    return name.rpartition('/')[0]


def hash_fraction(name: str, seed: int) -> float:
    """Returns the hash of a name and a seed as a fraction from 0 up to 1, for a shuffled order that never changes."""
    return int(hashlib.sha256(f'{seed}/{name}'.encode(errors='surrogateescape')).hexdigest()[:8], 16) / 2**32


def _links(keys):
    """Returns the pairs (index of the first with the same key, index)."""
    first = {}
    return [(first.setdefault(key, index), index) for index, key in enumerate(keys)]


def _folds_file(root, data):
    """Returns the path of the file of folds in use, or None when they are to be dealt."""
    if data.folds_file is not None and data.group_duplicates:
        raise InputError(
            f'--config.data.folds_file={data.folds_file}: gives folds, data.group_duplicates deals them; unset one'
        )
    if data.folds_file is not None:
        return Path(data.folds_file).expanduser()
    found = root / FOLDS_FILE
    return found if found.is_file() and not data.group_duplicates else None


def _read_excluded(path, source):
    """Returns the names in the file `data.exclude`, checked against those of all splits."""
    if path is None:
        return set()
    try:
        lines = Path(path).expanduser().read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'--config.data.exclude={path}: cannot be read ({error})') from None
    excluded = {valid_text(line.strip()) for line in lines if line.strip()}
    unknown = excluded - {member.name for members in source.splits.values() for member in members}
    if unknown:
        raise InputError(f'{path}: no image is named {min(unknown)!r}; correct the list')
    return excluded


def _held_out(members, data):
    """Returns the names of those held out, whole groups of them (see `groups_of`)."""
    if data.validation <= 0:
        raise InputError(f'--config.data.validation={data.validation}: give a share below 1 or a number of images')
    wanted = max(1, round(data.validation * len(members) if data.validation < 1 else data.validation))
    units, held_out = {}, set()
    for member, group in zip(members, groups_of(members, data), strict=True):
        units.setdefault(group, []).append(member.name)
    for unit in sorted(units.values(), key=lambda unit: hash_fraction(unit[0], data.seed)):
        if len(held_out) < wanted:
            held_out.update(unit)
    return held_out
