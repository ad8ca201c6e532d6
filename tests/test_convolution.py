"""Convolutions and their gradients against the plain form and autodiff, for every form there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from m2snet_jax.model.convolution import WIDE, convolve, convolve_frozen
from m2snet_jax.model.layers import max_pool

pytestmark = pytest.mark.usefixtures('float64')


def plain(x, kernel, stride=1):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def values_and_gradients(function, x, kernel, gradient):
    def run(x, kernel, gradient):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(gradient)

    return jax.jit(run)(x, kernel, gradient)


def random(*shape, dtype=np.float64):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    ('size', 'stride', 'inputs', 'outputs'),
    [(1, 1, 6, 4), (1, 1, 3, 8), (3, 1, 12, 5), (3, 1, 5, 12), (3, 1, 8, 1), (3, 2, 12, 5), (3, 2, 5, 5)],
)
def test_a_convolution_and_its_gradients_are_those_of_autodiff(size, stride, inputs, outputs):
    x, kernel = random(2, 7, 10, inputs), random(size, size, inputs, outputs)
    gradient = random(*plain(x, kernel, stride).shape)
    ours = values_and_gradients(lambda x, kernel: convolve(x, kernel, stride), x, kernel, gradient)
    theirs = values_and_gradients(lambda x, kernel: plain(x, kernel, stride), x, kernel, gradient)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.std(b) * inputs)


@pytest.mark.parametrize(('dtype', 'bound'), [('float64', 1e-12), ('float32', 1e-4)])
@pytest.mark.parametrize(
    ('height', 'width', 'inputs', 'outputs'),
    [(8, 8, WIDE, WIDE), (3, 7, WIDE, 130), (1, 1, 130, WIDE), (6, 5, WIDE, 8), (6, 5, 3, WIDE)],
)
def test_a_frozen_convolution_is_the_plain_one_to_rounding(height, width, inputs, outputs, dtype, bound):
    x, kernel = random(2, height, width, inputs, dtype=dtype), random(3, 3, inputs, outputs, dtype=dtype)
    gradient = random(2, height, width, outputs, dtype=dtype)
    truth = values_and_gradients(plain, *(array.astype(np.float64) for array in (x, kernel, gradient)))
    for a, b in zip(values_and_gradients(convolve_frozen, x, kernel, gradient), truth, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * np.std(b))


def test_programs_for_other_machines_hold_the_plain_convolution_alone():
    x, kernel = jnp.ones((1, 8, 8, WIDE), jnp.float32), jnp.ones((3, 3, WIDE, WIDE), jnp.float32)
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
    ours, theirs = (jax.vjp(pool, x) for pool in (lambda x: max_pool(x, size, stride, padding), windows))
    np.testing.assert_array_equal(ours[0], theirs[0])
    gradient = random(*ours[0].shape)
    np.testing.assert_allclose(ours[1](gradient)[0], theirs[1](gradient)[0], rtol=1e-12, atol=1e-14)


def test_max_pool_hands_on_what_is_not_a_number_while_training():
    x = random(1, 4, 4, 2)
    x[0, 1, 1, 0] = np.nan
    y, _ = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isnan(y).sum() == 1
