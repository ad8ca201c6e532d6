"""Folded batch norms: the same maps, and no norm left that had a convolution before it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax.build import MODELS
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.folding import Identity, fold_batch_norms


def trained(name, dtype=jnp.float32, encoder='res2net14'):
    """A model in evaluation mode whose norms all have other values than at the start."""
    model = MODELS[name](encoder, 2, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            shape = module.scale.shape
            module.scale[...], module.bias[...] = draw.uniform(0.5, 1.5, shape), draw.normal(0, 0.3, shape)
            module.mean[...], module.var[...] = draw.normal(0, 0.3, shape), draw.uniform(0.3, 3, shape)
    model.eval()
    return model


def logits(model, dtype):
    graph, state = nnx.split(model)
    images = np.random.default_rng(1).standard_normal((2, 57, 64, 3))
    return np.asarray(jax.jit(lambda state, images: nnx.merge(graph, state)(images))(state, images.astype(dtype)))


@pytest.mark.parametrize('name', [pytest.param('msnet', marks=pytest.mark.slow), 'm2snet'])
def test_folding_is_exact(name, float64):
    model = trained(name, jnp.float64)
    expected = logits(model, np.float64)
    np.testing.assert_allclose(
        logits(fold_batch_norms(model), np.float64), expected, rtol=0, atol=1e-12 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_folding_in_float32_is_exact_to_rounding():
    model = trained('m2snet')
    expected = logits(model, np.float32)
    folded = logits(fold_batch_norms(model), np.float32)
    assert folded.dtype == np.float32
    np.testing.assert_allclose(folded, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_only_the_norms_of_the_full_one_filters_remain_and_the_model_is_not_changed():
    model = trained('m2snet')
    before = jax.tree.map(np.asarray, nnx.state(model))
    kinds = [type(module) for _, module in nnx.iter_modules(model)]
    after = [type(module) for _, module in nnx.iter_modules(fold_batch_norms(model))]
    assert after.count(BatchNorm) == 2
    assert after.count(Identity) == kinds.count(BatchNorm) - 2
    assert kinds.count(Identity) == 0
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))


@pytest.mark.parametrize(
    'encoder', [pytest.param('resnet50', marks=pytest.mark.slow), pytest.param('vgg16', marks=pytest.mark.slow)]
)
def test_other_encoders_are_folded_too(encoder, float64):
    model = trained('msnet', jnp.float64, encoder)
    folded = fold_batch_norms(model)
    assert not any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(folded))
    expected = logits(model, np.float64)
    np.testing.assert_allclose(logits(folded, np.float64), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
