"""Dice while training goes on: quick, on the devices, at the network's own size; the full scores come at the end."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax import mesh as devices
from m2snet_jax.data.pipeline import eval_batches
from m2snet_jax.metrics.hard import THRESHOLD


def watched_split(config, dataset):
    """Returns the name of the split that is looked at after every epoch and its sources; none without `validation`."""
    if config.select == 'test':
        return 'test', list(dataset.tests.values())
    return 'validation', [] if dataset.validation is None else [dataset.validation]


def make_validate(graph, sources, config, mesh):
    """Returns `validate(params, batch_stats) → Dice`, the mean over images (and classes) with a lesion.

    It is `hard/Dice` but for the size: map and mask are compared at `data.size` and not at the image's own. NaN without
    any lesion.

    Args:
        graph: of the model.
        sources: examples to look at, as `Dataset` has them.
        config: `data` and `evaluate.batch` are read.
        mesh: devices to predict on.
    """

    @jax.jit
    def dice_sums(params, batch_stats, images, masks):
        model = nnx.merge(graph, params, batch_stats, copy=True)
        model.eval()
        found = jax.nn.sigmoid(model(images)) >= THRESHOLD / 255
        both, either = (found & masks).sum((1, 2)), found.sum((1, 2)) + masks.sum((1, 2))
        lesion = masks.any((1, 2))
        return jnp.sum(jnp.where(lesion, 2 * both / jnp.maximum(either, 1), 0)), lesion.sum()

    def validate(params, batch_stats):
        sums = []
        for source in sources:
            for examples, images in eval_batches(source, config, mesh.size, jax.process_index(), jax.process_count()):
                masks = np.zeros((*images.shape[:3], config.data.classes), bool)  # what fills up a batch has no lesion
                for mask, example in zip(masks, examples, strict=False):
                    mask[:] = _binary(example['mask'], config)
                batch = devices.shard({'images': images, 'masks': masks}, mesh)
                sums.append(dice_sums(params, batch_stats, batch['images'], batch['masks']))
        dice, count = np.sum(jax.device_get(sums), axis=0)
        return float(dice / count) if count else float('nan')

    return validate


def _binary(mask, config):
    """A mask, uint8 [H, W], at the network's size: bool [S, S, C]."""
    size, classes = config.data.size, config.data.classes
    small = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    if classes == 1:
        return small[..., None] > mask.max() / 2
    return small[..., None] == np.arange(1, classes + 1)
