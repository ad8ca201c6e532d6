"""What the files of a set hold, as far as the set's Reading depends on it.

8-bit images are not decoded for it, masks and maps until nothing that follows can change the decision.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.images import raster
from m2snet_jax.images.colors import packed
from m2snet_jax.images.depth import DEEPEST
from m2snet_jax.images.formats import decode, reader_of
from m2snet_jax.images.masks import colours_of, grey_values, is_coloured

MANY = 64  # more distinct levels or colours of one file are not listed


@dataclasses.dataclass
class Look:
    """What one mask or map holds.

    Attributes:
        path: of the file.
        values: its distinct grey values; of a palette of colours the indices; None where they are many.
        colours: pixels of each packed colour, for colour and palettes of colours alone; None where they are many.
        coloured, is_palette: whether `colours` are meant, and those of a palette.
        plain: whether colour is the same all over.
        has_alpha, alpha: whether it has an alpha channel, and the distinct values there, None where they are many.
    """

    path: Path
    values: frozenset[float] | None = frozenset()
    colours: collections.Counter | None = None
    coloured: bool = False
    is_palette: bool = False
    plain: bool = False
    has_alpha: bool = False
    alpha: frozenset[float] | None = None


def look_at_all(paths: Iterable[Path], classes: int) -> list[Look]:
    """Returns the looks of all files that can be read; those that can change nothing any more are left out."""
    soft = False

    def look(path):
        nonlocal soft
        if soft and not raster.may_have_colour(path):
            return None
        try:
            found = look_at(path)
        except InputError:  # reported where the file is needed
            return None
        soft = soft or (classes == 1 and found.values is None and not found.coloured)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [found for found in threads.map(look, paths) if found is not None]


def look_at(path: Path) -> Look:
    """Returns what a mask or map file holds."""
    samples = decode(path)
    look = Look(path)
    if samples.values.ndim == 3 and samples.values.shape[2] != 3:
        look.values = None  # several maps, see masks.map_levels
        return look
    if samples.alpha is not None:
        look.has_alpha, look.alpha = True, _distinct(samples.alpha)
        colour = samples.values if samples.palette is None else samples.palette[samples.values]
        look.plain = bool((colour == colour[:1, :1]).all())
    look.coloured, look.is_palette = is_coloured(samples), samples.palette is not None
    if look.coloured:
        colours, counts = np.unique(packed(colours_of(samples, path)), return_counts=True)
        look.colours = None if len(colours) > MANY else _counter(colours, counts)
    look.values = _distinct(grey_values(samples, path)) if look.is_palette or not look.coloured else None
    return look


def _distinct(values):
    """Returns the distinct numbers, None where they are many."""
    found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    return None if len(found) > MANY else frozenset(float(value) for value in found)


def highest_values(
    paths: Iterable[Path], decided: Collection[str]
) -> tuple[dict[str, float], collections.Counter[str]]:
    """Returns {kind: highest value} and {kind: count} of the files of more than 8 bits, for kinds not in `decided`."""
    highest, counts = {}, collections.Counter()

    for path in paths:
        kind = raster.deep_kind(path) if reader_of(path) is None else ''
        if not kind or kind in decided:
            continue
        counts[kind] += 1
        if highest.get(kind, 0) <= DEEPEST // 2:  # else white is 65535 whatever follows
            with contextlib.suppress(InputError):  # reported where the file is needed
                value = float(np.nan_to_num(decode(path).values.max(), nan=0.0, posinf=0.0))
                highest[kind] = max(value, highest.get(kind, 0))
    return highest, counts


def _counter(colours, counts):
    return collections.Counter({int(colour): int(count) for colour, count in zip(colours, counts, strict=True)})
