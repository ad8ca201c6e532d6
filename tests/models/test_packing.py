"""Packed maps give the values and gradients of plain ones."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.models.kernels import max_pool
from m2snet_jax.models.layers import Conv
from m2snet_jax.models.lossnet import LossNet
from m2snet_jax.models.packing import LANES, NOT_PACKED, Packing, columns_for, max_pool_packed, pack, unpack
from m2snet_jax.training.step import create_train_state

pytestmark = pytest.mark.usefixtures('float64', 'compiled_quickly')


def random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape))


def in_groups(x, packing):
    """Packs maps by the definition: by group, then by column, then by channel of the group."""
    parts = [pack(part, packing.columns) for part in jnp.split(x, packing.groups, axis=-1)]
    return jnp.concatenate(parts, axis=-1)


@pytest.mark.parametrize('columns', [1, 2, 4])
@pytest.mark.parametrize(('size', 'stride'), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize('groups', [(1, 1), (2, 3)])
def test_a_convolution_of_packed_maps_and_its_gradients(size, stride, columns, groups):
    conv = Conv(4, 6, size, stride=stride, use_bias=True, dtype='float64', param_dtype='float64', rngs=nnx.Rngs(0))
    before = Packing(columns * stride, groups[0]) if columns > 1 else NOT_PACKED
    after = Packing(columns, groups[1])
    x, dy = random(2, 5, 8 * stride, 4), random(2, -(-5 // stride), 8, 6)

    def run(x, dy, before, after):
        graph, params = nnx.split(conv)
        y, pullback = jax.vjp(lambda params, x: nnx.merge(graph, params)(x, before, after), params, x)
        return y, *pullback(dy)

    y, dparams, dx = run(x, dy, NOT_PACKED, NOT_PACKED)
    found_y, found_dparams, found_dx = run(in_groups(x, before), in_groups(dy, after), before, after)
    np.testing.assert_allclose(found_y, in_groups(y, after), atol=1e-12)
    np.testing.assert_allclose(found_dx, in_groups(dx, before), atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found_dparams, dparams)


def test_unpacking_undoes_packing():
    x = random(2, 3, 8, 5)
    assert pack(x, 4).shape == (2, 3, 2, 20)
    np.testing.assert_array_equal(pack(x, 4)[:, :, 1, 5:10], x[:, :, 5])
    np.testing.assert_array_equal(unpack(pack(x, 4), 4), x)


@pytest.mark.parametrize(
    ('width', 'channels', 'stride', 'columns'),
    [(88, 26, 1, 4), (352, 32, 2, 4), (56, 26, 1, 4), (44, 52, 1, 1), (22, 26, 1, 1), (351, 32, 2, 1), (64, 8, 1, 16)],
)
def test_as_many_columns_as_fit_and_divide_the_width(width, channels, stride, columns):
    assert columns_for(width, channels, stride) == columns
    assert columns * channels <= LANES
    assert width % (columns * stride) == 0 or columns == 1


@pytest.mark.parametrize(
    ('height', 'width', 'packed', 'remat'),
    [
        (33, 64, True, False),
        pytest.param(33, 64, True, True, marks=pytest.mark.slow),
        pytest.param(32, 50, False, False, marks=pytest.mark.slow),
    ],
)
def test_a_packed_encoder_gives_maps_gradients_and_statistics_of_a_plain_one(height, width, packed, remat):
    encoder = Res2Net('res2net14', dtype='float64', param_dtype='float64', rngs=nnx.Rngs(0))
    images = random(2, height, width, 3)

    def run(**attributes):
        encoder.set_attributes(**attributes)
        graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)

        def weighted_sum(params):
            model = nnx.merge(graph, params, stats, copy=True)
            maps = model(images)
            weights = (jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in maps)
            return sum((w * x).sum() for w, x in zip(weights, maps, strict=True)), nnx.state(model, nnx.BatchStat)

        function = jax.jit(jax.value_and_grad(weighted_sum, has_aux=True))
        return function(params), function.lower(params).as_text()

    plain, plain_text = run(packed=False, remat=remat)
    found, text = run(packed=True, remat=remat)
    assert ('x128xf64' in text and text != plain_text) == packed  # 4 columns of 32 channels
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(np.abs(b).max(), 1e-3))


@pytest.mark.parametrize(('height', 'width'), [(6, 8), (7, 4)])
def test_max_pool_of_packed_maps_and_its_gradient_with_ties(height, width):
    x = jnp.round(random(2, height, width, 3))  # many equal values
    dy = random(2, height // 2, width // 2, 3)
    y, pullback = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    found, found_pullback = jax.vjp(lambda x: max_pool_packed(pack(x, 2), 2), x)
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(found_pullback(dy)[0], pullback(dy)[0])


@pytest.mark.parametrize('size', [16, pytest.param(17, marks=pytest.mark.slow)])
def test_a_packed_lossnet_is_a_plain_one(size):
    lossnet = LossNet(size=size, dtype='float64', param_dtype='float64', rngs=nnx.Rngs(0))
    lossnet.blocks = nnx.List(list(lossnet.blocks)[:2])  # the first, which is packed, and one that is not
    logits, mask = random(1, 20, 20, 1), (random(1, 20, 20, 1) > 0).astype(float)

    def run(packed):
        lossnet.packed = packed
        function = jax.jit(jax.value_and_grad(lossnet))
        return function(logits, mask), function.lower(logits, mask).as_text()

    (plain, plain_text), (found, text) = run(False), run(True)
    assert (text != plain_text) == (size == 16)
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize(('platform', 'packed'), [('tpu', True), ('gpu', False), ('cpu', False)])
def test_training_packs_maps_on_a_tpu_alone(platform, packed):
    mesh: Any = types.SimpleNamespace(size=1, devices=np.array([types.SimpleNamespace(platform=platform)]))
    optimizer: Any = types.SimpleNamespace(init=lambda params: None)

    def state_of():
        graph, state = create_train_state(Res2Net('res2net14', rngs=nnx.Rngs(0)), optimizer, mesh=mesh)
        graphs.append(graph)
        return state

    graphs = []
    state = jax.eval_shape(state_of)
    assert nnx.merge(graphs[0], state.params, state.batch_stats).packed == packed
