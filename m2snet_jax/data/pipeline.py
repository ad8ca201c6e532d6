"""From examples on disk to batches on the host: endless shuffled training batches, and test examples in order.

The data position is the step: order and augmentation are functions of (seed, index) alone, so a run resumes at any
step without saved iterator state, and several processes share the batches of one. Grain (imported where it is
used, because it takes a second) runs the work in threads; OpenCV must not start threads of its own beside them.
"""

import itertools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float32

from m2snet_jax.data import augment
from m2snet_jax.errors import InputError

if TYPE_CHECKING:
    import grain

_CACHE_SHARE = 0.25  # of the machine's memory
_EPOCHS = 2**32  # endless; grain's own endlessness overflows when batches hold one example


def steps_per_epoch(source: Sequence, config: Any) -> int:
    """Returns ceil(examples / batch): batches run across the borders of epochs, so the last one counts as a whole."""
    return math.ceil(len(source) / config.batch)


def image_size(config: Any, step: int) -> int:
    """Returns the side in pixels of the batch of a step, drawn uniformly from `data.sizes` by (seed, step) alone."""
    sizes = config.data.sizes
    return int(sizes[np.random.default_rng((config.seed, step)).integers(len(sizes))])


def train_batches(
    source: Sequence, config: Any, *, start_step: int = 0, process_index: int = 0, process_count: int = 1
) -> 'grain.DatasetIterator':
    """Returns an endless iterator of this process's share of the training batches; call its `close()` when done.

    Args:
        source: examples with `len()` and `[i]` → dict of image (uint8 [H, W, 3]) and mask (uint8 [H, W]).
        config: `seed`, `batch`, `data.{size, classes, normalisation, cache, threads}` are read.
        start_step: the step whose batch comes first, the same bytes as when the run had not stopped.
        process_index, process_count: this process among all; together they see the same examples with the same
            augmentations, step by step, as one process alone.

    Yields:
        dict of image, float32 [b, S, S, 3], normalised, and mask, float32 [b, S, S, classes] in [0, 1], where
        b = batch / process_count and S = data.size.

    Raises:
        InputError: the batch does not divide among the processes.
    """
    import grain

    if config.batch % process_count:
        raise InputError(f'--config.batch={config.batch}: must be divisible by the {process_count} processes')
    cv2.setNumThreads(0)
    size, classes, normalisation = config.data.size, config.data.classes, config.data.normalisation

    def augmented(example, rng):
        image, mask = augment.train_example(example['image'], example['mask'], size, classes, rng, normalisation)
        return {'image': image, 'mask': mask}

    batches = (
        grain.MapDataset.source(_Cache(source) if config.data.cache else source)
        .seed(config.seed)
        .shuffle()
        .repeat(_EPOCHS)
        .random_map(augmented)[process_index::process_count]
        .batch(config.batch // process_count)[start_step:]
    )
    return iter(batches.to_iter_dataset(_threads(config)))


def eval_examples(
    source: Sequence, config: Any, process_index: int = 0, process_count: int = 1
) -> 'grain.DatasetIterator':
    """Returns an iterator over this process's examples, in their order; call its `close()` when left early.

    Process p of n takes examples p, p + n, p + 2n, …

    Yields:
        dict of name, image (float32 [S, S, 3], by the test path at S = data.size), mask (uint8 [H, W]) and original
        (uint8 [H, W, 3]).
    """
    import grain

    cv2.setNumThreads(0)

    def prepared(example):
        return {
            'name': example['name'],
            'image': augment.test_example(example['image'], config.data.size),
            'mask': example['mask'],
            'original': example['image'],
        }

    dataset = grain.MapDataset.source(source).map(prepared)[process_index::process_count]
    return iter(dataset.to_iter_dataset(_threads(config)))


def eval_batches(
    source: Sequence, config: Any, device_count: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[list[dict[str, Any]], Float32[np.ndarray, 'rows size size 3']]]:
    """Yields this process's examples in batches of one shape, so that one program serves, and as many as any process.

    Args:
        source, config: as in `eval_examples`; `evaluate.batch` too is read, over all processes.
        device_count: a batch is made up to a multiple of it.
        process_index, process_count: as in `eval_examples`.

    Yields:
        (examples, images): a list of at most b examples as `eval_examples` yields them, and float32 [b, S, S, 3],
        filled up where there are fewer.
    """
    rows = -(-config.evaluate.batch // device_count) * device_count // process_count
    examples = eval_examples(source, config, process_index, process_count) if process_index < len(source) else None
    try:
        for _ in range(-(-len(source) // (rows * process_count))):
            batch = [] if examples is None else list(itertools.islice(examples, rows))
            images = np.zeros((rows, config.data.size, config.data.size, 3), np.float32)
            for image, example in zip(images, batch, strict=False):
                image[:] = example['image']
            yield batch, images
    finally:
        if examples is not None:
            examples.close()


def _threads(config):
    """Returns grain's options: few batches ahead, because a batch may have tens of megabytes."""
    import grain

    threads = config.data.threads
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)


class _Cache:
    """Keeps decoded examples in memory, as many as fit; the others are decoded each time."""

    def __init__(self, source):
        self._source = source
        self._cached = {}
        self._bytes_left = _CACHE_SHARE * os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        example = self._cached.get(index)
        if example is None:
            example = self._source[index]
            self._add(index, example)
        return example

    def _add(self, index, example):
        size = example['image'].nbytes + example['mask'].nbytes
        with self._lock:
            fitted = self._bytes_left > 0
            self._bytes_left -= size
            if self._bytes_left > 0:
                self._cached[index] = example
            elif fitted:
                logging.warning(
                    'Only %d of %d decoded images fit into memory; the others are decoded every epoch',
                    len(self._cached), len(self),
                )  # fmt: skip
