"""The encoders against golden values of torchvision's and timm's modules in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden import seeded
from golden_cases import FOLDER, projection_errors, relative_error

from m2snet_jax import InputError, LossNet, M2SNet
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.weights import load_state_dict, state_dict

EXACT = 1e-9
NEW = ('resnet50', 'vgg16', 'pvt_v2_b2')


class Golden:
    """The truths of one encoder, and its seeded weights and images."""

    def __init__(self, name):
        self.name = name
        self.values = json.loads((FOLDER / 'encoders' / f'{name}_golden.json').read_text())
        self.arrays = dict(np.load(FOLDER / 'encoders' / f'{name}_golden.npz'))
        self.seed, self.sizes = self.values['seed'], self.values['sizes']
        prefix = 'vgg16/' if name == 'vgg16' else ''
        learned = [key for key in self.values['shapes'] if not key.endswith(('running_mean', 'running_var', 'tracked'))]
        self.weights = {
            key: seeded.tensor(prefix + key, self.values['shapes'][key], self.seed).astype(np.float64)
            for key in learned
        }
        buffers = FOLDER / 'encoders' / f'{name}_buffers.npz'
        self.buffers = dict(np.load(buffers)) if buffers.exists() else {}

    def encoder(self, dtype=jnp.float64, param_dtype=jnp.float64):
        encoder = empty_encoder(self.name, dtype=dtype, param_dtype=param_dtype)
        return load_state_dict(encoder, self.weights | self.buffers)

    def images(self, tag, size):
        return jnp.asarray(seeded.images(tag, *size, self.seed).transpose(0, 2, 3, 1), jnp.float64)


def empty_encoder(name, **options):
    return nnx.eval_shape(lambda: ENCODERS[name](name, **options, rngs=nnx.Rngs(0)))


def maps_of(encoder, images):
    graph, state = nnx.split(encoder)
    return jax.jit(lambda state, images: nnx.merge(graph, state, copy=True)(images))(state, images)


def torch_layout(maps):
    return {f'x{number}': np.asarray(one).transpose(0, 3, 1, 2) for number, one in enumerate(maps, start=1)}


def map_errors(golden, prefix, maps):
    """The error of each map by its mean, norm and projection, relative to its norm, and of those stored whole."""
    errors = {}
    for name, one in torch_layout(maps).items():
        truth = golden.values['summary'][f'{prefix}_{name}']
        direction = seeded.direction(f'{prefix}_{name}', one.shape, golden.seed)
        found = one.mean(), np.linalg.norm(one), np.vdot(one, direction)
        errors[name] = np.abs(np.subtract(found, truth)).max() / truth[1]
        if f'{prefix}_{name}' in golden.arrays:
            errors[f'{name} whole'] = relative_error(one, golden.arrays[f'{prefix}_{name}'])
    return errors


@pytest.mark.parametrize(
    ('name', 'index'),
    [
        ('resnet50', 0),
        ('vgg16', 0),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (('pvt_v2_b2', 0), *((name, 1) for name in NEW))),
    ],
)
def test_maps_are_those_of_pytorch(name, index, float64):
    golden = Golden(name)
    size = golden.sizes['eval'][index]
    encoder = golden.encoder()
    encoder.eval()
    maps = maps_of(encoder, golden.images(f'eval{size[1]}x{size[2]}', size))
    assert [one.shape[-1] for one in maps] == golden.values['channels'] == list(ENCODERS[name].channels)
    errors = map_errors(golden, f'eval_{"x".join(map(str, size))}', maps)
    print(name, errors)
    assert max(errors.values()) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet50', 'pvt_v2_b2'])
def test_maps_and_gradients_in_training_are_those_of_pytorch(name, float64):
    golden = Golden(name)
    images = golden.images('train', golden.sizes['train'])
    graph, params, stats = nnx.split(golden.encoder(), nnx.Param, nnx.BatchStat)

    def loss_of(params):
        encoder = nnx.merge(graph, params, stats, copy=True)
        maps = encoder(images)
        total = 0
        for number, one in enumerate(maps, start=1):
            batch, height, width, channels = one.shape
            direction = seeded.direction(f'x{number}', (batch, channels, height, width), golden.seed)
            total += (one * direction.transpose(0, 2, 3, 1)).sum() / one.size
        return total, maps

    (loss, maps), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    assert float(loss) == pytest.approx(golden.values['loss'], rel=EXACT)
    errors = map_errors(golden, 'train', maps)
    assert max(errors.values()) <= EXACT, errors
    errors = projection_errors(state_dict(nnx.merge(graph, gradients, stats)), golden.values['grads'])
    worst = max(errors, key=errors.get)
    print(f'{name}: worst of {len(errors)} is {worst}, {errors[worst]:.1e}')
    assert errors.keys() == golden.weights.keys()
    assert errors[worst] <= EXACT


@pytest.fixture(scope='module')
def empty():
    """{name: encoder without values} of the new encoders."""
    return {name: empty_encoder(name) for name in NEW}


@pytest.mark.parametrize(
    ('name', 'count'), [('resnet50', 23_508_032), ('vgg16', 14_714_688), ('pvt_v2_b2', 24_849_856)]
)
def test_names_shapes_and_parameters_are_those_of_pytorch(name, count, empty):
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(empty[name], nnx.Param))) == count
    shapes = {key: tuple(shape) for key, shape in Golden(name).values['shapes'].items() if not key.endswith('tracked')}
    draw = np.random.default_rng(0)
    arrays = {key: draw.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    again = state_dict(load_state_dict(empty[name], arrays))
    assert again.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)


CLASSIFIERS = {
    'resnet50': ['fc.weight', 'fc.bias', 'bn1.num_batches_tracked', 'layer4.0.downsample.1.num_batches_tracked'],
    'vgg16': ['classifier.0.weight', 'classifier.6.bias', 'pre_logits.fc1.weight', 'head.fc.bias'],
    'pvt_v2_b2': ['head.weight', 'head.bias'],
}


@pytest.mark.parametrize('name', NEW)
def test_classifiers_may_be_left_over_and_nothing_else(name, empty):
    arrays = Golden(name).weights | Golden(name).buffers
    load_state_dict(empty[name], arrays | dict.fromkeys(CLASSIFIERS[name], np.zeros(1)))
    with pytest.raises(InputError, match=r'1 unexpected \(heads\.weight\)'):
        load_state_dict(empty[name], arrays | {'heads.weight': np.zeros(1)})


@pytest.mark.parametrize('whole', [pytest.param(False, marks=pytest.mark.slow), True])
def test_weights_of_another_encoder_are_named(whole, empty):
    arrays = Golden('resnet50').weights | Golden('resnet50').buffers
    model = nnx.eval_shape(lambda: M2SNet('res2net101', rngs=nnx.Rngs(0)))
    model, arrays = (
        (model, {f'resnet.{key}': array for key, array in arrays.items()}) if whole else (model.encoder, arrays)
    )
    with pytest.raises(InputError) as caught:
        load_state_dict(model, arrays)
    kind = 'M2SNet' if whole else 'Res2Net'
    message = f'the weights do not fit {kind}: they are those of the encoder resnet50; the encoder here is res2net101'
    assert str(caught.value).startswith(f'{message}; ')
    assert len(str(caught.value)) < 200


@pytest.mark.slow
def test_one_vgg_file_fits_encoder_and_lossnet(empty):
    arrays = Golden('vgg16').weights | {'classifier.0.weight': np.zeros(1)}
    lossnet = load_state_dict(LossNet(rngs=nnx.Rngs(0)), arrays)
    encoder = load_state_dict(empty['vgg16'], arrays)
    np.testing.assert_array_equal(lossnet.blocks[3][2].kernel[...], encoder.blocks[3][2].kernel[...])
