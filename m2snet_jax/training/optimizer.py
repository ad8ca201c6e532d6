"""SGD as both papers use it: Nesterov momentum, PyTorch's weight decay, a triangular rate per epoch."""

import jax
import jax.numpy as jnp
import optax

STEM = ('conv1', 'bn1')


def triangle(peak, epochs, steps_per_epoch):
    """Returns the schedule step → rate: constant within an epoch, rising to `peak` in the middle, then falling.

    Epoch e of E has the rate (1 − |2(e+1)/(E+1) − 1|) · peak (released program).
    """

    def rate(step):
        epoch = jnp.asarray(step // steps_per_epoch, float)  # float64 where that is on, not int32's float32
        return (1 - jnp.abs(2 * (epoch + 1) / (epochs + 1) - 1)) * peak

    return rate


def scale_encoder(factor, freeze_stem):
    """Scales the encoder's updates by `factor`, those of its stem by 0 when frozen.

    The paper trains the whole backbone at a tenth of the rate; the released program meant to and also to leave out
    the stem, but its filter looks for a name that no parameter has, so everything moves at the full rate.
    """

    def scale(path, update):
        names = [str(getattr(key, 'key', getattr(key, 'name', key))) for key in path]
        if names[0] != 'encoder':
            return update
        return update * (0.0 if freeze_stem and names[1] in STEM else factor)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def sgd(rate, *, momentum=0.9, weight_decay=5e-4, encoder_factor=1.0, freeze_stem=False):
    """Returns PyTorch's SGD as an optax transformation.

    g += weight_decay · θ for every parameter, batch norms and biases too; v = momentum · v + g from v = 0;
    θ −= rate · (g + momentum · v). The rate is not inside v, which matters because it changes every epoch.

    Args:
        rate: schedule step → rate.
        momentum: of Nesterov's kind.
        weight_decay: added to the gradient, before momentum.
        encoder_factor: the encoder's rate as a share of the rest.
        freeze_stem: leave the encoder's stem as it starts.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=True),
        scale_encoder(encoder_factor, freeze_stem) if encoder_factor != 1 or freeze_stem else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )
