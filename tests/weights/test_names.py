"""PyTorch's names: written out from PyTorch's side, so that nothing of our table is used to check it."""

import re

import numpy as np
import pytest
from flax import nnx

from m2snet_jax import InputError, LossNet, M2SNet, MSNet
from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.weights import load_state_dict, state_dict
from m2snet_jax.weights.names import model_hash

NORM = ('weight', 'bias', 'running_mean', 'running_var')
KINDS = {
    'msnet': lambda: MSNet('res2net14', classes=3, rngs=nnx.Rngs(0)),
    'm2snet': lambda: M2SNet('res2net14', rngs=nnx.Rngs(0)),
    'res2net50': lambda: Res2Net('res2net50', rngs=nnx.Rngs(0)),
    'res2net101': lambda: Res2Net('res2net101', rngs=nnx.Rngs(0)),
    'lossnet': lambda: LossNet(rngs=nnx.Rngs(0)),
}


def without_values(kind):
    return nnx.eval_shape(KINDS[kind])


def shapes_of(model):
    """{PyTorch's name: shape}, by loading an empty dict and reading what is said to be missing, then misshapen."""
    with pytest.raises(InputError) as caught:
        load_state_dict(model, {})
    names = str(caught.value).partition('missing (')[2].removesuffix(')').split(', ')
    with pytest.raises(InputError) as caught:
        load_state_dict(model, dict.fromkeys(names, np.zeros(0)))
    found = re.findall(r'([\w.]+) is \(0,\), not \(([\d, ]*)\)', str(caught.value))
    return {name: tuple(int(side) for side in shape.split(',') if side) for name, shape in found}


def res2net_shapes(depths):
    """Names and shapes as timm's res2net50d and res2net101d have them, and the authors' v1b too: 26 channels × 4."""
    shapes = {'conv1.0.weight': (32, 3, 3, 3), 'conv1.3.weight': (32, 32, 3, 3), 'conv1.6.weight': (64, 32, 3, 3)}

    def norm(name, channels):
        shapes.update({f'{name}.{leaf}': (channels,) for leaf in NORM})

    for name, channels in (('conv1.1', 32), ('conv1.4', 32), ('bn1', 64)):
        norm(name, channels)
    before = 64
    for stage, (planes, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
        width = planes * 26 // 64
        for index in range(depth):
            block = f'layer{stage}.{index}'
            shapes[f'{block}.conv1.weight'] = (4 * width, before, 1, 1)
            norm(f'{block}.bn1', 4 * width)
            for group in range(3):
                shapes[f'{block}.convs.{group}.weight'] = (width, width, 3, 3)
                norm(f'{block}.bns.{group}', width)
            shapes[f'{block}.conv3.weight'] = (4 * planes, 4 * width, 1, 1)
            norm(f'{block}.bn3', 4 * planes)
            if index == 0:
                shapes[f'{block}.downsample.1.weight'] = (4 * planes, before, 1, 1)
                norm(f'{block}.downsample.2', 4 * planes)
            before = 4 * planes
    return shapes


@pytest.mark.parametrize(('kind', 'depths'), [('res2net50', (3, 4, 6, 3)), ('res2net101', (3, 4, 23, 3))])
def test_encoders_have_the_names_of_timm_and_of_the_authors(kind, depths):
    assert shapes_of(without_values(kind)) == res2net_shapes(depths)


def test_networks_have_the_names_of_the_released_program():
    units = (
        'x5_x4 x4_x3 x3_x2 x2_x1 x5_x4_x3 x4_x3_x2 x3_x2_x1 x5_x4_x3_x2 x4_x3_x2_x1 x5_x4_x3_x2_x1 '
        'level1 level2 level3 x5_dem_4 output2 output3 output4'
    )
    inputs = {name: 64 for name in units.split()}
    inputs |= {'x2_dem_1': 256, 'x3_dem_1': 512, 'x4_dem_1': 1024, 'x5_dem_1': 2048, 'x5_dem_5': 2048}
    expected = {f'resnet.{name}': shape for name, shape in res2net_shapes((1, 1, 1, 1)).items()}
    for name, channels in inputs.items():
        expected |= {f'{name}.0.weight': (64, channels, 3, 3), f'{name}.0.bias': (64,)}
        expected |= {f'{name}.1.{leaf}': (64,) for leaf in NORM}
    msnet = expected | {'output1.0.weight': (3, 64, 3, 3), 'output1.0.bias': (3,)}
    filters = {f'conv_{size}.norm.{leaf}': (64,) for size in (3, 5) for leaf in NORM}
    m2snet = expected | {'output1.0.weight': (1, 64, 3, 3), 'output1.0.bias': (1,)} | filters
    assert shapes_of(without_values('msnet')) == msnet
    assert shapes_of(without_values('m2snet')) == m2snet


def test_lossnet_has_the_names_of_vgg16():
    channels = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
    channels |= {17: (256, 512), 19: (512, 512), 21: (512, 512)}
    expected = {f'features.{index}.weight': (outer, inner, 3, 3) for index, (inner, outer) in channels.items()}
    expected |= {f'features.{index}.bias': (outer,) for index, (_, outer) in channels.items()}
    assert shapes_of(without_values('lossnet')) == expected


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=[pytest.mark.slow] if kind == 'res2net101' else []) for kind in KINDS]
)
def test_state_dict_of_load_state_dict_is_bit_for_bit_the_same(kind):
    """Every bit pattern that a float32 can have may stand in a file: random bits, so that NaNs are among them."""
    draw = np.random.default_rng(0)
    arrays = {
        name: draw.integers(0, 2**32, shape, np.uint32).view(np.float32)
        for name, shape in shapes_of(without_values(kind)).items()
    }
    loaded = load_state_dict(without_values(kind), arrays)
    again = state_dict(loaded)
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == np.float32
        assert again[name].tobytes() == array.tobytes(), name


def test_kernels_are_transposed_and_not_only_reshaped():
    model = without_values('m2snet')
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(model).items()}
    arrays['x3_dem_1.0.weight'][5, 7, 1, 2] = 1
    load_state_dict(model, arrays)
    kernel = np.asarray(model.reduction[1].conv.kernel[...])
    assert kernel[1, 2, 7, 5] == 1
    assert kernel.sum() == 1


MAY_BE_LEFT_OVER = {
    'res2net50': ['fc.weight', 'fc.bias', 'layer2.0.downsample.2.num_batches_tracked', 'bn1.num_batches_tracked'],
    'm2snet': ['resnet.fc.weight', 'resnet.fc.bias', 'conv_3.norm.num_batches_tracked', 'level1.1.num_batches_tracked'],
    'msnet': ['resnet.fc.weight', 'resnet.bn1.num_batches_tracked'],
    'lossnet': ['classifier.0.weight', 'classifier.6.bias', 'features.24.weight', 'features.28.bias'],
}
MAY_NOT = {
    'res2net50': ['resnet.fc.weight', 'layer5.0.bn1.num_batches_tracked', 'conv_3.weight', 'classifier.0.bias'],
    'm2snet': ['fc.weight', 'classifier.0.weight', 'features.24.weight', 'conv_7.weight', 'num_batches_tracked'],
    'msnet': ['conv_3.weight', 'conv_3.norm.num_batches_tracked'],
    'lossnet': ['features.22.weight', 'features.1.running_mean', 'fc.weight', 'features.0.num_batches_tracked'],
}


@pytest.mark.parametrize('kind', MAY_NOT)
def test_what_may_be_left_over_depends_on_the_model(kind):
    model = without_values(kind)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(model).items()}
    load_state_dict(without_values(kind), arrays | dict.fromkeys(MAY_BE_LEFT_OVER[kind], np.zeros(1)))
    with pytest.raises(InputError) as caught:
        load_state_dict(model, arrays | dict.fromkeys(MAY_NOT[kind], np.ones(1)))
    assert str(caught.value).endswith(f': {len(MAY_NOT[kind])} unexpected ({", ".join(MAY_NOT[kind])})')


@pytest.mark.parametrize('change', ['weight', 'bias', 'shape'])
def test_full_one_filters_are_checked(change):
    model = without_values('m2snet')
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(model).items()}
    filters = {'conv_5.weight': np.ones((64, 64, 5, 5), np.float32), 'conv_5.bias': np.zeros(64, np.float32)}
    load_state_dict(without_values('m2snet'), arrays | filters)
    if change == 'weight':
        filters['conv_5.weight'][63, 63, 4, 4] = 1 + 2**-23
    elif change == 'bias':
        filters['conv_5.bias'][0] = 1e-30
    else:
        filters['conv_5.weight'] = filters['conv_5.weight'][:, :, 1:]
    wrong = 'conv_5.bias' if change == 'bias' else 'conv_5.weight'
    with pytest.raises(InputError, match=rf'1 full-one filters that are not ones with zero bias \({wrong}\)'):
        load_state_dict(model, arrays | filters)


def test_hash_sees_every_value_and_every_name():
    model = KINDS['lossnet']()
    arrays, before = state_dict(model), model_hash(model)
    assert model_hash(load_state_dict(without_values('lossnet'), arrays)) == before
    changed = {name: array.copy() for name, array in arrays.items()}
    changed['features.21.weight'][511, 511, 2, 2] *= 1 + 2**-23
    assert model_hash(load_state_dict(without_values('lossnet'), changed)) != before
    moved = [{name: arrays[name] + 1} for name in ('features.0.bias', 'features.2.bias')]  # zeros both, before
    hashes = [model_hash(load_state_dict(without_values('lossnet'), arrays | one)) for one in moved]
    assert len({before, *hashes}) == 3
