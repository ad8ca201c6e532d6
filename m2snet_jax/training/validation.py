"""Dice during training, computed on the devices at the network's own size; the full scores come at the end."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, UInt8

from m2snet_jax.data.datasets import Dataset
from m2snet_jax.data.pipeline import eval_batches
from m2snet_jax.devices.mesh import Mesh, shard
from m2snet_jax.errors import InputError
from m2snet_jax.metrics.hard import THRESHOLD
from m2snet_jax.models.model_weights import ModelWeights, merge_model


def watched_split(config: Any, dataset: Dataset) -> tuple[str, list[Sequence]]:
    """Returns the name of the split that is scored after every epoch and its sources; none without `validation`."""
    if config.select == 'test':
        return 'test', list(dataset.tests.values())
    return 'validation', [] if dataset.validation is None else [dataset.validation]


def make_validate(
    graph: nnx.GraphDef, sources: Sequence[Sequence], config: Any, mesh: Mesh
) -> Callable[[ModelWeights], float]:
    """Returns `validate(weights) → Dice`, the mean over images (and classes) with a lesion.

    It is `hard/Dice` except for the size: map and mask are compared at `data.size`, not at the image's own size. It is
    NaN without any lesion. `sources` are examples, as a `Dataset` has them. `validate` raises InputError if there is no
    lesion and `select` is to choose a step by the Dice.
    """

    @jax.jit
    def dice_sums(weights, images, masks):
        model = merge_model(graph, weights)
        found = jax.nn.sigmoid(model(images)) >= THRESHOLD / 255
        both, either = (found & masks).sum((1, 2)), found.sum((1, 2)) + masks.sum((1, 2))
        lesion = masks.any((1, 2))
        return jnp.sum(jnp.where(lesion, 2 * both / jnp.maximum(either, 1), 0)), lesion.sum()

    def validate(weights):
        sums = []
        for source in sources:
            for examples, images in eval_batches(source, config, mesh.size, jax.process_index(), jax.process_count()):
                masks = np.zeros((*images.shape[:3], config.data.classes), bool)  # the padding of a batch has no lesion
                for mask, example in zip(masks, examples, strict=False):
                    mask[:] = _binary(example['mask'], config)
                batch = shard({'images': images, 'masks': masks}, mesh)
                sums.append(dice_sums(weights, batch['images'], batch['masks']))
        dice, count = np.sum(jax.device_get(sums), axis=0)
        if not count and config.select != 'last':
            raise InputError(
                f'--config.select={config.select}: none of the images scored after each epoch has a lesion, so '
                'that no Dice is measured; hold out others with --config.data.seed, or set --config.select=last'
            )
        return float(dice / count) if count else float('nan')

    return validate


def _binary(mask: UInt8[np.ndarray, 'height width'], config: Any) -> Bool[np.ndarray, 'size size classes']:
    """Returns a mask at the network's size."""
    size, classes = config.data.size, config.data.classes
    small = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    if classes == 1:
        return small[..., None] > mask.max() / 2
    return small[..., None] == np.arange(1, classes + 1)
