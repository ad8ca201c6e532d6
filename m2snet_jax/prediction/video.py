"""Clips in, maps and overlays out: streams the frames through a predictor in constant memory."""

import collections
import functools
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from m2snet_jax.data.patterns import describe_link, find_files
from m2snet_jax.errors import InputError
from m2snet_jax.images.clips import ENDINGS, SEEN, Clip
from m2snet_jax.images.drawing import Picture
from m2snet_jax.prediction.clip_files import ClipFiles, Offers, check_earlier, check_names, record_clip
from m2snet_jax.prediction.folders import READABLE
from m2snet_jax.prediction.predictor import is_lesion, released_map

Probability = Float32[np.ndarray, 'size size classes']
# Called for each frame with its number from 0, its seconds, its masks and its levels, both [H, W, classes].
OnFrame = Callable[[int, float, Bool[np.ndarray, 'height width classes'], np.ndarray], None]


def find_clips(given: Sequence[str | Path], output: str | Path) -> tuple[list[tuple[str, Path]], list[str | Path]]:
    """Returns (name, path) of the clips among files, patterns and below folders, and what of `given` may hold images.

    Links that lead nowhere are among the clips, so that they are reported where they are read.

    Raises:
        InputError: a clip that is not there, or two of one name.
    """
    found, rest, inside = {}, [], os.path.realpath(output)

    def is_inside(path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(inside)

    for top in given:
        path, clips = Path(top), {}
        if path.is_dir() or ('*' in str(top) and path.suffix.lower() in ENDINGS):
            files = find_files(path, ENDINGS, flag='images', leave_out=is_inside)
            if files.duplicates:
                raise InputError(files.duplicates[0])
            clips = {**files.dangling, **files.paths}
            for clip in files.dangling.keys() & files.paths.keys():
                print(f'warning: {describe_link(files.dangling[clip])}', file=sys.stderr)
        elif path.suffix.lower() in ENDINGS:
            if not path.is_file():
                raise InputError(f'--images={top}: no such file')
            clips = {path.stem: path}
        for name, clip in clips.items():
            if name in found:
                raise InputError(f'{clip}: {found[name]} has the same name up to the ending; predict them apart')
            found[name] = clip
        if not clips or (path.is_dir() and find_files(path, READABLE).paths):
            rest.append(top)
    return list(found.items()), rest


def smoothed(probabilities: Iterable[Probability], count: int) -> Iterator[Probability]:
    """Yields the mean of the last `count` probabilities at each frame; of fewer at the start."""
    last = collections.deque(maxlen=count)
    for probability in probabilities:
        last.append(probability)
        yield probability if count == 1 else np.asarray(np.mean(last, axis=0, dtype=np.float32))


def check_clips(
    clips: Sequence[tuple[str, Path]], images: Sequence[tuple[str, Path]], output: Path, frames: str, smooth: int
) -> None:
    """Checks, before a model is loaded, that no map of another clip, setting or image would be overwritten.

    Args:
        clips, images: (name, path), to be predicted by one call.
        output: folder of the maps.
        frames, smooth: as `predict_clip`.

    Raises:
        InputError: `output` holds such maps, or a clip cannot be read.
    """
    check_names(images, clips, output)
    for name, path in clips:
        if path.exists():  # else a link that leads nowhere, which is reported where it is read
            check_earlier(output, name, _about(path, frames, smooth))


def _about(path: Path, frames: str, smooth: int) -> dict[str, Any]:
    """Returns what the record of a clip holds: the SHA-256 of its file, and the settings of its maps."""
    return {'clip': _digest(path), 'frames': frames, 'smooth': smooth}


def _digest(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror or error})') from None


def predict_clips(
    predictor: Any,
    clips: Sequence[tuple[str, Path]],
    output: Path,
    *,
    on_frame: Callable[..., None] | None = None,
    **settings: Any,
) -> list[str]:
    """Predicts clips one after another (see `predict_clip`); returns a line for each that is not complete.

    The number of frames and the speed are printed. `on_frame` is called with the name of the clip before the arguments
    of an `OnFrame`.
    """
    faults = []
    for name, path in clips:
        start = time.perf_counter()
        try:
            watch = None if on_frame is None else functools.partial(on_frame, name)
            count = predict_clip(predictor, name, path, output, on_frame=watch, **settings)
            rate = count / (time.perf_counter() - start)
            print(f'{path}: {count} frames predicted, {rate:.1f} frames/s', file=sys.stderr)
        except InputError as error:
            faults.append(str(error))
    return faults


def predict_clip(
    predictor: Any,
    name: str,
    path: Path,
    output: Path,
    *,
    frames: str = 'png',
    outline: bool = False,
    with_masks: bool = False,
    threshold: float = 0.5,
    smooth: int = 1,
    batch: int = 8,
    on_frame: OnFrame | None = None,
    seen: Offers = SEEN,
) -> int:
    """Predicts the frames of a clip and returns their number. At most `batch` and `smooth` frames are in memory.

    Args:
        frames, outline, with_masks, seen: which files are written, see `ClipFiles`.
        threshold: probability from which a pixel is in the outline and in masks.
        smooth: number of frames over which probabilities are averaged, see `smoothed`.

    Raises:
        InputError: not a clip, no frames, no codec, maps in `output` that were made otherwise, or a broken tail; the
            frames before it are written.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(describe_link(path))
    clip, about, fault = Clip(path), _about(path, frames, smooth), None
    check_earlier(output, name, about)
    total = max(clip.announced, 0) or None
    with (
        ClipFiles(output, name, clip.rate, frames=frames, outline=outline, with_masks=with_masks, seen=seen) as files,
        tqdm(total=total, unit='frame', disable=None, file=sys.stderr, desc=name) as bar,
    ):
        record_clip(output, name, about)
        try:
            for number, (seconds, pixels, probability) in enumerate(_predicted(predictor, clip, smooth, batch)):
                levels = released_map(probability, *pixels.shape[:2])
                masks = is_lesion(levels, threshold)
                files.write(number, pixels, levels, masks)
                if on_frame is not None:
                    on_frame(number, seconds, masks, levels)
                bar.update()
        except InputError as error:  # raised again after the files of the frames before it have got their names
            fault = error
    if fault is not None:
        raise fault
    return clip.read


def _predicted(predictor, clip: Clip, smooth: int, batch: int) -> Iterator[tuple[float, Picture, Probability]]:
    """Yields (seconds, pixels, probability) of each frame; then raises the fault of the clip, if it has one."""
    pending = collections.deque()

    def probabilities():
        for piece in _pieces(clip, batch):
            pending.extend(piece)
            yield from predictor.probabilities([pixels for _, pixels in piece])

    for probability in smoothed(probabilities(), smooth):
        yield *pending.popleft(), probability


def _pieces(clip: Clip, batch: int) -> Iterator[list[tuple[float, Picture]]]:
    """Yields the frames of a clip, up to `batch` at a time, all of them before its fault is raised."""
    stream, fault = clip.frames(), None
    while fault is None:
        piece = []
        try:
            for one in itertools.islice(stream, batch):
                piece.append(one)
        except InputError as error:
            fault = error
        if piece:
            yield piece
        elif fault is None:
            return
    raise fault
