"""A look at every file of a dataset before anything is trained on it: problems, warnings, near-duplicates.

Problems are what makes a score wrong or a run fail; warnings are what a reader of the score should know.
"""

import dataclasses
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from m2snet_jax.data import duplicates, files, leaks, records, splits
from m2snet_jax.data.datasets import module_of, open_dataset, warnings_of
from m2snet_jax.errors import InputError

TRAINED_ON = ('train', splits.VALIDATION)  # an image in one of these must not be in another split
TAILS = ((1, 15), (16, 239), (240, 254))  # levels of masks that are not clean
NAMED = 20  # at most so many masks in one warning


@dataclasses.dataclass
class Look:
    """What was seen of one example.

    Attributes:
        split, name, label, path: the split as it is in use, and the path, '' where images are generated.
        group: as of a Pair.
        faults: a line for each file that cannot be used; if there are any, what follows is unset.
        image_sha256, size (height, width), thumbnail: of the image.
        kind, levels, foreground: of the mask, '0/255', '0/1', 'not clean' or 'classes'; the number of pixels at each
            level or class index, int [256]; the share of its pixels.
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


def inspect(config, progress=lambda done, total: None):
    """Looks at every example of the dataset that `config.data` names; prepares it when every file can be used.

    Args:
        config: its `data` is read.
        progress: called with the number of examples looked at and of all.

    Returns:
        A dict that JSON can hold: dataset, root, window; splits, {split: `_summary`}; problems and warnings, lines that
        name their files; near_duplicates, as `_compare` returns them; manifest_hash and manifest (its path), None where
        files cannot be used.

    Raises:
        InputError: there is nothing to look at, or the config cannot be used.
    """
    source = module_of(config).find(config)
    looks = []
    for look in _looks(config, source):
        looks.append(look)
        progress(len(looks), sum(map(len, source.splits.values())))
    unusable = source.problems + [fault for look in looks for fault in look.faults] + source.split_problems
    whole = [look for look in looks if not look.faults]
    summaries = {
        split: _summary([look for look in whole if look.split == split], source, split)
        for split in dict.fromkeys(look.split for look in looks)
    }
    dataset = None if unusable else open_dataset(config)
    return {
        'dataset': config.data.name,
        'root': source.description,
        'window': source.window,
        'splits': summaries,
        'problems': unusable + _identical(whole) + _nothing_to_learn(summaries),
        'warnings': warnings_of(source) + _mask_warnings(summaries),
        'near_duplicates': _compare(whole, source, config.data.seed),
        'manifest_hash': dataset and dataset.manifest_hash,
        'manifest': dataset and str(dataset.manifest_path),
    }


def _looks(config, source):
    """Yields a Look at every example, in order."""
    if source.problems or source.split_problems:
        used = {split: [split] * len(members) for split, members in source.splits.items()}
    else:
        used = splits.in_use(source, config)
    jobs = [pair for stored, members in source.splits.items() for pair in zip(used[stored], members, strict=True)]
    if all(isinstance(member, files.Pair) for _, member in jobs):
        with ThreadPoolExecutor() as threads:
            yield from threads.map(lambda job: _look_at_files(*job, source), jobs)
        return
    dataset = open_dataset(config)
    examples = {'train': dataset.train, splits.VALIDATION: dataset.validation, **dataset.tests}
    hashes = {(row['split'], row['name']): row['image_sha256'] for row in dataset.manifest}
    for split, members in examples.items():
        for index in range(len(members or ())):
            example = members[index]
            look = Look(split, example['name'], '', '', [], image_sha256=hashes[split, example['name']])
            yield _seen(look, example['image'], [example['mask']], [example['mask']], source)


def _look_at_files(split, pair, source):
    """Returns a Look at a pair of files."""
    image, masks, faults = records.read_pair(pair, source.window)
    levels = []
    for mask, path in zip(masks, pair.masks, strict=True):
        try:
            levels += [] if mask is None else [records.mask_levels(mask, path, source)]
        except InputError as error:
            faults.append(str(error))
    look = Look(split, pair.name, pair.label, str(pair.image), faults, pair.group)
    if faults:
        return look
    look.image_sha256 = records.sha256(pair.image)
    return _seen(look, image, masks, levels, source)


def _seen(look, image, masks, levels, source):
    """Fills in a Look from an image, its masks as stored, and their levels."""
    united = np.maximum.reduce(levels)
    look.size, look.thumbnail = united.shape, duplicates.thumbnail(image)
    look.levels = np.bincount(united.ravel(), minlength=256)
    look.foreground = records.foreground_share(united, source.classes)
    if source.classes > 1:
        look.kind = 'classes'
    elif look.levels[1:255].any():
        look.kind = 'not clean'
    else:
        look.kind = '0/1' if any(mask.max() == 1 for mask in masks) else '0/255'
    return look


def _summary(looks, source, split):
    """Returns what is told of one split: counts, sizes, kinds and levels of masks, foreground, empty and full masks."""
    levels = sum((look.levels for look in looks), np.zeros(256, int))
    used = range(source.classes + 1) if source.classes > 1 else range(256)
    return {
        'images': len(looks),
        'published': source.published.get(split),
        'height': [min(sides), max(sides)] if (sides := [look.size[0] for look in looks]) else None,
        'width': [min(sides), max(sides)] if (sides := [look.size[1] for look in looks]) else None,
        'masks': dict(Counter(look.kind for look in looks)),
        'foreground': float(np.mean([look.foreground for look in looks])) if looks else None,
        'levels': {str(level): int(levels[level]) for level in used if levels[level]},
        'not_clean': {
            look.name: float(look.levels[1:255].sum() / look.levels.sum()) for look in looks if look.kind == 'not clean'
        },
        'empty': [look.name for look in looks if look.foreground == 0],
        'full': [look.name for look in looks if look.foreground == 1],
    }


def _identical(looks):
    """Returns a line for each pair of images that are equal byte for byte, across the split or under two labels."""
    same, problems = defaultdict(list), []
    for look in looks:
        for other in same[look.image_sha256]:
            if _across(look, other) or look.label != other.label:
                problems.append(f'{_where(look)}: byte for byte the same image as {_where(other)}; remove one of them')
        same[look.image_sha256].append(look)
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


def _compare(looks, source, seed):
    """Returns the near-duplicates: every pair by name, and how many there are across the split in use.

    Slices of one volume are alike and always on one side, so they are not counted.
    """
    thumbnails = np.stack([look.thumbnail for look in looks]) if looks else np.zeros((0, duplicates.SIDE**2))
    volumes = [look.group or number for number, look in enumerate(looks)]
    found = [pair for pair in duplicates.near_duplicates(thumbnails) if volumes[pair[0]] != volumes[pair[1]]]
    groups = duplicates.groups(len(looks), found).tolist()
    sizes = [size for size in Counter(groups).values() if size > 1]
    pairs, leaked, folds = [], defaultdict(set), source.folds
    for first, second, correlation in found:
        look, other = looks[first], looks[second]
        pairs.append(
            {
                'names': [look.name, other.name],
                'splits': [look.split, other.split],
                'paths': [look.path, other.path],
                'correlation': correlation,
                'identical': look.image_sha256 == other.image_sha256,
                'across_split': _across(look, other),
                'across_labels': look.label != other.label,
            }
        )
        for one, its_other in ((look, other), (other, look)):
            if _across(look, other) and its_other.split == 'train':
                leaked[one.split].add(one.name)
    return {
        'pairs': pairs,
        'groups': len(sizes),
        'images': sum(sizes),
        'largest_group': max(sizes, default=0),
        'across_split': sum(pair['across_split'] for pair in pairs),
        'across_labels': sum(pair['across_labels'] for pair in pairs),
        'across_folds': sum(len({folds[name] for name in pair['names'] if name in folds}) == 2 for pair in pairs),
        'near_training': {split: len(names) for split, names in leaked.items()},
        'exclude': leaks.exclusion_lists(looks, groups, seed),
    }


def _across(look, other):
    """Whether one of two examples is trained on and the other is in another split."""
    return (
        look.split != other.split
        and (look.split in TRAINED_ON or other.split in TRAINED_ON)
        and splits.EXCLUDED not in (look.split, other.split)
    )


def _where(look):
    """Returns the path of an example and where it belongs."""
    return f'{look.path} ({", ".join(filter(None, (look.split, look.label)))})'
