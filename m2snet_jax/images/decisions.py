"""The decisions on a set of images, masks or maps that only all of its files together allow: its Reading."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from m2snet_jax.images.colors import BLACK, grey, proposal, text_of
from m2snet_jax.images.depth import DEEPEST, white_of
from m2snet_jax.images.formats import reader_of
from m2snet_jax.images.reading import Reading
from m2snet_jax.images.survey import Look, highest_values, look_at_all

NAMED = 16  # more levels or colours of a set are not proposed


def image_reading(paths: Sequence[Path], window: str | None = None, known: Reading | None = None) -> Reading:
    """Returns the Reading of images: which value is white in those of more than 8 bits.

    Args:
        paths: of all images of the set, files or addresses.
        window: as `data.window`; where it is set nothing is to be decided.
        known: of the run of a model, whose decisions are kept.
    """
    known = known or Reading()
    if window is not None:
        return known
    decided = {kind for kind in ('integers', 'floats') if getattr(known, kind) is not None}
    highest, counts = highest_values(paths, decided)
    values = {kind: white_of(value, kind == 'floats') for kind, value in highest.items()}
    notes = [_note(counts[kind], 'images', kind, white) for kind, white in values.items() if white != DEEPEST]
    return dataclasses.replace(known, **values, notes=(*known.notes, *notes))


def mask_reading(paths: Sequence[Path], classes: int, colors: tuple[str, ...] = ()) -> Reading:
    """Returns the Reading of masks: two levels, one colour, alpha, or each by its own content.

    Args:
        paths: of all masks of the set, files or addresses.
        classes: foreground classes.
        colors: as `data.colors`, parsed; they decide all.
    """
    if colors:
        return Reading(colors=colors)
    looks = look_at_all(paths, classes)
    if _in_alpha(looks):
        looks = [Look(look.path, look.alpha) if look.has_alpha else look for look in looks]
        notes = ('masks lie in the alpha channel, since colour is the same all over',)
        reading = _of_levels(looks, classes)
        return dataclasses.replace(reading, alpha=True, notes=(*notes, *reading.notes))
    coloured = [look for look in looks if look.coloured]
    if coloured:
        total = _all_colours(looks)
        others = None if total is None else [colour for colour in total if colour != BLACK]
        if classes == 1 and others is not None and len(others) <= 1:
            names = ''.join(f' ({text_of(colour)})' for colour in others)
            return Reading(one_colour=True, notes=(f'masks hold black and one colour{names}: read as 0 and 255',))
        if not all(look.is_palette for look in coloured):
            return Reading(problem=_colours_found([one for one in coloured if not one.is_palette], total))
    return _of_levels(looks, classes)


def map_reading(paths: Sequence[Path], is_own: bool = False) -> Reading:
    """Returns the Reading of maps: which value is white, whether they hold one level or one colour.

    Args:
        paths: of all maps of one class each, files or addresses.
        is_own: whether this package wrote them, as levels of 8 or 16 bits: then nothing is decided for these, only for
            DICOM and NIfTI files beside them.
    """
    looks = look_at_all([path for path in paths if not is_own or reader_of(path) is not None], 1)
    of_looks = _of_looks(looks, 'maps in DICOM and NIfTI' if is_own else 'maps')
    if is_own:
        return dataclasses.replace(of_looks or Reading(), integers=DEEPEST, floats=1, clinical_only=True)
    if of_looks is not None:
        return of_looks
    coloured = sum(look.coloured for look in looks)
    luma = f'{coloured} maps are in colour: read as their luma, which is wrong for colours that encode a value'
    highest, counts = highest_values(paths, set())
    values = {kind: min(255.0, white_of(value, kind == 'floats')) for kind, value in highest.items()}
    if highest.get('integers', 0) > 255:  # a share of 65535, however faint all maps are
        values['integers'] = DEEPEST
    notes = [_note(counts[kind], 'maps', kind, white) for kind, white in values.items() if white != DEEPEST]
    notes = (*([luma] if coloured else []), *notes)
    return Reading(values.get('integers'), values.get('floats'), notes=notes)


def _of_looks(looks, things):
    """Returns the Reading of maps that lie in alpha, hold one colour or one level; None of others."""
    if _in_alpha(looks):
        return Reading(alpha=True, notes=(f'{things} lie in the alpha channel, since colour is the same all over',))
    total = _all_colours(looks) if any(look.coloured for look in looks) else None
    if total is not None and len([colour for colour in total if colour != BLACK]) <= 1:
        notes = (f'{things} hold black and one colour: read as 0 and 255',)
        return Reading(one_colour=True, integers=DEEPEST, notes=notes)
    level = _level(looks)
    return None if level is None else Reading(level=level, notes=(f'{things} hold 0 and {level:g}: read as 0 and 255',))


def _of_levels(looks, classes):
    """Returns the Reading of masks that are grey or hold indices."""
    level = _level(looks)
    union = frozenset().union(*(look.values or () for look in looks))
    many = any(look.values is None for look in looks)
    found = () if many or len(union) > NAMED else tuple(sorted(union))
    if classes > 1:
        return Reading(found=found)
    if level not in (None, 1):
        notes = () if level == DEEPEST else (f'masks hold 0 and {level:g}: read as 0 and 255',)
        return Reading(level=level, found=found, notes=notes)
    two = not many and all(len(look.values) < 2 or (len(look.values) == 2 and 0 in look.values) for look in looks)
    both = [look for look in looks if look.values is not None and len(look.values) == 2]
    if len(found) == 2 and 0 not in found and both and found[1] <= 255:
        low, high = found
        return Reading(
            problem=f'{both[0].path}: the masks hold the two levels {low:g} and {high:g}, and neither is 0; name that '
            f'of the background first: {proposal(grey(level) for level in found)}'
        )
    mixed = sorted(value for value in union if 128 <= value < 255)
    levels = ', '.join(f'{value:g}' for value in mixed)
    notes = (f'each mask holds 0 and one other level (255, {levels}), which is read as 255',) if two and mixed else ()
    return Reading(two_levels=two, found=found, notes=notes)


def _in_alpha(looks):
    """Returns whether alpha varies and the colour of every file that has alpha does not."""
    with_alpha = [look for look in looks if look.has_alpha]
    varies = any(look.alpha is None or len(look.alpha) > 1 for look in with_alpha)
    return varies and all(look.plain for look in with_alpha)


def _level(looks):
    """Returns the one number beside 0 that all of them hold, None if there is none or it is 255."""
    if any(look.values is None for look in looks):
        return None
    others = frozenset().union(*(look.values for look in looks)) - {0}
    level = next(iter(others)) if len(others) == 1 else None
    return None if level == 255 else level


def _all_colours(looks):
    """Returns the pixels of each packed colour of all files, those of grey files without their number; None: many."""
    total = collections.Counter()
    for look in looks:
        if look.coloured:
            if look.colours is None:
                return None
            total.update(look.colours)
        elif look.values is None:
            return None
        else:
            highest = max(look.values, default=0)
            scale = 255 if highest <= 1 else 255 / 65535 if highest > 255 else 1
            total.update({grey(round(value * scale)): 1 for value in look.values})
    return total


def _colours_found(looks, total):
    """Returns the problem of masks in several colours, with a proposal where they are few."""
    if total is None or len(total) > NAMED:
        how_many = f'more than {NAMED}'
        return (
            f'{looks[0].path}: the masks are in colour, {how_many} colours found, as JPEG and smooth edges leave them; '
            'store them without loss in one colour a class, and name these by --config.data.colors'
        )
    background = BLACK if BLACK in total else total.most_common(1)[0][0]
    order = [background, *(colour for colour, _ in total.most_common() if colour != background)]
    pixels = sum(total.values())
    shares = ', '.join(f'{text_of(colour)} ({total[colour] / pixels:.1%})' for colour in order)
    return (
        f'{looks[0].path}: the masks are in colour, {shares} found; name background and classes in order: '
        f'{proposal(order)}'
    )


def _note(count, things, kind, white):
    """Returns the line on a value that is white."""
    if white == 255:
        return f'{count} {things} of more than 8 bits ({kind}) hold nothing above 255: read as levels of 8 bits'
    bits = '' if kind == 'floats' and white == 1 else f', {int(white).bit_length()} bits'
    return f'{count} {things} of more than 8 bits ({kind}) hold nothing above {white:g}{bits}: {white:g} is white'
