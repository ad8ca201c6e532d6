"""Scores of one pair of map and mask, or of one pair a class."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.metrics.counts import Counts, Map, Mask, check_pair
from m2snet_jax.metrics.statistics import PROTOCOLS, find_protocol


def score(prediction: Map, mask: Mask, protocol: str = 'released') -> dict[str, Any]:
    """Returns the scores of one map against one mask, exactly as the protocol defines them.

    They are floats, and for 'released' and 'pranet' also curves; the docstring of the protocol's file explains each.

    Args:
        prediction: a probability map, 255 for certain lesion; resized to the mask's size by the protocol's own rule.
        mask: never resized. What counts as lesion is the protocol's own rule.
        protocol: 'released' (the released program), 'pranet' (the MATLAB toolbox) or 'hard' (cut at level 128).

    Raises:
        InputError: another dtype or number of dimensions, an image without pixels, an unknown protocol.
    """
    module = find_protocol(protocol)
    check_pair(prediction, mask)
    return module.score(Counts(*module.prepare(prediction, mask)))


def score_all(prediction: Map, mask: Mask) -> dict[str, dict[str, Any]]:
    """Returns `score` by every protocol. Protocols that count the same pixels share all tables."""
    check_pair(prediction, mask)
    scores, tables = {}, []
    for protocol, module in PROTOCOLS.items():
        pair = module.prepare(prediction, mask)
        counts = next((known for known in tables if same(pair, known)), None) or Counts(*pair)
        tables.append(counts)
        scores[protocol] = module.score(counts)
    return scores


def same(pair: tuple[np.ndarray, np.ndarray], counts: Counts) -> bool:
    """Whether `counts` was made of this pair of map and mask."""
    prediction, mask = pair
    equal = prediction is counts.prediction or np.array_equal(prediction, counts.prediction)
    return equal and np.array_equal(mask, counts.mask)


def class_pairs(
    prediction: UInt8[np.ndarray, 'height width classes'], mask: Map | UInt8[np.ndarray, 'height width classes']
) -> list[tuple[Map, Mask]]:
    """Returns the pair of map and mask of each class, for `score`.

    Args:
        prediction: a probability map for each class but the background.
        mask: the class of each pixel, 0 for background and c for map c - 1; or a mask for each class.

    Raises:
        InputError: other shapes, or a class without a map.
    """
    if prediction.ndim != 3 or mask.ndim not in (2, 3):
        found = f'prediction is {prediction.shape} and mask {mask.shape}'
        raise InputError(f'{found}: hand over maps [H, W, C] and a mask [H, W] or [H, W, C]')
    classes = prediction.shape[2]
    if mask.ndim == 2:
        if mask.max(initial=0) > classes:
            raise InputError(f'mask has class {mask.max()} and prediction maps for 1 to {classes}: check the classes')
        mask = np.where(mask[..., None] == np.arange(1, classes + 1), 255, 0).astype(np.uint8)
    if mask.shape[2] != classes:
        raise InputError(f'mask has {mask.shape[2]} classes and prediction {classes}: hand over as many maps as masks')
    return [(prediction[..., index], mask[..., index]) for index in range(classes)]
