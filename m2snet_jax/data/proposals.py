"""Patterns that would pair the images and the masks of a tree, for an error message."""

import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from m2snet_jax.data.affixes import affix_between, match_names, shared_affixes, without_affixes
from m2snet_jax.data.patterns import image_paths, name_of
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import split_name

LOSSLESS = ('.png', '.gif', '.bmp')  # more often masks than images
FILES, DEPTH, FAMILIES = 20_000, 5, 40  # at most so many are looked at
# Words in the names of folders and files, surest first. DRIVE's folder `mask` holds fields of view.
TRUTH = re.compile(r'manual|truth|gt|label|annot|segment', re.IGNORECASE)
MASK = re.compile(r'mask|outline|contour', re.IGNORECASE)
IMAGE = re.compile(r'image|img|original|input|frame|photo|scan', re.IGNORECASE)


class Family(NamedTuple):
    """The files of one ending in the folders of one pattern: {what its `*` are: stems of the files}."""

    pattern: str
    ending: str
    stems: dict[str, list[str]]

    def names(self) -> list[str]:
        """Returns the names of the files, as the pattern gives them."""
        return [f'{folder}/{stem}' if folder else stem for folder, stems in self.stems.items() for stem in stems]

    def with_affixes(self, prefix: str = '', suffix: str = '') -> str:
        """Returns the pattern of the files whose stem has a prefix and a suffix."""
        return f'{self.pattern}/{prefix}*{suffix}{self.ending}'.removeprefix('/')


class Proposal(NamedTuple):
    """Two patterns, the number of images that they pair, and how much their words speak for that order."""

    images: str
    masks: str
    count: int
    words: float


def propose(root: Path) -> str:
    """Returns the keys that pair most images below a folder, ready to paste after a command; '' where none do."""
    try:
        families = _families(root)
    except InputError:
        return ''
    found = [one for family in families for one in _beside(family)]
    found += [one for pair in itertools.permutations(families, 2) for one in _between(*pair)]
    found = [one for one in found if one.count > 1]
    if not found:
        return ''
    best = max(found, key=lambda one: (one.count, one.words, -one.images.count('*')))
    return (
        f'{best.count} images and masks pair with '
        f'--config.data.images={quoted(best.images)} --config.data.masks={quoted(best.masks)}'
    )


def quoted(pattern: str) -> str:
    """Returns a pattern as a shell takes it."""
    return "'" + pattern.replace("'", "'\\''") + "'"


def _families(root):
    """Returns the largest Families of the files below a folder."""
    folders = defaultdict(lambda: defaultdict(list))
    for path in itertools.islice(image_paths(root, DEPTH), FILES):
        stem, ending = split_name(path)
        folders[tuple(name_of(part) for part in path.relative_to(root).parts[:-1])][ending].append(name_of(stem))
    families = defaultdict(dict)
    for parts, endings in folders.items():
        for stars in itertools.product((False, True), repeat=len(parts)):
            pattern = '/'.join('*' if star else part for star, part in zip(stars, parts, strict=True))
            inside = '/'.join(part for star, part in zip(stars, parts, strict=True) if star)
            for ending, stems in endings.items():
                families[pattern, ending][inside] = stems
    varied = [
        Family(pattern, ending, stems)
        for (pattern, ending), stems in families.items()
        if '*' not in pattern or _varies(stems)
    ]
    return sorted(varied, key=lambda family: -sum(map(len, family.stems.values())))[:FAMILIES]


def _varies(stems):
    """Returns whether each `*` of a pattern is several folders."""
    return all(len(set(parts)) > 1 for parts in zip(*(inside.split('/') for inside in stems), strict=True))


def _beside(family):
    """Yields the Proposal of a family in which masks lie beside their images."""
    cuts = Counter()
    for stems in family.stems.values():
        known = set(stems)
        for stem in stems:
            for cut in range(1, len(stem)):
                cuts['', stem[cut:]] += stem[:cut] in known
                cuts[stem[:cut], ''] += stem[cut:] in known
    (affixes, count), *_ = cuts.most_common(1) or [(('', ''), 0)]
    if any(map(str.isalpha, ''.join(affixes))) and 3 * count >= len(family.names()):
        yield Proposal(family.with_affixes(), family.with_affixes(*affixes), count, _mask_words(''.join(affixes)))


def _between(images, masks):
    """Yields the Proposal of two families, of which one holds the masks of the other."""
    if images.pattern.count('*') != masks.pattern.count('*'):
        return
    names, others = images.names(), masks.names()
    words = _mask_words(masks.pattern) - _mask_words(images.pattern)
    words += ((masks.ending in LOSSLESS) - (images.ending in LOSSLESS)) / 2
    count = len(match_names(names, others)[0])
    cut, other_cut = ('', ''), ('', '')
    if not count and len(images.stems) == 1 == len(masks.stems):  # an affix of each, and some are left without partner
        cut, other_cut = shared_affixes(names), shared_affixes(others)
        rests = {without_affixes(name, *cut) for name in names}
        count = sum(without_affixes(other, *other_cut) in rests for other in others)
    elif len(images.stems) == 1:
        other_cut = affix_between(others, names) or other_cut
    if 2 * count >= min(len(names), len(others)):
        words += _mask_words(''.join(other_cut)) - _mask_words(''.join(cut))
        yield Proposal(images.with_affixes(*cut), masks.with_affixes(*other_cut), count, words)


def _mask_words(text):
    """Returns how much a text speaks for masks."""
    return 3 * bool(TRUTH.search(text)) + 2 * bool(MASK.search(text)) - bool(IMAGE.search(text))
