"""The switches of the network against a pyramid written out from the paper's definition, and what there is to learn."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax import InputError, M2SNet, MSNet
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.folding import fold_batch_norms
from m2snet_jax.models.layers import resize
from m2snet_jax.weights import load_state_dict, state_dict

pytestmark = pytest.mark.usefixtures('compiled_quickly')

KEYS = ('columns', 'filters', 'operation', 'add_level')
# Every pair of values of two switches is in one of these, apart from add_level with one column.
COVERING = [
    (1, (), 'subtract', False),
    (1, (3,), 'add', False),
    (1, (3, 5, 7), 'concatenate', False),
    (2, (3, 5, 7), 'subtract', True),
    (2, (3,), 'concatenate', False),
    (2, (), 'add', False),
    (3, (3,), 'subtract', True),
    (3, (), 'concatenate', True),
    (3, (3, 5, 7), 'add', False),
    (4, (), 'subtract', False),
    (4, (3,), 'add', True),
    (4, (3, 5, 7), 'concatenate', True),
    (5, (3, 5, 7), 'subtract', False),
    (5, (), 'add', True),
    (5, (3,), 'concatenate', False),
]


@pytest.fixture(scope='module', autouse=True)
def _float64(plain_encoder):
    with jax.enable_x64(True):
        yield


def small(kind=M2SNet, **switches):
    """A network in evaluation mode whose norms all have other values than at the start."""
    model = kind('plain', **switches, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            shape = module.scale.shape
            module.scale[...], module.bias[...] = draw.uniform(0.5, 1.5, shape), draw.normal(0, 0.3, shape)
            module.mean[...], module.var[...] = draw.normal(0, 0.3, shape), draw.uniform(0.3, 3, shape)
    model.eval()
    return model


@pytest.fixture(scope='module', params=COVERING, ids=str)
def network(request):
    """Switches, and a network that has them."""
    switches = dict(zip(KEYS, request.param, strict=True))
    return switches, small(**switches)


def images():
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, 48, 48, 3)))


def test_the_combinations_cover_every_pair():
    values = [sorted({row[index] for row in COVERING}, key=str) for index in range(4)]
    for i, j in itertools.combinations(range(4), 2):
        found = {(row[i], row[j]) for row in COVERING}
        assert set(itertools.product(values[i], values[j])) - found <= {(1, True)}


def combined(unit, a, b, filters, operation):
    """A unit as the config describes it, of A and B."""
    pairs = [(a, b), *((full_one(a), full_one(b)) for full_one in filters)]
    if operation == 'concatenate':
        return unit.project(jnp.concatenate([one for pair in pairs for one in pair], -1))
    one_of = {'subtract': lambda a, b: jnp.abs(a - b), 'add': lambda a, b: a + b}[operation]
    return unit.project(sum(one_of(*pair) for pair in pairs))


def literal_logits(model, images, columns, filters, operation, add_level):
    """The network by the definition: column n + 1 of level i combines levels i + 1 and i of column n."""
    levels = dict(enumerate(model.encoder(images), start=1))
    x5 = levels[5]
    for level in range(2, 6 if columns > 1 else 5):
        levels[level] = model.reduction[level - 2](levels[level])
    outputs = {level: [] for level in range(1, 5)}
    column = levels
    for number in range(2, columns + 1):
        following = {}
        for level in range(6 - number, 0, -1):
            coarse = model.pyramid.x5_dem_4(column[level + 1]) if number == 5 else column[level + 1]
            name = '_'.join(f'x{one}' for one in range(level + number - 1, level - 1, -1))
            a = resize(coarse, *column[level].shape[1:3])
            following[level] = combined(model.pyramid.units[name], a, column[level], model.pyramid.filters, operation)
            outputs[level].append(following[level])
        column = following
    decoded = model.x5_dem_5(x5)
    for level in (4, 3, 2, 1):
        total = sum(outputs[level] + ([levels[level]] if add_level or columns == 1 else []))
        total = total if level == 4 else model.enhancement[f'level{level}'](total)
        decoded = getattr(model, f'output{level}')(resize(decoded, *total.shape[1:3]) + total)
    return resize(decoded, *images.shape[1:3])


def test_the_network_is_that_of_the_definition_and_folding_changes_nothing(network):
    switches, model = network
    truth = literal_logits(model, images(), **switches)
    for one in (model, fold_batch_norms(model)):
        np.testing.assert_allclose(one(images()), truth, rtol=0, atol=1e-12 * np.abs(truth).max())


def gradients_of(model, images):
    """A loss in training mode, and its gradients by PyTorch's names."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_of(params):
        model = nnx.merge(graph, params, rest, copy=True)
        model.train()
        logits = model(images)
        return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).mean()

    loss, found = jax.value_and_grad(loss_of)(params)
    arrays = state_dict(nnx.merge(graph, found, rest))
    return float(loss), {name: array for name, array in arrays.items() if 'running' not in name}


def test_every_parameter_is_learned(network):
    loss, gradients = gradients_of(network[1], images())
    assert np.isfinite(loss)
    assert all(np.isfinite(array).all() for array in gradients.values())
    largest = max(np.linalg.norm(array) for array in gradients.values())
    # A bias before a batch norm has gradient zero but for rounding, whatever the network.
    dead = {
        name
        for name, array in gradients.items()
        if np.linalg.norm(array) < 1e-6 * largest and not (name.endswith('.0.bias') and name != 'output1.0.bias')
    }
    assert dead == set()


def test_names_and_values_survive_a_round_trip(network):
    switches, model = network
    arrays = state_dict(model)
    empty = nnx.eval_shape(lambda: M2SNet('plain', **switches, param_dtype=jnp.float64, rngs=nnx.Rngs(1)))
    again = state_dict(load_state_dict(empty, arrays))
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    columns, filters = switches['columns'], switches['filters'] if switches['columns'] > 1 else ()
    units = {name.partition('.')[0] for name in arrays if re.match(r'x\d(_x\d)+\.', name)}
    assert len(units) == {1: 0, 2: 4, 3: 7, 4: 9, 5: 10}[columns]
    assert {name for name in arrays if name.startswith('conv_')} == {
        f'conv_{size}.norm.{leaf}' for size in filters for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    }
    inputs = 64 * 2 * (1 + len(filters)) if switches['operation'] == 'concatenate' else 64
    assert {arrays[f'{unit}.0.weight'].shape for unit in units} <= {(64, inputs, 3, 3)}
    assert ('x5_dem_1.0.weight' in arrays) == (columns > 1)
    assert ('x5_dem_4.0.weight' in arrays) == (columns == 5)


def test_a_smaller_pyramid_has_fewer_parameters():
    """A convolution of 64 to 64 channels with its norm has 37,056, the reduction of x5 here fewer."""

    def count(**switches):
        model = nnx.eval_shape(lambda: MSNet('plain', **switches, rngs=nnx.Rngs(0)))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    block, reduction = 64 * 64 * 9 + 3 * 64, 8 * 64 * 9 + 3 * 64
    counts = {columns: count(columns=columns) for columns in range(1, 6)}
    assert counts[4] == counts[5] - 2 * block
    assert counts[3] == counts[4] - 2 * block
    assert counts[2] == counts[3] - 3 * block
    assert counts[1] == counts[2] - 4 * block - reduction
    assert count(filters=(3, 5, 7)) == counts[5] + 3 * 2 * 64
    assert count(filters=(3, 5), columns=1) == counts[1]
    assert count(operation='add') == count(add_level=True) == counts[5]
    assert count(operation='concatenate', filters=(3,)) == counts[5] + 2 * 64 + 10 * 3 * 64 * 64 * 9


def test_without_filters_m2snet_is_msnet_and_with_them_msnet_is_m2snet():
    for switches, kind in (({'filters': ()}, MSNet), ({'filters': (3, 5)}, M2SNet)):
        other = M2SNet if kind is MSNet else MSNet
        mine, truth = small(other, **switches), small(kind)
        arrays, expected = state_dict(mine), state_dict(truth)
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        np.testing.assert_array_equal(mine(images()), truth(images()))


@pytest.mark.parametrize(
    ('switches', 'message'),
    [
        ({'columns': 0}, 'columns=0: must be from 1 to 5'),
        ({'columns': 6}, 'columns=6: must be from 1 to 5'),
        ({'filters': (3, 4)}, 'filters=(3, 4): 4 found, a size must be an odd number'),
        ({'filters': (-1,)}, 'filters=(-1,): -1 found'),
        ({'filters': (3.0,)}, 'filters=(3.0,): 3.0 found'),
        ({'filters': (3, 3)}, 'filters=(3, 3): name each size once'),
        ({'operation': 'multiply'}, 'operation=multiply: must be one of subtract, add, concatenate'),
        ({'add_level': True, 'columns': 1}, 'add_level=True: with columns=1'),
        ({'drop_path': 1.0}, 'drop_path=1.0: must be from 0 up to 1'),
        ({'drop_path': 0.1}, 'drop_path=0.1: res2net14 has no drop path'),
    ],
)
def test_switches_that_cannot_be_used_are_one_line(switches, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        M2SNet('res2net14', **switches, rngs=nnx.Rngs(0))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('other', 'shown'),
    [
        ({'columns': 3}, 'columns=3, filters=(3, 5), operation=subtract or add'),
        ({'columns': 1}, 'columns=1, filters=()'),
        ({'filters': (3,)}, 'columns=5, filters=(3,), operation=subtract or add'),
        ({'operation': 'concatenate'}, 'columns=5, filters=(3, 5), operation=concatenate'),
    ],
)
def test_weights_of_other_switches_are_one_line_that_names_both(other, shown):
    arrays = state_dict(M2SNet('plain', **other, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError) as caught:
        load_state_dict(nnx.eval_shape(lambda: M2SNet('plain', rngs=nnx.Rngs(0))), arrays)
    here = 'columns=5, filters=(3, 5), operation=subtract or add'
    start = f'the weights do not fit M2SNet: they are of a network with {shown}, and this one has {here}; '
    assert str(caught.value).startswith(start)
    assert '\n' not in str(caught.value)
