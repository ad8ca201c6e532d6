"""Clips in, maps and overlays out: streams the frames through a predictor in constant memory."""

import collections
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from m2snet_jax.data.patterns import find_files
from m2snet_jax.errors import InputError
from m2snet_jax.images.clips import ENDINGS, LOSSLESS, SEEN, Clip, ClipWriter, choose_codec
from m2snet_jax.images.drawing import overlay
from m2snet_jax.images.formats import encode_png
from m2snet_jax.prediction.folders import READABLE, map_paths
from m2snet_jax.prediction.predictor import is_lesion, released_map
from m2snet_jax.storage import whole, write

# Called for each frame with its number from 0, its seconds, its masks and its levels, both [H, W, classes].
OnFrame = Callable[[int, float, Bool[np.ndarray, 'height width classes'], np.ndarray], None]


def find_clips(given: Sequence[str | Path], output: str | Path) -> tuple[list[tuple[str, Path]], list[str | Path]]:
    """Returns (name, path) of the clips among files and below folders, and what of `given` may hold images.

    Raises:
        InputError: two clips of one name.
    """
    found, rest, inside = {}, [], os.path.realpath(output)
    for top in given:
        path, clips = Path(top), {}
        if path.suffix.lower() in ENDINGS and not path.is_dir():
            clips = {path.stem: path}
        elif path.is_dir():
            files = find_files(path, ENDINGS, leave_out=lambda one: Path(os.path.realpath(one)).is_relative_to(inside))
            if files.duplicates:
                raise InputError(files.duplicates[0])
            clips = files.paths
        for name, clip in clips.items():
            if name in found:
                raise InputError(f'{clip}: {found[name]} has the same name up to the ending; predict them apart')
            found[name] = clip
        if not clips or (path.is_dir() and find_files(path, READABLE).paths):
            rest.append(top)
    return list(found.items()), rest


def smoothed(
    probabilities: Iterable[Float32[np.ndarray, 'size size classes']], count: int
) -> Iterator[Float32[np.ndarray, 'size size classes']]:
    """Yields the mean of the last `count` probabilities at each frame; of fewer at the start."""
    last = collections.deque(maxlen=count)
    for probability in probabilities:
        last.append(probability)
        yield probability if count == 1 else np.asarray(np.mean(last, axis=0, dtype=np.float32))


def predict_clips(predictor: Any, clips: Sequence[tuple[str, Path]], output: Path, **settings: Any) -> list[str]:
    """Predicts clips one after another (see `predict_clip`); returns a line for each that is not complete."""
    faults = []
    for name, path in clips:
        try:
            predict_clip(predictor, name, path, output, **settings)
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
    threshold: float = 0.5,
    smooth: int = 1,
    batch: int = 8,
    on_frame: OnFrame | None = None,
) -> int:
    """Predicts the frames of a clip and returns their number. At most `batch` frames are in memory.

    Args:
        frames: 'png': `NAME/000000.png` … for each frame; 'clip': `NAME_maps.mkv`, without loss.
        outline: also write `overlays/NAME.mp4`.
        threshold: probability from which a pixel is in the outline and in the masks given to `on_frame`.
        smooth: number of frames over which probabilities are averaged, see `smoothed`.

    Raises:
        InputError: not a clip, no frames, no codec, or a broken tail; the frames before it are written.
    """
    clip, fault = Clip(path), None
    asked = {'overlay': SEEN if outline else None, 'maps': LOSSLESS if frames == 'clip' else None}
    kinds = {kind: choose_codec(offers) for kind, offers in asked.items() if offers}
    with (
        contextlib.ExitStack() as stack,
        tqdm(total=max(clip.announced, 0) or None, unit='frame', disable=None, file=sys.stderr, desc=name) as bar,
    ):
        writers = {}

        def show(key, codec, target, pixels):
            if key not in writers:
                temporary = stack.enter_context(whole(target))
                writers[key] = ClipWriter(temporary, codec, clip.rate, *pixels.shape[:2])
                stack.callback(writers[key].close)
                if pixels.shape[0] % 2 or pixels.shape[1] % 2:
                    print(f'note: {target}: padded to an even height and width', file=sys.stderr)
            writers[key].write(pixels)

        pending = collections.deque()

        def probabilities():
            nonlocal fault
            stream = clip.frames()
            while True:
                piece = []
                try:
                    for one in itertools.islice(stream, batch):
                        piece.append(one)
                except InputError as error:  # raised again after the frames before it are written
                    fault = error
                if not piece:
                    return
                pending.extend(piece)
                yield from predictor.probabilities([pixels for _, pixels in piece])

        for number, probability in enumerate(smoothed(probabilities(), smooth)):
            seconds, pixels = pending.popleft()
            levels = released_map(probability, *pixels.shape[:2])
            masks = is_lesion(levels, threshold)
            if frames == 'png':
                for target, channel in zip(
                    map_paths(output / name, f'{number:06}', levels.shape[-1]), np.moveaxis(levels, -1, 0), strict=True
                ):
                    write(target, encode_png(channel))
            else:
                codec, ending = kinds['maps']
                names = map_paths(output, f'{name}_maps', levels.shape[-1])
                for index, target in enumerate(names):
                    grey = cv2.cvtColor(np.ascontiguousarray(levels[..., index]), cv2.COLOR_GRAY2RGB)
                    show(index, codec, target.with_suffix(ending), grey)
            if outline:
                codec, ending = kinds['overlay']
                drawn = overlay(pixels, None, np.where(masks.any(-1), 255, 0).astype(np.uint8))
                show('overlay', codec, output / 'overlays' / f'{name}{ending}', drawn)
            if on_frame is not None:
                on_frame(number, seconds, masks, levels)
            bar.update()
    if fault is not None:
        raise fault
    return clip.read
