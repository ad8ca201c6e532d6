"""Scores of one pair of map and mask, or of one pair a class."""

import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.metrics.counts import Counts, check_pair
from m2snet_jax.metrics.statistics import PROTOCOLS, find_protocol


def score(prediction, mask, protocol='reference'):
    """The scores of one map against one mask, exactly as the protocol has them.

    Args:
        prediction: uint8 [H, W], a probability map, 255 for certain lesion. If its size differs from the mask's it is
            resized by the protocol's own rule.
        mask: uint8 or bool [H, W], never resized. What counts as lesion is the protocol's own rule.
        protocol: 'reference' (the released program), 'pranet' (the MATLAB toolbox) or 'hard' (cut at level 128).

    Returns:
        dict of floats, and for 'reference' and 'pranet' of curves; names and meanings in the head of the protocol's
        file.

    Raises:
        InputError: another dtype or number of dimensions, an image without pixels, an unknown protocol.
    """
    module = find_protocol(protocol)
    check_pair(prediction, mask)
    return module.score(Counts(*module.prepare(prediction, mask)))


def score_all(prediction, mask):
    """`score` by every protocol: dict of protocol → scores. Protocols that see the same pixels share all tables."""
    check_pair(prediction, mask)
    scores, tables = {}, []
    for protocol, module in PROTOCOLS.items():
        pair = module.prepare(prediction, mask)
        counts = next((known for known in tables if same(pair, known)), None) or Counts(*pair)
        tables.append(counts)
        scores[protocol] = module.score(counts)
    return scores


def same(pair, counts):
    """Whether `counts` was made of this pair of arrays."""
    prediction, mask = pair
    equal = prediction is counts.prediction or np.array_equal(prediction, counts.prediction)
    return equal and np.array_equal(mask, counts.mask)


def class_pairs(prediction, mask):
    """The pair of map and mask of each class, for `score`: list of C pairs of uint8 [H, W].

    Args:
        prediction: uint8 [H, W, C], a probability map a class, the background without one.
        mask: uint8, the class of each pixel [H, W], 0 for background and c for map c - 1; or a mask a class [H, W, C].

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
