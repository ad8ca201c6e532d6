"""Clips: their frames in order, with time stamps, and new clips written frame by frame, by OpenCV."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.images.drawing import Picture

ENDINGS = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv')
# (codec, ending) that writers try in this order: for people to look at, and without loss.
SEEN = (('mp4v', '.mp4'), ('VP80', '.webm'), ('MJPG', '.avi'))
LOSSLESS = (('FFV1', '.mkv'), ('FFV1', '.avi'))


class Clip:
    """A clip that is read once, in order, one frame in memory.

    Attributes:
        rate: frames per second; 25 where the file names none.
        announced: number of frames by the header; 0 or less where it names none.
        read: frames that were read up to now.

    Raises:
        InputError: not a clip, or of a codec that OpenCV does not read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f'{path}: no such file')
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise InputError(f'{path}: cannot be read as a clip (no clip, damaged, or of an unknown codec); replace it')
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else 25.0
        self.announced, self.read = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0

    def frames(self) -> Iterator[tuple[float, Picture]]:
        """Yields (seconds since the start, RGB pixels) of each frame.

        Raises:
            InputError: no frames, or fewer than the header announces; those read were yielded before.
        """
        seconds = 0.0
        try:
            while True:
                found, pixels = self._capture.read()
                if not found:
                    break
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                self.read += 1
                yield seconds, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()
        if not self.read:
            raise InputError(f'{self.path}: holds no frame that can be read; replace or remove it')
        # The count is computed from duration and rate in some containers, so a variable rate is no damage.
        if self.read < self.announced and seconds + 1.5 / self.rate < self.announced / self.rate:
            raise InputError(f'{self.path}: ends after {self.read} of {self.announced} frames; those before are kept')


@functools.cache
def writable(codec: str, ending: str) -> bool:
    """Returns whether the installed OpenCV writes a codec, by writing one frame and reading it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / f'probe{ending}')
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25.0, (64, 64))
        if not writer.isOpened():
            return False
        writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
        return cv2.VideoCapture(path, cv2.CAP_FFMPEG).read()[0]


def choose_codec(offers: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Returns the first (codec, ending) that can be written; raises InputError if none can."""
    for codec, ending in offers:
        if writable(codec, ending):
            return codec, ending
    names = ', '.join(codec for codec, _ in offers)
    raise InputError(f'the installed OpenCV writes none of the codecs {names}; use --frames=png without --overlay')


class ClipWriter:
    """Writes a clip at one constant rate; an odd height or width gets one more row or column, a copy of the last."""

    def __init__(self, path: Path, codec: str, rate: float, height: int, width: int):
        self._size, self._path, self._written = (height, width), path, 0
        even = (width + width % 2, height + height % 2)
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, even)
        if not self._writer.isOpened():
            raise InputError(f'{path}: cannot be written with the codec {codec}; use --frames=png without --overlay')

    def write(self, pixels: Picture) -> None:
        """Writes one RGB frame."""
        height, width = self._size
        padded = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        self._writer.write(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))
        self._written += 1

    def close(self, complete: bool = True) -> None:
        """Ends the file.

        Args:
            complete: whether the file must hold all frames; they are read to count them, since OpenCV reports no error
                on a full disk.

        Raises:
            InputError: frames are missing.
        """
        self._writer.release()
        if not complete:
            return
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        held = sum(1 for _ in iter(capture.grab, False))
        capture.release()
        if held < self._written:
            raise InputError(
                f'{self._path}: cannot be written, since it holds {held} of {self._written} frames; free space on the '
                'disk and run again'
            )
