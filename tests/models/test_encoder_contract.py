"""What all encoders have in common, and drop path."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_encoders import NEW, Golden, empty_encoder, maps_of

from m2snet_jax import MSNet
from m2snet_jax.models.encoders import ENCODERS, pvt

pytestmark = pytest.mark.usefixtures('compiled_quickly')

COMPILED = [pytest.param(name, marks=[] if name == 'vgg16' else [pytest.mark.slow]) for name in NEW]


@pytest.mark.parametrize('size', [(33, 33), (47, 64)])
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] if name == 'res2net101' else []) for name in ENCODERS]
)
def test_maps_have_the_channels_and_strides_of_the_table(name, size):
    encoder = ENCODERS[name]
    made = empty_encoder(name)
    assert (made.channels, made.strides) == (encoder.channels, encoder.strides)
    graph, state = nnx.split(made)
    images = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    maps = jax.eval_shape(lambda state, images: nnx.merge(graph, state, copy=True)(images), state, images)
    assert [one.shape[-1] for one in maps] == list(encoder.channels)
    assert encoder.channels[0] == 64
    rounded = math.floor if name == 'vgg16' else math.ceil
    for one, stride in zip(maps, encoder.strides, strict=True):
        assert one.shape[1:3] == tuple(rounded(side / stride) for side in size)


@pytest.mark.parametrize('name', COMPILED)
def test_first_maps_in_bfloat16_are_close_and_parameters_stay_in_float32(name):
    golden, images = Golden(name), np.random.default_rng(0).standard_normal((1, 33, 40, 3)).astype(np.float32)
    exact, rough = (golden.encoder(dtype=dtype, param_dtype=jnp.float32) for dtype in (jnp.float32, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough))} == {jnp.dtype('float32')}
    for encoder in (exact, rough):
        encoder.eval()
    maps = maps_of(rough, images)
    assert all(one.dtype == jnp.bfloat16 and np.isfinite(one.astype(np.float32)).all() for one in maps)
    for a, b in list(zip(maps_of(exact, images), maps, strict=True))[:2]:  # random weights amplify rounding later on
        assert 0 < np.abs(a - b.astype(np.float32)).max() < 0.05 * np.abs(a).max()


@pytest.mark.parametrize('name', COMPILED)
def test_remat_computes_the_stages_again(name):
    counts = []
    for remat in (False, True):
        encoder = empty_encoder(name)
        encoder.remat = remat
        graph, state = nnx.split(encoder)
        images = jax.ShapeDtypeStruct((1, 33, 33, 3), np.float32)
        text = str(
            jax.make_jaxpr(lambda state, images, graph=graph: nnx.merge(graph, state, copy=True)(images))(state, images)
        )
        counts.append(text.count('prevent_cse=True'))
    assert counts == [0, len(pvt.CHANNELS) + (name == 'vgg16')]


def test_drop_path_grows_linearly_and_drops_whole_branches_of_images():
    encoder = empty_encoder('pvt_v2_b2', drop_path=0.3)
    rates = [block.drop_path for stage in encoder.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 16), atol=1e-15)
    dropped = np.asarray(pvt._drop(jnp.ones((2000, 2, 3, 4)), jax.random.key(0), 0.3))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (dropped == dropped[:, :1, :1, :1]).all()
    assert (dropped[:, 0, 0, 0] == 0).mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


@pytest.mark.slow
def test_drop_path_needs_a_key_and_training(monkeypatch):
    monkeypatch.setitem(pvt.DEPTHS, 'pvt_v2_b2', (1, 1, 1, 1))
    encoder = ENCODERS['pvt_v2_b2']('pvt_v2_b2', drop_path=0.5, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).standard_normal((4, 33, 33, 3)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(graph, state, key=None):
        return nnx.merge(graph, state, copy=True)(images, key)[-1]

    def last(key=None):
        return np.asarray(run(*nnx.split(encoder), key))

    keys, plain = jax.random.split(jax.random.key(0)), last()
    first, second = (last(key) for key in keys)
    np.testing.assert_array_equal(last(keys[0]), first)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, plain)
    encoder.eval()
    np.testing.assert_array_equal(last(keys[0]), plain)


@pytest.mark.parametrize('name', COMPILED)
def test_a_network_with_the_encoder_has_finite_logits_and_gradients(name):
    model = nnx.eval_shape(lambda: MSNet(name, rngs=nnx.Rngs(0)))
    draw = np.random.default_rng(0)

    def drawn(leaf):  # kernels by their fan-in, all others close to 1
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim > 1 else 0.1
        return jnp.asarray(draw.standard_normal(leaf.shape) * scale + (leaf.ndim == 1), leaf.dtype)

    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = jax.tree.map(drawn, (params, stats))
    images = jnp.asarray(draw.standard_normal((2, 33, 40, 3)), jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def run(params):
        return (nnx.merge(graph, params, stats, copy=True)(images) ** 2).mean()

    loss, gradients = run(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
