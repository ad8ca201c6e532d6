"""Training images that the host prepares per second, from the cache and with decoding, and the memory it takes."""

import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from m2snet_jax.data import pipeline
from m2snet_jax.data.datasets.phantoms import phantom
from m2snet_jax.images.formats import encode_png

STAND_IN_SIZE = (529, 622)  # height and width, those of many images of Kvasir-SEG
_DIFFERENT = 8


class StandIn(Sequence):
    """Examples to time where there are no data: enlarged phantoms, kept as PNG and decoded on access.

    Args:
        count: of examples; a few different ones are repeated.
        size: height and width.
    """

    def __init__(self, count: int = 64, size: tuple[int, int] = STAND_IN_SIZE):
        self._count, self._encoded = count, []
        for seed in range(_DIFFERENT):
            image, mask = phantom(np.random.default_rng(seed))
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
            mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
            self._encoded.append((encode_png(image), encode_png(mask)))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        image, mask = (
            cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
            for encoded, flag in zip(
                self._encoded[index % _DIFFERENT], (cv2.IMREAD_COLOR_RGB, cv2.IMREAD_GRAYSCALE), strict=True
            )
        )
        return {'name': str(index), 'image': image, 'mask': mask}


def time_batches(source: Sequence, config: Any, batches: int = 20) -> dict[str, Any]:
    """Times the training batches of a source as they come, with the config's size, batch and threads.

    Args:
        source: training examples, as `Dataset.train` or a StandIn.
        config: `data.cache` is timed both ways.
        batches: timed, after one pass over the source that fills the cache.

    Returns:
        dict of images, height and width (of the source's first image), size, batch, threads, images_per_second from
        the cache (`cached`) and with decoding (`decoded`), and peak_mib, the peak memory of the process.
    """
    height, width = source[0]['mask'].shape
    rates = {}
    for name, cache in (('cached', True), ('decoded', False)):
        settings = config.copy_and_resolve_references()
        with settings.unlocked():
            settings.data.cache = cache
        with contextlib.closing(pipeline.train_batches(source, settings)) as iterator:
            for _ in range(pipeline.steps_per_epoch(source, config) + 4 if cache else 4):  # as many are prefetched
                next(iterator)
            begun = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            rates[name] = batches * config.batch / (time.perf_counter() - begun)
    unit = 2**20 if sys.platform == 'darwin' else 2**10
    return {
        'images': len(source),
        'height': height,
        'width': width,
        'size': config.data.size,
        'batch': config.batch,
        'threads': config.data.threads,
        'images_per_second': rates,
        'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }
