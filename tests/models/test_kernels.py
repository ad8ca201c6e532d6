"""Convolutions and their gradients against the plain form and autodiff, for every form there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from m2snet_jax.models import kernels
from m2snet_jax.models.kernels import WINOGRAD_CHANNELS, convolve, convolve_depthwise, convolve_frozen, max_pool

pytestmark = pytest.mark.usefixtures('float64')


def plain(x, kernel, stride=1):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def values_and_gradients(function, x, kernel, dy):
    """Returns y, dx and dkernel."""

    def run(x, kernel, dy):
        y, pullback = jax.vjp(function, x, kernel)
        return y, *pullback(dy)

    return jax.jit(run)(x, kernel, dy)


def random(*shape, dtype=np.float64):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    ('size', 'stride', 'inputs', 'outputs'),
    [(1, 1, 6, 4), (1, 1, 3, 8), (3, 1, 12, 5), (3, 1, 5, 12), (3, 1, 8, 1), (3, 2, 12, 5), (3, 2, 5, 5)],
)
def test_a_convolution_and_its_gradients_are_those_of_autodiff(size, stride, inputs, outputs):
    x, kernel = random(2, 7, 10, inputs), random(size, size, inputs, outputs)
    dy = random(*plain(x, kernel, stride).shape)
    found = values_and_gradients(lambda x, kernel: convolve(x, kernel, (stride, stride)), x, kernel, dy)
    truth = values_and_gradients(lambda x, kernel: plain(x, kernel, stride), x, kernel, dy)
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.std(b) * inputs)


def test_both_forms_of_the_gradient_of_a_product_are_the_same():
    x, dy = random(2, 7, 10, 6), random(2, 7, 10, 4)
    found = kernels._dkernel_by_axes(x, dy)
    assert found.shape == (1, 1, 6, 4)
    np.testing.assert_allclose(found, kernels._dkernel_by_rows(x, dy), rtol=0, atol=1e-12)


@pytest.mark.parametrize(('dtype', 'bound'), [('float64', 1e-12), ('float32', 1e-4)])
@pytest.mark.parametrize(
    ('height', 'width', 'inputs', 'outputs'),
    [(8, 8, 128, 128), (3, 7, 128, 130), (1, 1, 130, 128), (6, 5, 128, 8), (6, 5, 3, 128)],
)
def test_a_frozen_convolution_is_the_plain_one_to_rounding(height, width, inputs, outputs, dtype, bound):
    x, kernel = random(2, height, width, inputs, dtype=dtype), random(3, 3, inputs, outputs, dtype=dtype)
    dy = random(2, height, width, outputs, dtype=dtype)
    truth = values_and_gradients(plain, *(array.astype(np.float64) for array in (x, kernel, dy)))
    for a, b in zip(values_and_gradients(convolve_frozen, x, kernel, dy), truth, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * np.std(b))


@pytest.mark.parametrize('size', [(7, 10), (1, 1), (2, 3)])
def test_a_depthwise_convolution_and_its_gradients_are_those_of_one_convolution_a_channel(size):
    x, kernel, dy = random(2, *size, 5), random(3, 3, 1, 5), random(2, *size, 5)

    def by_channel(x, kernel):
        return jnp.concatenate([plain(x[..., c : c + 1], kernel[..., c : c + 1]) for c in range(5)], axis=-1)

    truth = values_and_gradients(by_channel, x, kernel, dy)
    for a, b in zip(values_and_gradients(convolve_depthwise, x, kernel, dy), truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_programs_for_accelerators_hold_only_the_plain_convolution():
    x = jnp.ones((1, 8, 8, WINOGRAD_CHANNELS), jnp.float32)
    kernel = jnp.ones((3, 3, WINOGRAD_CHANNELS, WINOGRAD_CHANNELS), jnp.float32)
    counts = {}
    for platform in ('cpu', 'cuda', 'tpu'):
        text = jax.jit(convolve_frozen).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        counts[platform] = text.count('stablehlo.convolution')
    assert counts == {'cpu': 6, 'cuda': 1, 'tpu': 1}


def test_of_equal_maxima_the_first_in_reading_order_has_the_gradient():
    x = np.zeros((1, 4, 4, 1))
    x[0, 0, 1], x[0, 1, 0] = 5, 5
    x[0, 2, 3], x[0, 3, 2] = 5, 5
    expected = np.zeros_like(x)
    expected[0, 0, 1], expected[0, 2, 3], expected[0, 0, 2], expected[0, 2, 0] = 1, 1, 1, 1
    gradient = jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(('size', 'stride', 'padding'), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_max_pool_and_its_gradient_are_those_of_reduce_window(size, stride, padding):
    def windows(x):
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)

    x = random(2, 9, 8, 3)
    y, pullback = jax.vjp(lambda x: max_pool(x, size, stride, padding), x)
    truth, true_pullback = jax.vjp(windows, x)
    np.testing.assert_array_equal(y, truth)
    dy = random(*y.shape)
    np.testing.assert_allclose(pullback(dy)[0], true_pullback(dy)[0], rtol=1e-12, atol=1e-14)


def test_max_pool_propagates_nan_in_training():
    x = random(1, 4, 4, 2)
    x[0, 1, 1, 0] = np.nan
    y, _ = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isnan(y).sum() == 1
