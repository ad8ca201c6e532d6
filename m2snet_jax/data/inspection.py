"""Checks of every file of a dataset before anything is trained on it: problems, warnings, near-duplicates.

A problem makes a score wrong or a run fail; a warning is what a reader of the score should know.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from m2snet_jax.data.datasets import module_of, open_dataset, warnings_of
from m2snet_jax.data.duplicates import thumbnail
from m2snet_jax.data.leaks import compare_images
from m2snet_jax.data.source import (
    apply_keys,
    decide_reading,
    doubtful_masks,
    foreground_share,
    looks_inverted,
    read_contents,
)
from m2snet_jax.data.splits import assign_splits, crosses_split

TAILS = ((1, 15), (16, 239), (240, 254))  # levels of masks that are not clean
NAMED = 20  # at most so many masks in one warning


@dataclasses.dataclass
class ExampleCheck:
    """What was found in one example.

    Attributes:
        split, name, label, path: the split after `assign_splits`; the path of the image, '' where it is generated.
        group: as of a Pair.
        faults: a line for each file that cannot be used; if there are any, what follows is unset.
        image_sha256, size (height, width), thumbnail: of the image.
        kind, levels, foreground: of the mask, '0/255', '0/1' or another level, 'not clean' or 'classes'; the number of
            pixels at each level or class index, int [256]; the share of its pixels.
        turned_apart, inverted: whether EXIF data turned image or mask alone; whether the mask looks inverted.
    """

    split: str
    name: str
    label: str
    path: str
    faults: list
    group: str = ''
    image_sha256: str = ''
    size: tuple = ()
    thumbnail: np.ndarray | None = None
    kind: str = ''
    levels: np.ndarray | None = None
    foreground: float = 0.0
    turned_apart: bool = False
    inverted: bool = False


def inspect(config: Any, progress: Callable[[int, int], Any] = lambda done, total: None) -> dict[str, Any]:
    """Checks every example of the dataset that `config.data` names; prepares it when every file can be used.

    Args:
        config: its `data` is read.
        progress: called with the number of examples that are checked and of all.

    Returns:
        A dict that JSON can hold: dataset, root, window; notes, lines on what was decided on the whole set; splits,
        {split: `_summary`}; problems and warnings, lines that name their files;
        near_duplicates, as `leaks.compare_images` returns them; manifest_hash and manifest (its path), None
        where files cannot be used.

    Raises:
        InputError: there is nothing to check, or the config cannot be used.
    """
    source = module_of(config).find(config)
    apply_keys(source, config.data)
    decide_reading(source)
    checks = []
    for check in _check_all(config, source):
        checks.append(check)
        progress(len(checks), sum(map(len, source.splits.values())))
    undecided = [source.reading.problem] if source.reading.problem else []
    faults = [fault for check in checks for fault in check.faults]
    unusable = source.problems + undecided + faults + source.split_problems
    whole = [check for check in checks if not check.faults]
    summaries = {
        split: _summary([check for check in whole if check.split == split], source, split)
        for split in dict.fromkeys(check.split for check in checks)
    }
    dataset = None if unusable else open_dataset(config)
    return {
        'dataset': config.data.name,
        'root': source.root,
        'window': source.window,
        'notes': list(source.reading.notes),
        'splits': summaries,
        'problems': unusable + _identical(whole) + _nothing_to_learn(summaries),
        'warnings': warnings_of(source) + _mask_warnings(summaries) + _doubts(whole),
        'near_duplicates': compare_images(whole, source.folds, config.data.seed),
        'manifest_hash': dataset and dataset.manifest_hash,
        'manifest': dataset and str(dataset.manifest_path),
    }


def _check_all(config, source):
    """Yields the ExampleCheck of every example, in order."""
    if source.problems or source.split_problems:
        used = {split: [split] * len(members) for split, members in source.splits.items()}
    else:
        used = assign_splits(source, config)
    jobs = [pair for stored, members in source.splits.items() for pair in zip(used[stored], members, strict=True)]
    with ThreadPoolExecutor() as threads:
        yield from threads.map(lambda job: _check(source, *job), jobs)


def _check(source, split, member):
    """Returns the ExampleCheck of a member of the source."""
    label, path, group = (getattr(member, name, '') for name in ('label', 'image', 'group'))  # '' where generated
    contents = read_contents(member, source)
    check = ExampleCheck(split, member.name, label, str(path), contents.faults, group)
    if contents.faults:
        return check
    mask = contents.mask
    check.image_sha256, check.size, check.thumbnail = contents.hashes[0], mask.shape, thumbnail(contents.image)
    check.levels = np.bincount(mask.ravel(), minlength=256)
    check.foreground = foreground_share(mask, source.classes)
    check.turned_apart, check.inverted = contents.turned_apart, source.classes == 1 and looks_inverted(mask)
    if source.classes > 1:
        check.kind = 'classes'
    elif check.levels[1:255].any():
        check.kind = 'not clean'
    else:
        level = source.reading.level or (1 if any(stored.max() == 1 for stored in contents.stored) else 255)
        check.kind = f'0/{level:g}'
    return check


def _summary(checks, source, split):
    """Returns counts, sizes, kinds and levels of masks, foreground, empty and full masks of one split."""
    levels = sum((check.levels for check in checks), np.zeros(256, int))
    used = range(source.classes + 1) if source.classes > 1 else range(256)
    return {
        'images': len(checks),
        'published': source.published.get(split),
        'height': [min(sides), max(sides)] if (sides := [check.size[0] for check in checks]) else None,
        'width': [min(sides), max(sides)] if (sides := [check.size[1] for check in checks]) else None,
        'masks': dict(Counter(check.kind for check in checks)),
        'foreground': float(np.mean([check.foreground for check in checks])) if checks else None,
        'levels': {str(level): int(levels[level]) for level in used if levels[level]},
        'not_clean': {
            check.name: float(check.levels[1:255].sum() / check.levels.sum())
            for check in checks
            if check.kind == 'not clean'
        },
        'empty': [check.name for check in checks if check.foreground == 0],
        'full': [check.name for check in checks if check.foreground == 1],
    }


def _doubts(checks):
    """Returns the lines of `doubtful_masks`."""
    turned = [check.name for check in checks if check.turned_apart]
    return doubtful_masks(turned, sum(check.inverted for check in checks), len(checks))


def _identical(checks):
    """Returns a line for each pair of images that are equal byte for byte, across the split or under two labels."""
    same, problems = defaultdict(list), []
    for check in checks:
        for other in same[check.image_sha256]:
            if crosses_split(check.split, other.split) or check.label != other.label:
                problems.append(f'{_where(check)}: byte for byte the same image as {_where(other)}; remove one of them')
        same[check.image_sha256].append(check)
    return problems


def _nothing_to_learn(summaries):
    """Returns a line when every mask to train on is empty."""
    train = summaries.get('train')
    if train and train['images'] and len(train['empty']) == train['images']:
        return [f'train: the masks of all {train["images"]} images are empty; nothing can be learned']
    return []


def _mask_warnings(summaries):
    """Returns a line for each split with masks that are not clean, full or empty."""
    lines = []
    for split, summary in summaries.items():
        if summary['not_clean']:
            pixels = sum(summary['levels'].values())
            shares = ', '.join(
                f'{sum(summary["levels"].get(str(level), 0) for level in range(low, high + 1)) / pixels:.2%} at '
                f'{low} to {high}'
                for low, high in TAILS
            )
            lines.append(
                f'{split}: {len(summary["not_clean"])} masks are not clean 0/255 ({shares}, of all pixels): trained on '
                "as they are, and a pixel counts as lesion above half of its mask's highest level: "
                + _named(summary['not_clean'])
            )
        for kind in ('full', 'empty'):
            if summary[kind]:
                lines.append(f'{split}: {len(summary[kind])} masks are {kind}: {_named(summary[kind])}')
    return lines


def _named(names):
    """Returns names as text, at most `NAMED` of them."""
    names = list(names)
    more = f' and {len(names) - NAMED} more (--json names all)' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def _where(check):
    """Returns the path, split and label of an example as text."""
    return f'{check.path} ({", ".join(filter(None, (check.split, check.label)))})'
