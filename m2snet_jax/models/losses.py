"""The structure loss of both papers, and the total that training minimises."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import at_least_float32
from m2snet_jax.models.layers import box_sum
from m2snet_jax.models.lossnet import LossNet

WINDOW = 31
EDGE_WEIGHT = 5
Maps = Float[Array, 'batch height width classes']
Scalar = Float[Array, '']


@jax.named_scope('structure_loss')
def structure_loss(logits: Maps, mask: Maps, bce: str = 'mean') -> Scalar:
    """Computes the weighted IoU loss plus binary cross-entropy, as PraNet and the released program do.

    Pixels near an edge of the mask weigh more: w = 1 + 5·|mean of the mask over 31×31 − mask|. The loss of each class
    map of each image is computed separately, and the mean is returned, in at least float32.

    Args:
        logits: before the sigmoid.
        mask: in [0, 1], may be soft.
        bce: 'mean' is what the released program computes: a legacy argument makes its cross-entropy one mean over
            the whole batch, and the weights cancel. 'weighted' is the papers' Σ w·bce / Σ w per image. Any other value
            raises ValueError.
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


def total_loss(
    logits: Maps, mask: Maps, lossnet: LossNet | None = None, *, bce: str = 'mean', lossnet_weight: float = 0.1
) -> tuple[Scalar, dict[str, Scalar]]:
    """Returns the structure loss plus `lossnet_weight` times LossNet, and its parts 'structure' and 'lossnet'.

    The other arguments are those of `structure_loss`. The released program's weight is 0.1.
    """
    structure = structure_loss(logits, mask, bce)
    if lossnet is None:
        return structure, {'structure': structure}
    feature_loss = lossnet(logits, mask)
    return structure + lossnet_weight * feature_loss, {'structure': structure, 'lossnet': feature_loss}
