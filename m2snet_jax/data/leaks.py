"""What leaks into a test set: images near to one another, and lists of training images to leave out.

Training without such a list (`data.exclude`) measures how much the leaks change a score.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from m2snet_jax.data.duplicates import SIDE, groups, near_duplicates
from m2snet_jax.data.splits import NOT_TESTED, crosses_split, hash_fraction


def compare_images(checks: Sequence, folds: dict[str, int], seed: int) -> dict[str, Any]:
    """Returns the near-duplicates among images: every pair by name, and counts of them.

    Images of one group in one split, e.g. slices of a volume, are alike, so they are left out. Published splits may
    divide a group; its images in different splits are compared.

    Args:
        checks: examples with split, name, label, path, group, image_sha256 and thumbnail.
        folds: {name: fold} where folds are in use.
        seed: as of `exclusion_lists`.

    Returns:
        dict of `pairs`, the most alike first, dicts of names, splits, paths, correlation, identical, across_split (one
        image is trained on, the other in another split) and across_labels; `counts`, as `_count_pairs` returns them;
        `groups`, `images` in them and `largest_group`; `across_split`, `across_labels` and `across_folds`, numbers of
        pairs; `near_training`, {split: images of it with a near-duplicate in train}; `exclude`, as `exclusion_lists`
        returns it.
    """
    thumbnails = np.stack([check.thumbnail for check in checks]) if checks else np.zeros((0, SIDE**2))
    volumes = [(check.split, check.group) if check.group else number for number, check in enumerate(checks)]
    found = [pair for pair in near_duplicates(thumbnails) if volumes[pair[0]] != volumes[pair[1]]]
    group_of = groups(len(checks), found).tolist()
    sizes = [size for size in Counter(group_of).values() if size > 1]
    pairs, leaked = [], defaultdict(set)
    for first, second, correlation in found:
        check, other = checks[first], checks[second]
        across = crosses_split(check.split, other.split)
        pairs.append(
            {
                'names': [check.name, other.name],
                'splits': [check.split, other.split],
                'paths': [check.path, other.path],
                'correlation': correlation,
                'identical': check.image_sha256 == other.image_sha256,
                'across_split': across,
                'across_labels': check.label != other.label,
            }
        )
        for one, its_other in ((check, other), (other, check)):
            if across and its_other.split == 'train':
                leaked[one.split].add(one.name)
    return {
        'pairs': pairs,
        'counts': _count_pairs(pairs, list(dict.fromkeys(check.split for check in checks))),
        'groups': len(sizes),
        'images': sum(sizes),
        'largest_group': max(sizes, default=0),
        'across_split': sum(pair['across_split'] for pair in pairs),
        'across_labels': sum(pair['across_labels'] for pair in pairs),
        'across_folds': sum(len({folds[name] for name in pair['names'] if name in folds}) == 2 for pair in pairs),
        'near_training': {split: len(names) for split, names in leaked.items()},
        'exclude': exclusion_lists(checks, group_of, seed),
    }


def _count_pairs(pairs, splits):
    """Returns the number of pairs of each two splits: list of {'splits': [a, b], 'identical': n, 'near': n}.

    `near` are those that are not identical. Pairs of two different splits come first, then the largest counts.
    """
    identical, near = Counter(), Counter()
    for pair in pairs:
        (identical if pair['identical'] else near)[tuple(sorted(pair['splits'], key=splits.index))] += 1
    rows = [{'splits': list(key), 'identical': identical[key], 'near': near[key]} for key in {**identical, **near}]
    return sorted(rows, key=lambda row: (len(set(row['splits'])) == 1, -row['identical'], -row['near']))


def exclusion_lists(checks: Sequence, groups: Iterable[int], seed: int) -> dict[str, list[str]]:
    """Returns two lists of names of training images that are equally long and hold as many of each label.

    Leaving out the first takes away what leaks; leaving out the second takes away as many images and no leak, so that
    the difference between both is the leaks' own.

    Args:
        checks: examples with split, name and label.
        groups: the number of each one's group of near-duplicates, int [N].
        seed: of the draw.

    Returns:
        dict of `near_duplicates`, training images in one group with an image of a test set, and `control`, as many
        others drawn at random; of the first in the order of the dataset, of the second in the drawn order.
    """
    tested = {group for check, group in zip(checks, groups, strict=True) if check.split not in NOT_TESTED}
    train = [(check, group) for check, group in zip(checks, groups, strict=True) if check.split == 'train']
    near = [check for check, group in train if group in tested]
    others = [check for check, group in train if group not in tested]
    others.sort(key=lambda check: hash_fraction(check.name, seed))
    control = []
    for label in dict.fromkeys(check.label for check in near):
        wanted = sum(check.label == label for check in near)
        control += [check for check in others if check.label == label][:wanted]
    return {'near_duplicates': [check.name for check in near], 'control': [check.name for check in control]}
