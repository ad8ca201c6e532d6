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

from m2snet_jax import nifti
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.folders import claim_folder
from m2snet_jax.evaluation.series import encode_results, group_series, result_files
from m2snet_jax.evaluation.sets import map_paths
from m2snet_jax.images import encode_png, read_image, reader_of
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
        self._predictor, self._classes = predictor, predictor.classes
        about = {'model_hash': predictor.model_hash, 'size': predictor.size, 'raw': raw, 'threshold': threshold}
        claim_folder(folder, about if predictor.window is None else {**about, 'window': predictor.window})

    def paths(self, name, series):
        """Returns {'map', 'mask', 'overlay': paths} of all files that one image gets; a slice of NIfTI has no maps."""
        overlays = [self.folder / 'overlays' / f'{name}.png'] * self._outline
        if series.reader is nifti:
            return {'map': [], 'mask': [], 'overlay': overlays}
        ending = '.npy' if self._raw == 'npy' else '.png'
        maps = [self.folder / f'{name}.npy'] if ending == '.npy' else map_paths(self.folder, name, self._classes)
        masks = map_paths(self.folder / 'masks', name, self._classes) if self._threshold is not None else []
        return {'map': maps, 'mask': masks, 'overlay': overlays}

    def is_done(self, series):
        """Whether all files of a series are there; since they are written whole, they need not be done again."""
        own = [path for name, _ in series.images for paths in self.paths(name, series).values() for path in paths]
        return all(path.exists() for path in own + result_files(series, self.folder, self._raw))

    def write(self, name, series, pixels, probability):
        """Writes the files of one image, from its pixels uint8 [H, W, 3] and its map, float32 [S, S, C] in [0, 1].

        Returns its maps at its own size, a list of C arrays [H, W], 8-bit levels or, where raw is asked for, float32.
        """
        height, width = pixels.shape[:2]
        paths, channels = self.paths(name, series), np.moveaxis(probability, -1, 0)
        if self._raw is None:
            maps = [released_map(channel, height, width) for channel in channels]
        else:
            size = width, height
            maps = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in channels]
        if self._raw == 'npy':
            data = io.BytesIO()
            np.save(data, maps[0] if len(maps) == 1 else np.stack(maps, -1))
            for path in paths['map']:
                _write(path, data.getvalue())
        else:
            for path, one in zip(paths['map'], maps, strict=False):
                _write(path, _sixteen_bits(one) if self._raw else encode_png(one))
        cut = [np.where(one >= self._cut, 255, 0).astype(np.uint8) for one in maps]
        for path, one in zip(paths['mask'], cut, strict=False):
            _write(path, encode_png(one))
        for path in paths['overlay']:
            _write(path, encode_png(overlay(pixels, None, np.maximum.reduce(cut))))
        return maps

    def write_results(self, series, maps):
        """Writes the files that a series gets as a whole, from {name of an image: what `write` returned}."""
        paths = result_files(series, self.folder, self._raw)
        if paths and maps:
            for path, data in zip(paths, encode_results(series, maps, self._cut, self._predictor), strict=True):
                _write(path, data)

    @property
    def _cut(self):
        """The level, of 8 bits or of a probability, from which a map marks a lesion."""
        threshold = 0.5 if self._threshold is None else self._threshold
        return threshold * (255 if self._raw is None else 1)


def predict_files(predictor, images, writer, batch):
    """Predicts and writes the maps of image files, `batch` at a time; a bar on stderr shows how far it is.

    Args:
        predictor: a Predictor.
        images: [(name, path)], see `find_images`.
        writer: a Writer; images that it has are passed over.
        batch: images held in memory at once; as many again are read meanwhile. Beside them, one volume is held and
            the maps of one series.

    Returns:
        (done, before, faults): how many were predicted, how many were there before, and a line for each file that
        cannot be read.
    """
    left = [series for series in group_series(images) if not writer.is_done(series)]
    todo = [(series, name, path) for series in left for name, path in series.images]
    done, faults = 0, []
    with tqdm(total=len(todo), unit='image', disable=None, file=sys.stderr) as bar:
        predicted = _predicted(predictor, todo, batch, faults, bar)
        for series, members in itertools.groupby(predicted, lambda member: member[0]):
            maps = {}
            for _, name, pixels, probability in members:
                if pixels is not None:
                    written = writer.write(name, series, pixels, probability)
                    done += 1
                    if series.reader is not None:
                        maps[name] = written
            try:
                writer.write_results(series, maps)
            except InputError as error:
                faults.append(str(error))
    return done, len(images) - len(todo), list(dict.fromkeys(faults))


def _predicted(predictor, images, batch, faults, bar):
    """Yields (series, name, pixels, probability) of [(series, name, path)] in order, None for what cannot be read.

    The next images are read while the network is at work on the last ones.
    """
    with concurrent.futures.ThreadPoolExecutor(min(batch, os.cpu_count() or 1)) as threads:
        remaining = iter(images)
        pieces = iter(lambda: list(itertools.islice(remaining, batch)), [])
        ahead = []
        for piece in itertools.chain(pieces, [[]]):
            reading = [(*image, threads.submit(_read, image[-1], predictor.window)) for image in piece]
            for_now, ahead = ahead, reading
            pixels_of = {}
            for _, name, path, future in for_now:
                try:
                    pixels_of[name], turned = future.result()
                except InputError as error:
                    faults.append(str(error))
                    continue
                if turned:
                    bar.write(f'{path}: turned upright, as its EXIF data ask', file=sys.stderr)
            probabilities = dict(zip(pixels_of, predictor.probabilities(list(pixels_of.values())), strict=True))
            for series, name, _, _ in for_now:
                yield series, name, pixels_of.get(name), probabilities.get(name)
            bar.update(len(for_now))


def _read(path, window):
    """Returns (pixels, whether EXIF asked to turn them)."""
    pixels = read_image(path, window)
    if reader_of(path):
        return pixels, False
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
