"""Batch statistics in float32 and bfloat16 against float64: means far from zero, one and two passes, many devices."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax.models.batch_norm import MOMENTUM, BatchNorm, moments_about

CHANNELS = 3
FAR = 1e4


def maps(mean, dtype, channels=CHANNELS):
    """Maps of standard deviation 1."""
    values = np.random.default_rng(0).standard_normal((2, 16, 16, channels)) + mean
    return jnp.asarray(values, dtype)


def normalised(x, old_mean):
    """The output of a norm whose running mean is `old_mean`, and the mean and variance that it found."""
    norm = BatchNorm(CHANNELS)
    norm.mean[...] = jnp.full(CHANNELS, old_mean, jnp.float32)
    y = np.asarray(norm(x), np.float64)
    mean = old_mean + (np.asarray(norm.mean[...], np.float64) - old_mean) / MOMENTUM
    return y, mean, (np.asarray(norm.var[...], np.float64) - (1 - MOMENTUM)) / MOMENTUM


def truth(x):
    exact = np.asarray(x, np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    return (exact - mean) / np.sqrt(var + 1e-5), mean, exact.var((0, 1, 2), ddof=1)


@pytest.mark.parametrize('channels', [CHANNELS, 1])
@pytest.mark.parametrize('old_mean', [0, 0.1 * FAR, 0.99 * FAR, FAR, -3 * FAR])
def test_a_mean_ten_thousand_deviations_from_zero_loses_nothing_in_float32(old_mean, channels):
    """At the first step, on the way, settled, and after a mean that has nothing to do with this batch."""
    x = maps(FAR, jnp.float32, channels)
    (y, _, var), (exact, _, exact_var) = normalised(x, old_mean), truth(x)
    np.testing.assert_allclose(y, np.broadcast_to(exact, y.shape), atol=3e-3)  # float32 resolves 1e-3 at 1e4
    np.testing.assert_allclose(var, np.broadcast_to(exact_var, var.shape), rtol=1e-4)


@pytest.mark.parametrize('mean', [0, 1, 30])
@pytest.mark.parametrize('settled', [0, 0.5, 1])
def test_bfloat16_maps_lose_less_than_their_own_rounding(mean, settled):
    """Their statistics are taken in one pass about the running mean; the truth is that of the rounded map."""
    x = maps(mean, jnp.bfloat16)
    (y, _, var), (exact, _, exact_var) = normalised(x, settled * mean), truth(x)
    np.testing.assert_allclose(y, exact, rtol=2**-8, atol=2e-3)
    np.testing.assert_allclose(var, exact_var, rtol=1e-5 + 2**-20 * mean**2)


@pytest.mark.parametrize(
    ('old_mean', 'limit'), [(0, 2**-20 * FAR**2), (0.99 * FAR, 2**-20 * (0.01 * FAR) ** 2), (FAR, 1e-4)]
)
def test_one_pass_in_float32_about_a_mean_that_has_settled_loses_nothing(old_mean, limit):
    """Of a mean 10⁴ deviations from zero: at the first step the variance is rounding, but never negative."""
    x = maps(FAR, jnp.float32)
    mean, var = (np.asarray(found, np.float64) for found in moments_about(jnp.full(CHANNELS, old_mean, jnp.float32), x))
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=2**-20)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), atol=limit, rtol=0)
    assert (var >= 0).all()


@pytest.mark.parametrize(('old_mean', 'tolerance'), [(0, 1e-2), (0.99 * FAR, 2**-8), (FAR, 2**-8)])
def test_a_far_mean_whose_maps_bfloat16_rounds_to_two_values(old_mean, tolerance):
    """10,016 lies between two values of bfloat16: the map is 9,984 or 10,048, at the first step and settled."""
    x = maps(10_016, jnp.bfloat16)
    assert set(np.unique(np.float64(x))) == {9_984, 10_048}
    (y, mean, var), (exact, exact_mean, exact_var) = normalised(x, old_mean), truth(x)
    np.testing.assert_allclose(y, exact, rtol=tolerance)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-5)
    np.testing.assert_allclose(var, exact_var, rtol=tolerance)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('shift', [0, 3, 5, -100])
def test_moments_about_any_shift_are_mean_and_variance(shift):
    x = maps(5, jnp.float64)
    mean, var = moments_about(jnp.full(CHANNELS, float(shift)), x)
    np.testing.assert_allclose(mean, np.asarray(x).mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(var, np.asarray(x).var((0, 1, 2)), rtol=1e-11)


def test_equal_values_have_no_variance_in_bfloat16():
    y, _, var = normalised(jnp.full((2, 8, 8, CHANNELS), 1e3, jnp.bfloat16), 0)
    assert np.isfinite(y).all()
    assert np.abs(y).max() < 1
    np.testing.assert_allclose(var, 0, atol=1e-6)


def test_traced_statistics_are_moved_without_asking_for_their_sharding(monkeypatch):
    """Its error message, which flax hides, takes longer the longer the program is: a third of the time of tracing."""
    asked = []
    monkeypatch.setattr(jax.core.Tracer, 'sharding', property(asked.append))
    graph, state = nnx.split(BatchNorm(CHANNELS))

    @jax.jit
    def train(state, x):
        norm = nnx.merge(graph, state)
        return norm(x), nnx.state(norm)

    _, moved = train(state, maps(5.0, jnp.float32))
    assert asked == []
    assert (moved['mean'].get_value() != 0).all()


def test_gradients_of_bfloat16_maps_are_those_of_the_formula():
    norm, x = BatchNorm(CHANNELS), maps(2, jnp.bfloat16)
    norm.scale[...], norm.bias[...] = jnp.array([0.5, 1, 2]), jnp.array([1, 0, -1])
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape), jnp.bfloat16)
    graph, params, statistics = nnx.split(norm, nnx.Param, nnx.BatchStat)

    def layer(params, x):
        return (weights * nnx.merge(graph, params, statistics, copy=True)(x)).astype(jnp.float32).sum()

    def formula(params, x):
        x, weight = x.astype(jnp.float32), weights.astype(jnp.float32)
        y = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        return (weight * (y * params['scale'][...] + params['bias'][...])).sum()

    found, expected = (jax.tree.leaves(jax.grad(f, (0, 1))(params, x)) for f in (layer, formula))
    for gradient, exact in zip(found, expected, strict=True):
        scale = np.abs(np.asarray(exact, np.float64)).max()
        np.testing.assert_allclose(np.float64(gradient), np.float64(exact), rtol=2**-7, atol=2**-8 * scale)


ON_FOUR_DEVICES = """
import jax
jax.config.update('jax_num_cpu_devices', 4)
import jax.numpy as jnp
import numpy as np
from flax import nnx
from m2snet_jax.devices.mesh import make_mesh, replicated, shard
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.packing import Packing, pack, unpack
from m2snet_jax.planning.collectives import count_collectives

mesh, random = make_mesh(), np.random.default_rng(0)
x, dy = (jnp.asarray(random.normal(5, 2, (8, 5, 6, 3)), jnp.bfloat16) for _ in range(2))
norm, found = BatchNorm(3), []
norm.mean[...] = jnp.array([0., 4, 5])
for stats_sharding, columns in ((None, 1), (replicated(mesh), 1), (replicated(mesh), 2)):
    norm.stats_sharding = stats_sharding
    graph, params, statistics = nnx.split(norm, nnx.Param, nnx.BatchStat)

    @jax.jit
    def apply(params, x, dy):
        def forward(params, x):
            norm = nnx.merge(graph, params, statistics, copy=True)
            y = unpack(norm(pack(x, columns), packing=Packing(columns)), columns)
            return y, nnx.state(norm, nnx.BatchStat)

        y, back, after = jax.vjp(forward, params, x, has_aux=True)
        return y, back(dy), after

    arguments = params, *shard((np.asarray(x), np.asarray(dy)), mesh)
    found.append(jax.tree.leaves(apply(*arguments)))
    collectives = count_collectives(apply.lower(*arguments).compile().as_text())
    counts = {kind: one['count'] for kind, one in collectives.items()}
    assert stats_sharding is None or counts == {'all-gather': 2}, collectives
for alone, *all_together in zip(*found, strict=True):
    scale = np.abs(np.float64(alone)).max()
    limit = 2**-8 if alone.dtype == jnp.bfloat16 else 1e-5
    for together in all_together:
        np.testing.assert_allclose(np.float64(together), np.float64(alone), rtol=limit, atol=limit * scale)
"""


def test_one_pass_over_devices_is_the_same_with_two_exchanges():
    subprocess.run([sys.executable, '-c', ON_FOUR_DEVICES], check=True)
