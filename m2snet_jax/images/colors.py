"""Colours of masks as text, 'ff0000', and the key `data.colors`."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from m2snet_jax.errors import InputError

BLACK = 0  # of a colour as one number


def parse_colors(colors: Any, classes: int) -> tuple[str, ...]:
    """Returns the colours that `data.colors` names, in lower case and without '#'; () where it is unset.

    Raises:
        InputError: no colours, one of them twice, or not one more than `data.classes`.
    """
    if colors is None:
        return ()
    given = [colors] if isinstance(colors, str) else list(colors)
    found = [str(color).strip().lstrip('#').lower() for color in given]
    shown = f'--config.data.colors={tuple(given)}'
    for color in found:
        if not re.fullmatch('[0-9a-f]{6}', color):
            raise InputError(f"{shown}: {color!r} is no colour; give six hexadecimal digits each, as '000000','ff0000'")
    if len(set(found)) < len(found):
        raise InputError(f'{shown}: names a colour twice')
    if len(found) != classes + 1:
        raise InputError(
            f'{shown}: {len(found)} colours for data.classes={classes}; give the colour of the background and then one '
            f'for each class (--config.data.classes={max(1, len(found) - 1)})'
        )
    return tuple(found)


def packed(colour: UInt8[np.ndarray, '*shape 3']) -> Int64[np.ndarray, '*shape']:
    """Returns each colour as one number, 0xRRGGBB."""
    red, green, blue = np.moveaxis(colour.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def text_of(colour: int) -> str:
    """Returns a packed colour as text."""
    return f'{int(colour):06x}'


def proposal(colours: Iterable[int]) -> str:
    """Returns the flags that name packed colours, background first, ready to paste."""
    names = [f"'{text_of(colour)}'" for colour in colours]
    return f'--config.data.colors="({",".join(names)})" --config.data.classes={max(1, len(names) - 1)}'


def grey(level: float) -> int:
    """Returns the packed colour of a grey level 0…255."""
    return int(level) * 0x010101


def indices_of(
    colour: UInt8[np.ndarray, 'height width 3'],
    alpha: UInt8[np.ndarray, 'height width'] | None,
    colors: Sequence[str],
    path: str | Path,
) -> UInt8[np.ndarray, 'height width']:
    """Returns the index in `colors` of each pixel's colour; a transparent pixel of another colour is background.

    Raises:
        InputError: another colour; it is named with the number of its pixels.
    """
    found: Integer[np.ndarray, 'height width'] = packed(colour)
    known = np.array([int(color, 16) for color in colors])
    order = np.argsort(known)
    places = np.minimum(np.searchsorted(known[order], found), len(known) - 1)
    indices = order[places].astype(np.uint8)
    strange = known[indices] != found
    if alpha is not None:
        indices[strange & (alpha == 0)] = 0
        strange &= alpha != 0
    if strange.any():
        others, counts = np.unique(found[strange], return_counts=True)
        worst = int(np.argmax(counts))
        more = f' and {len(others) - 1} other colours' if len(others) > 1 else ''
        raise InputError(
            f'{path}: colour {text_of(others[worst])} in {counts[worst]} pixels{more} found, none of data.colors '
            f'({", ".join(colors)}); name it, or correct the mask'
        )
    return indices
