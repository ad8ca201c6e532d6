"""Windows: which range of a scanner's numbers becomes the 8 bits from black to white."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from m2snet_jax.errors import InputError

# (centre, width) in Hounsfield units, the values usual in radiology (radiopaedia.org, "Windowing (CT)")
WINDOWS = {
    'lung': (-600, 1500),
    'mediastinum': (50, 350),
    'abdomen': (50, 400),
    'liver': (30, 150),
    'bone': (400, 1800),
    'brain': (40, 80),
}
FILE = 'file'  # the window that a file names for itself
Window = tuple[float, float]  # centre, width
CHOICES = f'{", ".join(WINDOWS)}, CENTRE,WIDTH as -600,1500, or {FILE} (the window that each file names for itself)'


def parse_window(text: str | None) -> Window | str | None:
    """Returns the window that `data.window` names: (centre, width), 'file' or, unset, None.

    Raises:
        InputError: neither a name nor two numbers of which the second is above 0.
    """
    if text is None or text == FILE:
        return text
    if text in WINDOWS:
        return WINDOWS[text]
    number = r'\s*([-+]?\d+(?:\.\d+)?)\s*'
    found = re.fullmatch(f'{number},{number}', text)
    if not found or float(found[2]) <= 0:
        raise InputError(f'--config.data.window={text}: must be {CHOICES}')
    return float(found[1]), float(found[2])


def windowed(
    numbers: Shaped[np.ndarray, '...'], window: str | None, own: Window | None, path: str | Path
) -> UInt8[np.ndarray, '...']:
    """Returns levels: 0 at centre − width / 2 and below, 255 at centre + width / 2 and above, linear between.

    This is DICOM's function LINEAR_EXACT (PS3.3 C.11.2.1.3.2), to the nearest level. NaN becomes 0. `window` is
    `data.window`, `own` the window that the file names.

    Raises:
        InputError: no window to use; an image is never stretched to its own range.
    """
    chosen = parse_window(window)
    if chosen is None:
        raise InputError(f'{path}: holds more than 8 bits; say what is shown by --config.data.window: {CHOICES}')
    if isinstance(chosen, str):  # FILE
        chosen = own
    if chosen is None or chosen[1] <= 0:
        raise InputError(f'{path}: names no window for itself; --config.data.window takes {CHOICES}')
    centre, width = chosen
    shares = (np.asarray(numbers, np.float32) - (centre - width / 2)) / width
    return np.rint(255 * np.clip(np.nan_to_num(shares, nan=0.0), 0, 1)).astype(np.uint8)


def windowed_eight_bit(
    numbers: Shaped[np.ndarray, '*shape'],
    bounds: tuple[float, float],
    rescaled: bool,
    window: str | None,
    own: Window | None,
    path: str | Path,
) -> UInt8[np.ndarray, '*shape']:
    """Returns levels of grey of up to 8 bits, which needs no window: `bounds` are the numbers of its whole range.

    `window` applies where it is in numbers, or where the file is `rescaled`, since the named windows are in Hounsfield
    units; 'file' applies where the file names a window for itself. Without any the whole range is shown.
    """
    if (own is not None) if window == FILE else (window is not None and (rescaled or window not in WINDOWS)):
        return windowed(numbers, window, own, path)
    low, high = min(bounds), max(bounds)
    return windowed(numbers, FILE, ((low + high) / 2, max(high - low, 1)), path)
