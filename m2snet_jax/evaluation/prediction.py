"""Maps of any number of image files: read a few, predict, write, forget."""

import concurrent.futures
import io
import itertools
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.folders import claim_folder
from m2snet_jax.evaluation.sets import map_paths
from m2snet_jax.images import encode_png, read_image
from m2snet_jax.plot import overlay
from m2snet_jax.predictor import released_map

ORIENTATION = 0x0112  # of EXIF; 1 is upright


class Writer:
    """Writes what is asked for of each image into one folder, every file whole or not at all.

    Args:
        folder: marked as this model's; refused when it holds maps of another.
        predictor: whose maps are written.
        raw: None for the released 8 bits, 'npy' for float32 [H, W] or [H, W, C], 'png16' for 16-bit PNG.
        outline: also draw `overlays/`.
        threshold: also write `masks/`, cut at this probability; None: none, and outlines are cut at one half.
    """

    def __init__(self, folder, predictor, raw=None, outline=False, threshold=None):
        self.folder, self._raw, self._outline, self._threshold = Path(folder), raw, outline, threshold
        self._classes = predictor.classes
        claim_folder(
            folder,
            {'model_hash': predictor.model_hash, 'size': predictor.size, 'raw': raw, 'threshold': threshold},
        )

    def paths(self, name):
        """Returns {'map', 'mask', 'overlay': paths} of all files that one image gets."""
        ending = '.npy' if self._raw == 'npy' else '.png'
        maps = [self.folder / f'{name}.npy'] if ending == '.npy' else map_paths(self.folder, name, self._classes)
        masks = map_paths(self.folder / 'masks', name, self._classes) if self._threshold is not None else []
        return {'map': maps, 'mask': masks, 'overlay': [self.folder / 'overlays' / f'{name}.png'] * self._outline}

    def is_done(self, name):
        """Whether all files of an image are there; since they are written whole, they need not be done again."""
        return all(path.exists() for paths in self.paths(name).values() for path in paths)

    def write(self, name, pixels, probability):
        """Writes the files of one image, from its pixels uint8 [H, W, 3] and its map, float32 [S, S, C] in [0, 1]."""
        height, width = pixels.shape[:2]
        paths, channels = self.paths(name), np.moveaxis(probability, -1, 0)
        if self._raw is None:
            maps = [released_map(channel, height, width) for channel in channels]
            full = 255
        else:
            size = width, height
            maps = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in channels]
            full = 1
        if self._raw == 'npy':
            data = io.BytesIO()
            np.save(data, maps[0] if len(maps) == 1 else np.stack(maps, -1))
            _write(paths['map'][0], data.getvalue())
        else:
            for path, one in zip(paths['map'], maps, strict=True):
                _write(path, _sixteen_bits(one) if self._raw else encode_png(one))
        threshold = 0.5 if self._threshold is None else self._threshold
        cut = [np.where(one >= threshold * full, 255, 0).astype(np.uint8) for one in maps]
        for path, one in zip(paths['mask'], cut, strict=False):
            _write(path, encode_png(one))
        for path in paths['overlay']:
            _write(path, encode_png(overlay(pixels, None, np.maximum.reduce(cut))))


def predict_files(predictor, images, writer, batch):
    """Predicts and writes the maps of image files, `batch` at a time; a bar on stderr shows how far it is.

    Args:
        predictor: a Predictor.
        images: [(name, path)].
        writer: a Writer; images that it has are passed over.
        batch: images held in memory at once; as many again are read meanwhile.

    Returns:
        (done, before, faults): how many were predicted, how many were there before, and a line for each file that
        cannot be read.
    """
    left = [(name, path) for name, path in images if not writer.is_done(name)]
    done, faults = 0, []
    with (
        concurrent.futures.ThreadPoolExecutor(min(batch, os.cpu_count() or 1)) as threads,
        tqdm(total=len(left), unit='image', disable=None, file=sys.stderr) as bar,
    ):
        remaining = iter(left)
        pieces = iter(lambda: list(itertools.islice(remaining, batch)), [])
        ahead = None
        for piece in itertools.chain(pieces, [[]]):
            reading = [(name, path, threads.submit(_read, path)) for name, path in piece]
            for_now, ahead = ahead or [], reading
            readable = []
            for name, path, future in for_now:
                try:
                    pixels, turned = future.result()
                except InputError as error:
                    faults.append(str(error))
                    continue
                readable.append((name, pixels))
                if turned:
                    bar.write(f'{path}: turned upright, as its EXIF data ask', file=sys.stderr)
            probabilities = predictor.probabilities([pixels for _, pixels in readable])
            for (name, pixels), probability in zip(readable, probabilities, strict=True):
                writer.write(name, pixels, np.asarray(probability))
            done += len(readable)
            bar.update(len(for_now))
    return done, len(images) - len(left), faults


def _read(path):
    """Returns (pixels, whether EXIF asked to turn them)."""
    pixels = read_image(path)
    with Image.open(path) as header:
        return pixels, header.getexif().get(ORIENTATION, 1) not in (0, 1)


def _sixteen_bits(probability):
    """Returns the bytes of a 16-bit PNG: ⌊65535·p + ½⌋."""
    levels = np.clip(np.floor(probability * 65535.0 + 0.5), 0, 65535).astype(np.uint16)
    return cv2.imencode('.png', levels)[1].tobytes()


def _write(path, data):
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error.strerror})') from None
    finally:
        temporary.unlink(missing_ok=True)
