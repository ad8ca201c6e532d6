"""The networks as wholes: sizes, dtypes, arithmetic, and the names of their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_cases import CLASSES, SHAPES

from m2snet_jax import InputError, LossNet, M2SNet, MSNet
from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.weights import load_state_dict, state_dict

pytestmark = pytest.mark.usefixtures('compiled_quickly')


def run(model, images):
    """The model's output in training mode, compiled as a whole."""
    graph, state = nnx.split(model)
    return jax.jit(lambda state, images: nnx.merge(graph, state, copy=True)(images))(state, images)


def small(kind=M2SNet, **kwargs):
    return kind('res2net14', **kwargs, rngs=nnx.Rngs(0))


@pytest.mark.parametrize('kind', [pytest.param(MSNet, marks=pytest.mark.slow), M2SNet])
@pytest.mark.parametrize(
    'size', [(33, 47), *(pytest.param(size, marks=pytest.mark.slow) for size in ((33, 33), (47, 64)))]
)
def test_every_size_from_33_up(kind, size):
    model, images = small(kind, classes=2), jnp.ones((2, *size, 3))
    logits = run(model, images)
    assert logits.shape == (2, *size, 2)
    assert np.isfinite(logits).all()


def test_levels_have_the_sizes_of_the_paper():
    levels = run(Res2Net('res2net14', rngs=nnx.Rngs(0)), jnp.ones((1, 65, 97, 3)))
    assert [level.shape[1:] for level in levels] == [
        (17, 25, 64),
        (17, 25, 256),
        (9, 13, 512),
        (5, 7, 1024),
        (3, 4, 2048),
    ]


@pytest.mark.slow
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    model = small(dtype=jnp.bfloat16)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 3)), jnp.float32)
    logits = run(model, images)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype('float32')}
    assert model.encoder.layer1[0].conv1(jnp.ones((1, 4, 4, 64))).dtype == jnp.bfloat16
    exact = run(small(), images)
    assert 0 < np.abs(logits - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.slow
def test_full_one_filters_cost_next_to_nothing():
    """The compiler's own count for the whole networks at 256×256 (as released: 17.5 against 8.9 GMAC)."""

    def flops(kind):
        model = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
        model.eval()
        graph, state = nnx.split(model)
        images = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
        lowered = jax.jit(lambda state, images: nnx.merge(graph, state)(images)).lower(state, images)
        return lowered.cost_analysis()['flops']

    ratio = flops(M2SNet) / flops(MSNet)
    print(f'FLOPs of M2SNet over MSNet at 256: {ratio:.4f}')
    assert 1 < ratio <= 1.02


@pytest.mark.parametrize('encoder', ['res2net50', pytest.param('res2net101', marks=pytest.mark.slow)])
def test_state_dict_round_trip_and_names(encoder):
    model = nnx.eval_shape(lambda: M2SNet(encoder, rngs=nnx.Rngs(0)))
    fill = np.random.default_rng(0)
    filled = jax.tree.map(lambda leaf: jnp.asarray(fill.standard_normal(leaf.shape), leaf.dtype), nnx.state(model))
    nnx.update(model, filled)
    arrays = state_dict(model)
    if encoder == 'res2net50':
        known = {name for name in SHAPES['m2snet'] if not name.startswith('resnet.fc.')}
        assert arrays.keys() == {name for name in known if not name.endswith('num_batches_tracked')}
    else:
        assert sum(name.startswith('resnet.layer3.') and name.endswith('conv1.weight') for name in arrays) == 23
    other = load_state_dict(nnx.clone(model), {name: np.zeros_like(array) for name, array in arrays.items()})
    again = state_dict(load_state_dict(other, arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_encoder_and_lossnet_take_imagenet_names():
    encoder = Res2Net('res2net14', rngs=nnx.Rngs(0))
    arrays = {**state_dict(encoder), 'fc.weight': np.zeros((1000, 2048)), 'bn1.num_batches_tracked': np.array(3)}
    assert {'conv1.0.weight', 'bn1.running_var', 'layer1.0.downsample.1.weight'} < arrays.keys()
    load_state_dict(encoder, arrays)
    lossnet = LossNet(rngs=nnx.Rngs(0))
    wanted = {name for name in SHAPES['vgg16'] if int(name.split('.')[1]) <= 21}
    assert state_dict(lossnet).keys() == wanted
    load_state_dict(
        lossnet, {**state_dict(lossnet), 'features.24.weight': np.zeros(1), 'classifier.0.bias': np.ones(1)}
    )


def test_state_dicts_that_do_not_fit_are_one_error_and_change_nothing():
    model = small()
    arrays, before = state_dict(model), nnx.state(model)
    broken = {name: array for name, array in arrays.items() if name != 'x5_dem_1.1.bias'}
    broken['output1.0.weight'] = broken['output1.0.weight'][:, :3]
    broken['level1.0.bias'] = broken['level1.0.bias'] + 1
    broken['head.weight'] = np.zeros(3)
    broken['conv_3.weight'] = np.full((64, 64, 3, 3), 2.0)
    with pytest.raises(InputError) as caught:
        load_state_dict(model, broken)
    message = str(caught.value)
    for part in (
        '1 missing (x5_dem_1.1.bias)',
        '1 misshapen (output1.0.weight is (1, 3, 3, 3), not (1, 64, 3, 3))',
        '1 unexpected (head.weight)',
        '1 full-one filters that are not ones with zero bias (conv_3.weight)',
    ):
        assert part in message
    assert '\n' not in message
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)


def test_constant_filters_and_counters_may_be_left_over():
    arrays = state_dict(small())
    for size in (3, 5):
        arrays[f'conv_{size}.weight'] = np.ones((64, 64, size, size))
        arrays[f'conv_{size}.bias'] = np.zeros(64)
        arrays[f'conv_{size}.norm.num_batches_tracked'] = np.array(7)
    load_state_dict(small(), arrays)


@pytest.mark.parametrize('name', CLASSES)
def test_state_dict_reads_gradients_too(name):
    model = small(CLASSES[name])
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    doubled = state_dict(nnx.merge(graph, jax.tree.map(lambda value: value * 2, params), rest))
    np.testing.assert_array_equal(doubled['x5_dem_5.0.weight'], state_dict(model)['x5_dem_5.0.weight'] * 2)
