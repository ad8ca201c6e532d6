"""The files that a prediction leaves of a clip: maps and masks, as PNG files or clips, and an overlay."""

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images.clips import LOSSLESS, SEEN, ClipWriter, choose_codec
from m2snet_jax.images.drawing import Picture, overlay
from m2snet_jax.images.formats import encode_png
from m2snet_jax.prediction.folders import map_paths
from m2snet_jax.storage import whole, write, write_json

Offers = tuple[tuple[str, str], ...]  # (codec, ending), see images/clips.py
RECORD = '_clip.json'  # after the name of a clip: from which file its maps are, and how they were made
_FRAME = re.compile(r'\d{6,}(_\d+)?')


class ClipFiles(contextlib.ExitStack):
    """Writes the files of one clip, frame by frame; a context manager, at whose end clips get their names.

    Args:
        folder: of all maps.
        name: of the clip.
        rate: frames per second.
        frames: 'png': `NAME/000000.png` … for each frame; 'clip': `NAME_maps.mkv`, without loss.
        outline: also draw `overlays/NAME.mp4`.
        with_masks: also write `masks/NAME/000000.png` …, or `masks/NAME.mkv`.
        seen: codecs and endings of the overlay.

    Raises:
        InputError: the installed OpenCV has no such codec, or a clip lacks frames at the end, e.g. on a full disk.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        rate: float,
        *,
        frames: str = 'png',
        outline: bool = False,
        with_masks: bool = False,
        seen: Offers = SEEN,
    ):
        super().__init__()
        self._folder, self._name, self._rate, self._with_masks = folder, name, rate, with_masks
        self._lossless = choose_codec(LOSSLESS) if frames == 'clip' else None
        self._seen = choose_codec(seen) if outline else None
        self._writers: dict[Path, ClipWriter] = {}

    def write(
        self,
        number: int,
        pixels: Picture,
        levels: UInt8[np.ndarray, 'height width classes'],
        masks: Bool[np.ndarray, 'height width classes'],
    ) -> None:
        """Writes the next frame, the one with this number from 0; the first removes the frames of an earlier call."""
        if number == 0:
            for path in (*_frames(self._folder / self._name), *_frames(self._folder / 'masks' / self._name)):
                path.unlink(missing_ok=True)
        marked = np.where(masks, 255, 0).astype(np.uint8)
        self._write_levels(self._folder, f'{self._name}_maps', number, levels)
        if self._with_masks:
            self._write_levels(self._folder / 'masks', self._name, number, marked)
        if self._seen is not None:
            codec, ending = self._seen
            drawn = overlay(pixels, None, marked.max(-1))
            self._append(self._folder / 'overlays' / f'{self._name}{ending}', codec, drawn)

    def _write_levels(self, folder, clip_name, number, levels):
        """Writes one frame of each class, as a file or at the end of a clip."""
        channels = [np.ascontiguousarray(channel) for channel in np.moveaxis(levels, -1, 0)]
        if self._lossless is None:
            paths = map_paths(folder / self._name, f'{number:06}', len(channels))
            for path, channel in zip(paths, channels, strict=True):
                write(path, encode_png(channel))
            return
        codec, ending = self._lossless
        for path, channel in zip(map_paths(folder, clip_name, len(channels)), channels, strict=True):
            self._append(path.with_suffix(ending), codec, cv2.cvtColor(channel, cv2.COLOR_GRAY2RGB))

    def _append(self, path, codec, pixels):
        """Writes a frame at the end of a clip, which is begun with its first frame."""
        if path not in self._writers:
            temporary = self.enter_context(whole(path))
            writer = self._writers[path] = ClipWriter(temporary, codec, self._rate, *pixels.shape[:2])
            self.push(lambda kind, *_: writer.close(complete=kind is None))
            if pixels.shape[0] % 2 or pixels.shape[1] % 2:
                print(f'note: {path}: padded to an even height and width', file=sys.stderr)
        self._writers[path].write(pixels)


def _frames(folder: Path) -> list[Path]:
    """Returns the maps of frames in a folder, which need not exist."""
    return [path for path in folder.glob('*.png') if _FRAME.fullmatch(path.stem)]


def check_earlier(folder: Path, name: str, about: dict[str, Any]) -> None:
    """Checks that a folder holds no maps of a clip's name that were made otherwise.

    Args:
        folder: of all maps.
        name: of the clip.
        about: JSON values: what `record_clip` is going to write.

    Raises:
        InputError: its record has other values, or there are frames without a record.
    """
    record = folder / f'{name}{RECORD}'
    if not record.exists():
        if _frames(folder / name):
            raise InputError(f'{folder / name}: holds maps that are not of the clip {name}; name another --output')
        return
    try:
        before = json.loads(record.read_text(encoding='utf-8'))
        changed = [key for key in {**before, **about} if before.get(key) != about.get(key)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{record}: cannot be read ({error}); name another --output') from None
    if changed:
        raise InputError(
            f'{record}: the maps of this clip were written with another {", ".join(changed)}; name another --output, '
            'or remove its files there'
        )


def record_clip(folder: Path, name: str, about: dict[str, Any]) -> None:
    """Writes from which file the maps of a clip are, and how they are made."""
    write_json(folder / f'{name}{RECORD}', about)


def check_names(images: Sequence[tuple[str, Path]], clips: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Raises InputError if the map of an image would be named as that of a frame, also of an earlier call's clips."""
    earlier = (path.relative_to(folder).as_posix() for path in folder.glob(f'**/*{RECORD}'))
    names = {name for name, _ in clips} | {name.removesuffix(RECORD) for name in earlier}
    for name, path in images:
        top, _, last = name.rpartition('/')
        if top in names and _FRAME.fullmatch(last):
            raise InputError(f'{path}: its map would be that of a frame of the clip {top}; name another --output')
