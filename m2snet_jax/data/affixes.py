"""Names of images and of masks that differ in what all of one kind share, as `x` and `x_mask`."""

import re
from collections.abc import Collection, Iterable


def match_names(
    first: Iterable[str], second: Iterable[str], kinds: tuple[str, str] = ('images', 'masks')
) -> tuple[dict[str, str], list[str]]:
    """Pairs names of two kinds, folder by folder.

    Where a folder has no name of both kinds, names are paired

    - without a prefix and a suffix that all names of one kind share, if the rest is a name of the other;
    - without those of both kinds, if that leaves exactly the same names of both, and more than one.

    Args:
        first, second: names, as 'folder/x'.
        kinds: what the names are of, for the lines.

    Returns:
        ({name of the first kind: name of the second}, a line for each prefix and suffix that was left out).
    """
    folders, others = _by_folder(first), _by_folder(second)
    partners, patterns = {}, {}
    for folder, names in folders.items():
        found, pattern = _match(names, others.get(folder, []))
        partners |= {folder + name: folder + other for name, other in found.items()}
        if pattern:
            patterns.setdefault(pattern, None)
    lines = [f'{kinds[0]} are named {one!r} and {kinds[1]} {other!r}: paired by what * is' for one, other in patterns]
    return partners, lines


def shared_affixes(names: Collection[str]) -> tuple[str, str]:
    """Returns the prefix and the suffix that names share, without parts of numbers or words."""
    prefix = _common_prefix(names)
    while prefix and any(_continues(prefix[-1], name[len(prefix) :][:1]) for name in names):
        prefix = prefix[:-1]
    rests = [name[len(prefix) :] for name in names]
    suffix = _common_suffix(rests)
    while suffix and any(_continues(suffix[0], rest[: len(rest) - len(suffix)][-1:]) for rest in rests):
        suffix = suffix[1:]
    return prefix, suffix


def without_affixes(name: str, prefix: str, suffix: str) -> str:
    """Returns a name without its prefix and suffix."""
    return name[len(prefix) : len(name) - len(suffix)]


def affix_between(longer: Collection[str], shorter: Collection[str]) -> tuple[str, str] | None:
    """Returns the prefix and suffix that all the longer names have around one of the shorter, or None.

    At least half of the names must be paired then. A prefix or suffix has a letter, or a sign beside the name.
    """
    prefix, suffix = _common_prefix(longer), _common_suffix(longer)
    shorter = set(shorter)
    for name in longer:
        cuts = [
            (name[:start], name[len(name) - end :])
            for start in range(len(prefix) + 1)
            for end in range(min(len(suffix), len(name) - start - 1) + 1)
            if name[start : len(name) - end] in shorter
        ]
        cuts = [(start, end) for start, end in cuts if _is_affix(start[::-1]) and _is_affix(end)]
        if cuts:
            break
    else:
        return None
    counts = {cut: sum(without_affixes(name, *cut) in shorter for name in longer) for cut in cuts}
    best = max(cuts, key=lambda cut: (counts[cut], -len(cut[0]) - len(cut[1])))
    return best if 2 * counts[best] >= min(len(longer), len(shorter)) else None


def _match(names, others):
    """Returns ({name: other}, (pattern of the names, pattern of the others) or None) of one folder."""
    both = set(names) & set(others)
    if both or not names or not others:
        return {name: name for name in names if name in both}, None
    if (cut := affix_between(others, names)) is not None:
        known = {without_affixes(other, *cut): other for other in others}
        return {name: known[name] for name in names if name in known}, ('*', '*'.join(cut))
    if (cut := affix_between(names, others)) is not None:
        short = {name: without_affixes(name, *cut) for name in names}
        return {name: one for name, one in short.items() if one in set(others)}, ('*'.join(cut), '*')
    return _match_both(names, others)


def _match_both(names, others):
    """Returns the same for names that differ in an affix of each kind."""
    cut, other_cut = shared_affixes(names), shared_affixes(others)
    known = {without_affixes(other, *other_cut): other for other in others}
    rests = {name: without_affixes(name, *cut) for name in names}
    # `day1_3` is no mask of `day2_3`, so that the two affixes must differ in a word.
    words = [re.sub(r'[\W\d_]', '', ''.join(one)) for one in (cut, other_cut)]
    same = len(known) == len(others) and sorted(rests.values()) == sorted(known)
    if len(names) < 2 or words[0] == words[1] or not same:
        return {}, None
    return {name: known[rest] for name, rest in rests.items()}, ('*'.join(cut), '*'.join(other_cut))


def _by_folder(names):
    """Returns {folder with its '/': names in it}."""
    folders = {}
    for name in names:
        folder, slash, last = name.rpartition('/')
        folders.setdefault(folder + slash, []).append(last)
    return folders


def _common_prefix(names):
    first, last = min(names), max(names)  # in between all others share what these two share
    differ = (index for index, signs in enumerate(zip(first, last, strict=False)) if signs[0] != signs[1])
    return first[: next(differ, len(first))]


def _common_suffix(names):
    return _common_prefix([name[::-1] for name in names])[::-1]


def _continues(inner, outer):
    """Returns whether two neighbours are of one number or one word, or the second is missing."""
    return not outer or (inner.isdigit() and outer.isdigit()) or (inner.isalpha() and outer.isalpha())


def _is_affix(text):
    """Returns whether a text that follows a name is more than a part of a number."""
    return not text or not text[0].isalnum() or any(map(str.isalpha, text))
