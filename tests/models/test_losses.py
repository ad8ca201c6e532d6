"""Losses against closed forms and literal loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax import LossNet, structure_loss
from m2snet_jax.models.losses import total_loss


def literal(logits, mask, bce):
    """Per image and class, with loops, after the papers."""
    losses, entropies = [], []
    for image in range(logits.shape[0]):
        for channel in range(logits.shape[3]):
            z, m = logits[image, :, :, channel], mask[image, :, :, channel]
            padded = np.pad(m, 15)
            window = [
                [padded[y : y + 31, x : x + 31].sum() / 961 for x in range(m.shape[1])] for y in range(m.shape[0])
            ]
            w, p = 1 + 5 * np.abs(np.array(window) - m), 1 / (1 + np.exp(-z))
            entropy = -(m * np.log(p) + (1 - m) * np.log(1 - p))
            intersection = (p * m * w).sum()
            losses.append(1 - (intersection + 1) / (((p + m) * w).sum() - intersection + 1))
            entropies.append(entropy.mean() if bce == 'mean' else (w * entropy).sum() / w.sum())
    return np.mean(losses) + np.mean(entropies)


@pytest.mark.parametrize('bce', ['mean', 'weighted'])
@pytest.mark.parametrize('classes', [1, 3])
def test_structure_loss(bce, classes, float64):
    rng = np.random.default_rng(0)
    logits, mask = rng.standard_normal((2, 20, 34, classes)) * 3, rng.random((2, 20, 34, classes))
    assert float(structure_loss(logits, mask, bce)) == pytest.approx(literal(logits, mask, bce), rel=1e-12)


def test_structure_loss_is_finite_for_huge_logits():
    mask = jnp.concatenate([jnp.zeros((1, 8, 8, 1)), jnp.ones((1, 8, 8, 1))])
    value, gradient = jax.value_and_grad(structure_loss)(jnp.full((2, 8, 8, 1), 1e4), mask)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_structure_loss_names_its_choices():
    with pytest.raises(ValueError, match="'mean' or 'weighted', not 'sum'"):
        structure_loss(jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 4, 4, 1)), 'sum')


def test_structure_loss_computes_in_float32_at_least():
    logits, mask = jnp.ones((1, 40, 40, 1), jnp.bfloat16), jnp.ones((1, 40, 40, 1), jnp.bfloat16)
    assert structure_loss(logits, mask).dtype == jnp.float32


def compiled(lossnet, of=0):
    """Returns a function of logits and mask: LossNet's loss and its gradients of the arguments `of`, as one program."""
    graph, params = nnx.split(lossnet)

    def loss(logits, mask, params):
        return nnx.merge(graph, params)(logits, mask)

    gradients = jax.jit(jax.value_and_grad(loss, of))
    return lambda logits, mask: gradients(logits, mask, params)


@pytest.mark.usefixtures('compiled_quickly')
def test_lossnet_is_zero_for_equal_map_and_mask_and_has_no_gradient_of_the_mask():
    of_lossnet = compiled(LossNet(size=32, rngs=nnx.Rngs(0)), (0, 1))
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40, 40, 1)), jnp.float32)
    assert float(of_lossnet(logits, jax.nn.sigmoid(logits))[0]) == 0
    mask = jnp.round(jax.nn.sigmoid(-logits))
    loss, (dlogits, dmask) = of_lossnet(logits, mask)
    assert loss > 0.1
    assert np.abs(dlogits).max() > 0
    assert np.abs(dmask).max() == 0


@pytest.mark.usefixtures('compiled_quickly')
@pytest.mark.slow
def test_lossnet_in_bfloat16_is_that_of_float32_to_rounding():
    """It resizes before it normalises then; a mask at another size than LossNet's shows the difference."""
    generator = np.random.default_rng(0)
    logits = jnp.asarray(generator.standard_normal((2, 45, 37, 1)), jnp.float32)
    mask = jnp.asarray(generator.integers(0, 2, (2, 45, 37, 1)), jnp.float32)
    narrow, wide = (
        compiled(LossNet(size=32, dtype=dtype, rngs=nnx.Rngs(0)))(logits, mask) for dtype in (jnp.bfloat16, jnp.float32)
    )
    np.testing.assert_allclose(narrow[0], wide[0], rtol=0.02)
    assert np.corrcoef(np.ravel(narrow[1]), np.ravel(wide[1]))[0, 1] > 0.99


@pytest.mark.usefixtures('compiled_quickly')
def test_lossnet_compares_each_class_separately():
    of_lossnet = compiled(LossNet(size=32, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    logits, mask = (jnp.asarray(rng.random((2, 32, 32, 2)), jnp.float32) for _ in range(2))
    separate = [of_lossnet(logits[..., k : k + 1], mask[..., k : k + 1])[0] for k in range(2)]
    assert float(of_lossnet(logits, mask)[0]) == pytest.approx(np.mean(separate), rel=1e-5)


def test_losses_of_a_batch_of_thousands_of_images_can_be_computed():
    maps = jax.ShapeDtypeStruct((4096, 352, 352, 1), jnp.float32)  # features of more than 2³¹ values

    def loss(logits, mask):
        return total_loss(logits, mask, LossNet(rngs=nnx.Rngs(0)))[0]

    assert jax.eval_shape(jax.grad(loss), maps, maps).shape == maps.shape
