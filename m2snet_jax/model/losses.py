"""The structure loss of both papers, and the total that training minimises."""

import jax
import jax.numpy as jnp

from m2snet_jax.model.layers import at_least_float32, box_sum

WINDOW = 31
EDGE_WEIGHT = 5


def structure_loss(logits, mask, bce='mean'):
    """Weighted IoU plus binary cross-entropy (released program; PraNet's loss, with one quirk).

    Pixels near an edge of the mask weigh more: w = 1 + 5·|mean of the mask over 31×31 − mask|. Each class map of
    each image is a case of its own; the loss is their mean.

    Args:
        logits: `[B, H, W, C]`.
        mask: `[B, H, W, C]` in [0, 1], may be soft.
        bce: 'mean' is what the released program computes: a legacy argument makes its cross-entropy one mean over
            the whole batch, and the weights cancel. 'weighted' is the papers' Σ w·bce / Σ w per image.

    Returns:
        A scalar in at least float32.
    """
    dtype = at_least_float32(logits.dtype)
    logits, mask = logits.astype(dtype), mask.astype(dtype)
    weight = 1 + EDGE_WEIGHT * jnp.abs(box_sum(mask, WINDOW) / WINDOW**2 - mask)
    entropy = jax.nn.softplus(logits) - logits * mask
    probability = jax.nn.sigmoid(logits)
    intersection = (probability * mask * weight).sum((1, 2))
    union = ((probability + mask) * weight).sum((1, 2)) - intersection
    weighted_iou = 1 - (intersection + 1) / (union + 1)
    if bce == 'weighted':
        entropy = (weight * entropy).sum((1, 2)) / weight.sum((1, 2))
    elif bce != 'mean':
        raise ValueError(f"bce is 'mean' or 'weighted', not {bce!r}")
    return entropy.mean() + weighted_iou.mean()


def total_loss(logits, mask, lossnet=None, *, bce='mean', lossnet_weight=0.1):
    """Structure loss plus `lossnet_weight` times LossNet; returns (total, {'structure': …, 'lossnet': …}).

    `lossnet` is a LossNet, or None where its weight is 0. The released program's weight is 0.1.
    """
    structure = structure_loss(logits, mask, bce)
    if lossnet is None:
        return structure, {'structure': structure}
    features = lossnet(logits, mask)
    return structure + lossnet_weight * features, {'structure': structure, 'lossnet': features}
