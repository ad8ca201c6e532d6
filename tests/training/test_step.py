"""The training step as a program: compiled once for each size, its state donated, equal on any number of devices."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax import LossNet, M2SNet
from m2snet_jax.models.losses import total_loss
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training.logs import Logs, Progress
from m2snet_jax.training.optimizer import sgd, triangular
from m2snet_jax.training.step import create_train_state, make_train_step

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')


def networks(dtype=jnp.float32, columns=5, encoder='res2net14'):
    precision = {'dtype': dtype, 'param_dtype': dtype}
    model = M2SNet(encoder, columns=columns, **precision, rngs=nnx.Rngs(0))
    return model, LossNet(size=32, **precision, rngs=nnx.Rngs(1))


def start(with_lossnet=True, dtype=jnp.float32, columns=5, encoder='res2net14', **options):
    optimizer, (model, lossnet) = sgd(triangular(0.01, 4, 1)), networks(dtype, columns, encoder)
    graph, state = create_train_state(model, optimizer)
    lossnet_graph, lossnet_params = nnx.split(lossnet) if with_lossnet else (None, None)
    return make_train_step(graph, optimizer, lossnet_graph, **options), state, lossnet_params


def batch(size=48, images=4):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((images, size, size, 3), np.float32)
    return {'image': jnp.asarray(image), 'mask': jnp.asarray(rng.random((images, size, size, 1)) > 0.7, jnp.float32)}


def test_one_compilation_a_size_and_the_state_is_donated():
    train_step, state, lossnet_params = start(columns=1, encoder='plain')
    kept = jax.tree.map(np.asarray, lossnet_params)
    for size in (40, 48, 40, 48, 40):
        before = state
        state, losses = train_step(state, lossnet_params, batch(), size)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert train_step._cache_size() == 2
    assert int(state.step) == 5
    assert set(losses) == {'loss', 'structure', 'lossnet'}
    assert float(losses['loss']) == pytest.approx(float(losses['structure'] + 0.1 * losses['lossnet']), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, lossnet_params, kept)


def scopes_of(lowered):
    """The names of the operations in a compiled program, one a line."""
    option = 'jax_compilation_cache_include_metadata_in_key'  # else the cache may hold a program with other names
    jax.config.update(option, True)
    try:
        text = lowered.compile().as_text()
    finally:
        jax.config.update(option, False)
    return '\n'.join(sorted(set(re.findall(r'op_name="([^"]*)"', text))))


@pytest.mark.slow
def test_compiled_programs_carry_the_names_of_the_modules():
    train_step, state, lossnet_params = start()
    names = scopes_of(train_step.lower(state, lossnet_params, batch(), 40))
    modules = (
        'encoder/conv1/0',
        'encoder/layer3/block0/conv1',
        'encoder/layer4/block0/convs/2',
        'reduction/3/conv',
        'pyramid/x5_x4/full_one_3/norm',
        'pyramid/x5_x4_x3_x2_x1/project/conv',
        'pyramid/x5_dem_4/norm',
        'enhancement/level1/norm',
        'output1',
    )
    for module in modules:
        assert f'/jvp(M2SNet)/{module}/' in names
        assert f'/transpose(jvp(M2SNet))/{module}/' in names
    assert '/jvp(loss)/structure_loss/' in names
    assert '/transpose(jvp(loss))/structure_loss/' in names
    assert '/jvp(loss)/lossnet/prediction/blocks/3/2/' in names
    assert '/transpose(jvp(loss))/lossnet/prediction/blocks/3/2/' in names
    assert '/jvp(loss)/lossnet/mask/blocks/3/2/' in names
    assert '/transpose(jvp(loss))/lossnet/mask/' not in names
    assert '/optimizer/' in names
    assert re.search(r'^jit\(train_step\)/(jvp\()?resize', names, re.MULTILINE)

    graph, weights = split_model(networks()[0])
    names = scopes_of(make_predict_step(graph).lower(weights, batch(40)['image']))
    assert all(f'M2SNet/{module}/' in names for module in modules)


def test_names_of_modules_leave_equal_models_equal():
    models = [nnx.eval_shape(lambda: M2SNet('res2net14', rngs=nnx.Rngs(0))) for _ in range(2)]
    graph, other, copied = (split_model(model)[0] for model in (*models, nnx.clone(models[0])))
    assert graph == other == copied
    assert hash(graph) == hash(other) == hash(copied)


@pytest.mark.slow
def test_sizes_are_made_on_the_device_by_bilinear_resize():
    train_step, state, lossnet_params = start(with_lossnet=False)
    whole = batch()
    resized = {
        key: jax.image.resize(value, (4, 40, 40, value.shape[-1]), 'bilinear', antialias=False)
        for key, value in whole.items()
    }
    copy = jax.tree.map(jnp.copy, state)
    _, on_device = train_step(state, lossnet_params, whole, 40)
    _, before = train_step(copy, lossnet_params, resized, None)
    assert float(on_device['loss']) == pytest.approx(float(before['loss']), rel=1e-4)


@pytest.mark.slow
def test_filters_keep_their_statistics_from_a_step_on():
    train_step, state, lossnet_params = start(with_lossnet=False, columns=2, freeze_shared_norms_at=1)
    means = []
    for _ in range(3):
        state, _ = train_step(state, lossnet_params, batch(), 40)
        filters, other = state.batch_stats['pyramid']['filters'], state.batch_stats['x5_dem_5']['norm']
        means.append(
            [float(filters[index]['norm']['mean'][...][0]) for index in range(2)] + [np.asarray(other['mean'])]
        )
    assert train_step._cache_size() == 1
    assert means[0][0] != 0
    assert means[0][:2] == means[1][:2] == means[2][:2]
    assert np.abs(means[1][2] - means[0][2]).max() > 0


@pytest.mark.slow
def test_parts_of_a_batch_give_the_mean_of_their_gradients(float64):
    """Each part meets batch norm by itself, and the running statistics follow one part after the other."""
    train_step, state, lossnet_params = start(dtype=jnp.float64, gradient_accumulation=2)
    whole, one_by_one, gradients, losses = batch(), state.batch_stats, [], []
    model, lossnet = networks(jnp.float64)
    graph, _ = create_train_state(model, sgd(triangular(0.01, 4, 1)))

    @jax.jit
    def gradient(params, batch_stats, images, mask):
        def loss_of(params):
            model = nnx.merge(graph, params, batch_stats, copy=True)
            return total_loss(model(images), mask, lossnet)[0], nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    for part in range(2):
        images, mask = whole['image'][part::2], whole['mask'][part::2]
        (loss, one_by_one), one = gradient(state.params, one_by_one, images, mask)
        losses.append(float(loss))
        gradients.append(one)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *gradients)
    rate = triangular(0.01, 4, 1)(0)
    # The first update: momentum starts at 0 and Nesterov counts the gradient once more.
    expected = jax.tree.map(lambda p, g: p - rate * 1.9 * (g + 5e-4 * p), state.params, mean)
    after, reported = train_step(state, lossnet_params, whole)
    assert float(reported['loss']) == pytest.approx(np.mean(losses), rel=1e-6)
    for found, truth in ((after.params, expected), (after.batch_stats, one_by_one)):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7 * float(jnp.abs(b).max()) + 1e-12)


@pytest.mark.slow
def test_stages_computed_again_change_no_value():
    """A barrier before each of the four stages stops compilers for accelerators from keeping its maps after all."""
    results, barriers = [], []
    for remat in (False, True):
        optimizer = sgd(triangular(0.01, 4, 1))
        model = M2SNet('res2net14', rngs=nnx.Rngs(0))
        model.encoder.remat = remat
        graph, state = create_train_state(model, optimizer)
        lowered = make_train_step(graph, optimizer).lower(state, None, batch())
        barriers.append(lowered.as_text().count('optimization_barrier'))
        state, losses = lowered.compile()(state, None, batch())
        results.append((float(losses['loss']), jax.tree.map(np.asarray, (state.params, state.batch_stats))))
    assert barriers[1] - barriers[0] == 4
    (loss, values), (loss_again, values_again) = results
    assert loss_again == pytest.approx(loss, rel=1e-5)
    for a, b in zip(jax.tree.leaves(values), jax.tree.leaves(values_again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max() + 1e-7)


@pytest.mark.slow
def test_averaged_weights_follow_the_steps():
    optimizer = sgd(triangular(0.01, 4, 1))
    graph, state = create_train_state(M2SNet('res2net14', rngs=nnx.Rngs(0)), optimizer, ema=True)
    train_step = make_train_step(graph, optimizer, ema=0.15)
    seen = [np.asarray(state.params['output1']['kernel'][...])]
    for _ in range(3):
        state, _ = train_step(state, None, batch(), 40)
        seen.append(np.asarray(state.params['output1']['kernel'][...]))
    expected = seen[0]
    for step, kernel in enumerate(seen[1:]):
        decay = min(0.15, (1 + step) / (10 + step))  # 0.1, then 0.15
        expected = decay * expected + (1 - decay) * kernel
    np.testing.assert_allclose(state.eval_weights.params['output1']['kernel'][...], expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected - seen[-1]).max() > 1e-6
    other = jax.tree.map(jnp.zeros_like, state.batch_stats)
    assert state.with_statistics(other).eval_weights.batch_stats is other
    assert state.with_statistics(other).batch_stats is state.batch_stats


ON_DEVICES = """
import jax, json, sys
import numpy as np
sys.path[:0] = ['.', 'tests', 'tests/training']
from m2snet_jax.devices.mesh import make_mesh, replicate, shard
import test_step
mesh = make_mesh()
train_step, state, lossnet_params = test_step.start()
state, lossnet_params = replicate((state, lossnet_params), mesh)
batch = shard(jax.tree.map(np.asarray, test_step.batch()), mesh)
losses = []
for _ in range(2):
    state, one = train_step(state, lossnet_params, batch, 40)
    if not losses:
        norms = [float(np.linalg.norm(np.asarray(leaf))) for leaf in jax.tree.leaves((state.params, state.batch_stats))]
    losses.append({key: float(value) for key, value in one.items()})
print(json.dumps({'devices': mesh.size, 'losses': losses, 'norms': norms}))
"""


@pytest.mark.slow
def test_four_devices_do_what_one_does():
    """To float32 rounding, which every update multiplies: batch norm sees the global batch on both."""
    results = []
    for count in (1, 4):
        environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(count), 'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run(
            [sys.executable, '-c', ON_DEVICES], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    one, four = results
    assert (one['devices'], four['devices']) == (1, 4)
    for key, value in one['losses'][0].items():
        assert four['losses'][0][key] == pytest.approx(value, rel=1e-5), key
    assert four['losses'][1]['loss'] == pytest.approx(one['losses'][1]['loss'], rel=2e-4)
    np.testing.assert_allclose(four['norms'], one['norms'], rtol=1e-3, atol=1e-5)


class Unread:
    """A loss that must not be looked at before its time."""

    def __array__(self, *args, **kwargs):
        raise AssertionError('the loss was fetched')

    __float__ = __array__


def test_losses_stay_on_the_device_until_they_are_reported(tmp_path):
    progress = Progress(Logs(tmp_path, tensorboard=False), batch=4, total=10, epoch_steps=5)
    progress.add(1, {'loss': Unread()})
    with pytest.raises(AssertionError, match='fetched'):
        progress.report()


def test_the_first_step_whose_loss_is_not_finite_is_named(tmp_path):
    progress = Progress(Logs(tmp_path, tensorboard=False), batch=4, total=10, epoch_steps=5)
    for step, loss in enumerate((1.0, 2.0, float('inf'), float('nan')), start=1):
        progress.add(step, {'loss': jnp.float32(loss)})
    with pytest.raises(FloatingPointError, match='loss is inf at step 3 of 10'):
        progress.check()


def test_reports_are_means_since_the_last_one(tmp_path):
    progress = Progress(Logs(tmp_path, tensorboard=False), batch=4, total=4, epoch_steps=2)
    for step, loss in enumerate((1.0, 2.0, 5.0, 7.0), start=1):
        progress.add(step, {'loss': jnp.float32(loss)})
        if step % 2 == 0:
            progress.report()
    rows = read_json_lines(tmp_path / 'metrics.jsonl')
    assert [(row['step'], row['loss'], row['epoch']) for row in rows] == [(2, 1.5, 1.0), (4, 6.0, 2.0)]
    assert all(row['images_per_second'] > 0 and 0 <= row['data_wait'] <= 1 for row in rows)


def test_logs_take_back_what_an_interrupted_run_wrote_too_much(tmp_path):
    logs = Logs(tmp_path, tensorboard=False)
    for step in (2, 4, 6):
        logs.write(step, {'loss': float(step)})
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 8, "lo')  # as a killed process leaves it
    Logs(tmp_path, 4, tensorboard=False).write(6, {'loss': 60.0})
    assert [(row['step'], row['loss']) for row in read_json_lines(tmp_path / 'metrics.jsonl')] == [
        (2, 2),
        (4, 4),
        (6, 60),
    ]
