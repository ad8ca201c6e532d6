"""The layers against dense convolutions, closed forms and jax's own operations, in float64."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax.models import initial_weights, layers
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.subtraction import CHANNELS, FullOneFilter, absolute


@pytest.fixture(autouse=True)
def _float64(float64):
    """Every test here runs in float64."""


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('training', [True, False])
def test_full_one_filter_is_a_dense_convolution_with_ones(size, training):
    """Output and gradient equal the 64→64 convolution that the released program runs, borders included."""
    ours = FullOneFilter(size, param_dtype=jnp.float64)
    ours.norm.scale[...], ours.norm.bias[...] = random(CHANNELS, seed=1), random(CHANNELS, seed=2)
    ours.norm.mean[...], ours.norm.var[...] = random(CHANNELS, seed=3), random(CHANNELS, seed=4) ** 2
    dense = layers.Conv(CHANNELS, CHANNELS, size, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    dense.kernel[...] = jnp.ones_like(dense.kernel[...])
    norm = nnx.clone(ours.norm)
    for module in (ours, norm):
        module.train() if training else module.eval()
    x, weights = random(2, 7, 9, CHANNELS, seed=5), random(2, 7, 9, CHANNELS, seed=6)

    def cheap(x):
        return (nnx.merge(*nnx.split(ours), copy=True)(x) * weights).sum()

    def full(x):
        return (nnx.relu(nnx.merge(*nnx.split(norm), copy=True)(dense(x))) * weights).sum()

    for first, second in zip(jax.value_and_grad(cheap)(x), jax.value_and_grad(full)(x), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12 * np.abs(second).max())
    ours(x), norm(dense(x))
    np.testing.assert_allclose(ours.norm.mean[...], norm.mean[...], rtol=1e-12)
    np.testing.assert_allclose(ours.norm.var[...], norm.var[...], rtol=1e-12)


@pytest.mark.parametrize('source', [(4, 6), (5, 7), (11, 3)])
@pytest.mark.parametrize('target', [(4, 6), (8, 12), (9, 13), (3, 2)])
def test_resize_is_bilinear_with_half_pixel_centres(source, target):
    x = random(2, *source, 3)
    truth = jax.image.resize(x, (2, *target, 3), 'bilinear', antialias=False)
    np.testing.assert_allclose(layers.resize(x, *target), truth, rtol=0, atol=1e-12)


def test_convolution_of_one_pixel_equals_the_general_one():
    conv = layers.Conv(5, 7, 1, use_bias=True, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = random(2, 4, 3, 5)
    truth = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    np.testing.assert_allclose(conv(x), truth + conv.bias[...], rtol=1e-12)


def test_batch_norm_normalises_by_the_biased_variance_and_keeps_the_unbiased():
    norm, x = BatchNorm(3, param_dtype=jnp.float64), random(2, 3, 4, 3) * 5 + 2
    y = norm(x)
    flat = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(norm.mean[...], 0.1 * flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-12)
    norm.eval()
    before = norm.mean[...]
    np.testing.assert_allclose(norm(x), (x - norm.mean[...]) / np.sqrt(norm.var[...] + 1e-5), rtol=1e-12)
    np.testing.assert_array_equal(norm.mean[...], before)


def test_batch_norm_statistics_survive_a_mean_far_from_zero():
    """In float32 a one-pass variance would lose every digit here."""
    x = (np.random.default_rng(0).standard_normal((2, 16, 16, 1)) + 1e3).astype(np.float32)
    norm = BatchNorm(1)
    y = np.asarray(norm(jnp.asarray(x)), np.float64)
    truth = (x.astype(np.float64) - x.mean(dtype=np.float64)) / np.sqrt(x.var(dtype=np.float64) + 1e-5)
    np.testing.assert_allclose(y, truth, atol=1e-3)


def test_average_pool_divides_by_nine_at_the_border_too():
    x = jnp.ones((1, 4, 4, 1))
    truth = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]) / 9
    np.testing.assert_allclose(layers.average_pool(x, 1)[0, :, :, 0], truth, rtol=1e-12)
    np.testing.assert_allclose(layers.average_pool(x, 2)[0, :, :, 0], truth[::2, ::2], rtol=1e-12)


def test_average_pool_ceil_averages_the_pixels_inside():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    truth = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [(10 + 11) / 2, (12 + 13) / 2, 14]]
    np.testing.assert_allclose(layers.average_pool_ceil(x, 2)[0, :, :, 0], truth, rtol=1e-12)
    assert layers.average_pool_ceil(x, 1) is x


@pytest.mark.parametrize('size', [3, 5, 31])
def test_box_sum_is_a_window_of_ones(size):
    x = random(1, 33, 40, 1)
    padded = np.pad(np.asarray(x[0, :, :, 0]), size // 2)
    truth = np.lib.stride_tricks.sliding_window_view(padded, (size, size)).sum((2, 3))
    np.testing.assert_allclose(layers.box_sum(x, size)[0, :, :, 0], truth, rtol=0, atol=1e-12 * size**2)


def test_absolute_has_gradient_zero_at_zero():
    np.testing.assert_array_equal(jax.vmap(jax.grad(absolute))(jnp.array([-2.0, 0.0, 3.0])), [-1, 0, 1])
    np.testing.assert_array_equal(absolute(jnp.array([-2.0, 0.0, 3.0])), [2, 0, 3])


def test_initial_weights_follow_pytorch():
    """Uniform ±1/√fan_in for weight and bias; He-normal fan-out in the encoder."""
    conv = layers.Conv(64, 64, use_bias=True, rngs=nnx.Rngs(0))
    bound = (3 * 3 * 64) ** -0.5
    for values in (conv.kernel[...], conv.bias[...]):
        assert 0.9 * bound < np.abs(values).max() <= bound
        assert abs(np.std(values) / (bound / 3**0.5) - 1) < 0.15
    encoder = layers.Conv(32, 64, init=initial_weights.he_normal_fan_out, rngs=nnx.Rngs(0))
    assert abs(np.std(encoder.kernel[...]) / (2 / (9 * 64)) ** 0.5 - 1) < 0.03


@pytest.mark.parametrize('frozen', [True, False])
def test_a_frozen_batch_norm_keeps_its_statistics_in_training(frozen):
    norm, x = BatchNorm(3, param_dtype=jnp.float64), random(2, 3, 4, 3) * 5 + 2
    norm.mean[...], norm.var[...] = random(3, seed=1), random(3, seed=2) ** 2
    graph, state = nnx.split(norm)

    @jax.jit
    def apply(state, x, frozen):
        norm = nnx.merge(graph, state, copy=True)
        return norm(x, frozen), norm.mean[...], norm.var[...]

    y, mean, var = apply(state, x, frozen)
    if frozen:
        norm.eval()
    truth = norm(x)
    np.testing.assert_allclose(y, truth, rtol=1e-12)
    np.testing.assert_allclose(mean, norm.mean[...], rtol=1e-12)
    np.testing.assert_allclose(var, norm.var[...], rtol=1e-12)


@pytest.mark.parametrize('frozen', [None, True, False])
@pytest.mark.parametrize('given', [3, 1])
@pytest.mark.usefixtures('float64')
def test_gradients_of_a_batch_norm_are_those_of_its_formula(frozen, given):
    """Also for one channel in place of three equal ones, and with frozen statistics."""
    norm, x, weights = BatchNorm(3, param_dtype=jnp.float64), random(2, 3, 4, given) * 5 + 2, random(2, 3, 4, 3)
    norm.mean[...], norm.var[...] = random(3, seed=1), random(3, seed=2) ** 2
    scale, bias = random(3, seed=3), random(3, seed=4)
    graph, _, statistics = nnx.split(norm, nnx.Param, nnx.BatchStat)

    def layer(x, scale, bias):
        params = nnx.State({'scale': nnx.Param(scale), 'bias': nnx.Param(bias)})
        return (weights * nnx.merge(graph, params, statistics, copy=True)(x, frozen) ** 2).sum()

    def formula(x, scale, bias):
        mean, var = (norm.mean[...], norm.var[...]) if frozen else (x.mean((0, 1, 2)), x.var((0, 1, 2)))
        return (weights * ((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias) ** 2).sum()

    for found, truth in zip(*(jax.grad(f, (0, 1, 2))(x, scale, bias) for f in (layer, formula)), strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max())


ON_FOUR_DEVICES = """
import jax
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_enable_x64', True)
import numpy as np
from flax import nnx
from m2snet_jax.devices.mesh import make_mesh, replicated, shard
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.planning.collectives import count_collectives

mesh, random = make_mesh(), np.random.default_rng(0)
for channels in (3, 1):
    x, dy = random.normal(1e3, 2, (8, 5, 6, channels)), random.normal(0, 1, (8, 5, 6, 3))
    norm = BatchNorm(3, param_dtype=float)
    norm.mean[...], norm.scale[...] = random.normal(1e3, 2, 3), random.normal(1, 1, 3)
    found = {}
    for frozen in (None, np.array(False), np.array(True)):
        for stats_sharding in (None, replicated(mesh)):
            norm.stats_sharding = stats_sharding
            graph, params, statistics = nnx.split(norm, nnx.Param, nnx.BatchStat)

            @jax.jit
            def apply(params, x, dy, frozen):
                def forward(params, x):
                    norm = nnx.merge(graph, params, statistics, copy=True)
                    return norm(x, frozen), nnx.state(norm, nnx.BatchStat)

                y, back, after = jax.vjp(forward, params, x, has_aux=True)
                return y, back(dy), after

            arguments = params, *shard((x, dy), mesh), frozen
            found[stats_sharding] = jax.tree.leaves(apply(*arguments))
        collectives = count_collectives(apply.lower(*arguments).compile().as_text())
        assert {kind: one['count'] for kind, one in collectives.items()} == {'all-gather': 2}, collectives
        for alone, together in zip(*found.values(), strict=True):
            np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)
"""


def test_a_batch_norm_over_devices_is_the_same_with_two_exchanges():
    """Also with a mean far from zero, with frozen statistics, and for one channel in place of three."""
    subprocess.run([sys.executable, '-c', ON_FOUR_DEVICES], check=True)


@pytest.mark.parametrize('shape', [(1,), (64,), (3, 3, 3, 32), (1, 1, 104, 256), (3, 3, 52, 53)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_initial_weights_are_those_of_one_draw_of_their_shape(shape, dtype):
    """Bit for bit, although they are the first of a longer draw."""
    key, fan_in, size = jax.random.key(5), 48, shape[0] * shape[0] * shape[-1]
    uniform = jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)
    normal = jax.random.normal(key, shape, dtype)
    np.testing.assert_array_equal(initial_weights.torch_uniform(key, shape, dtype, fan_in), uniform)
    np.testing.assert_array_equal(
        initial_weights.he_normal_fan_in(key, shape, dtype, fan_in), normal * (2 / fan_in) ** 0.5
    )
    if len(shape) == 4:
        drawn = initial_weights.he_normal_fan_out(key, shape, dtype, fan_in)
        np.testing.assert_array_equal(drawn, normal * (2 / size) ** 0.5)
