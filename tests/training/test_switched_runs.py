"""Networks of other switches through training, checkpoints, prediction, export and the pages of a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_models import SETTINGS

from m2snet_jax import M2SNet, load_config, load_model, train_and_evaluate
from m2snet_jax.__main__ import main
from m2snet_jax.report.features import pyramid
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training.optimizer import build_optimizer
from m2snet_jax.training.step import create_train_state, make_train_step
from m2snet_jax.weights.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')

ADAMW = {
    'optimizer.name': 'adamw', 'optimizer.schedule': 'cosine', 'optimizer.warmup': 1.0, 'optimizer.peak_lr': 3e-4,
    'optimizer.clip': 0.5,
}  # fmt: skip
# Every pair of values of two switches is in one of these, apart from add_level with one column.
RUNS = [
    {'model.columns': 1, 'model.filters': (), 'data.normalisation': 'imagenet'},
    {'model.columns': 1, 'model.filters': (3,), 'model.operation': 'concatenate', **ADAMW},
    {'model.columns': 2, 'model.filters': (3, 5, 7), 'model.add_level': True},
    {'model.columns': 2, 'model.filters': (3,), 'model.operation': 'concatenate', 'data.normalisation': 'imagenet'},
    {'model.columns': 2, 'model.filters': (), 'model.operation': 'add', **ADAMW},
    {'model.columns': 3, 'model.filters': (3,), 'model.add_level': True, **ADAMW},
    {'model.columns': 3, 'model.filters': (), 'model.operation': 'concatenate', 'model.add_level': True},
    {'model.columns': 3, 'model.filters': (3, 5, 7), 'model.operation': 'add', 'data.normalisation': 'imagenet'},
    {'model.columns': 4, 'model.filters': (), 'data.normalisation': 'imagenet', **ADAMW},
    {'model.columns': 4, 'model.filters': (3,), 'model.operation': 'add', 'model.add_level': True},
    {'model.columns': 4, 'model.filters': (3, 5, 7), 'model.operation': 'concatenate', 'model.add_level': True},
    {'model.columns': 5, 'model.filters': (3, 5, 7), **ADAMW},
    {'model.columns': 5, 'model.filters': (), 'model.operation': 'add', 'model.add_level': True},
    {'model.columns': 5, 'model.filters': (3,), 'model.operation': 'concatenate', 'data.normalisation': 'imagenet'},
]


def batch(images=2, size=48):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.standard_normal((images, size, size, 3)), jnp.float32)
    return {'image': image, 'mask': jnp.asarray(rng.random((images, size, size, 1)) > 0.7, jnp.float32)}


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    """Two steps, a checkpoint and a third, and the third step again from the checkpoint."""
    config = load_config('quickstart', **ADAMW)
    optimizer = build_optimizer(config, 12, 4)
    switches = {'columns': 2, 'filters': (3,), 'operation': 'concatenate', 'add_level': True}

    def new(seed):
        return create_train_state(M2SNet('plain', **switches, rngs=nnx.Rngs(seed)), optimizer)

    graph, state = new(0)
    train_step = make_train_step(graph, optimizer)
    for _ in range(2):
        state, _ = train_step(state, None, batch())
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    checkpoints.save(2, state)
    checkpoints.close()
    truth, losses = train_step(state, None, batch())
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    state = checkpoints.restore(new(1)[1])
    checkpoints.close()
    found, again = train_step(state, None, batch())
    assert float(again['loss']) == float(losses['loss'])
    jax.tree.map(np.testing.assert_array_equal, found, truth)


@pytest.mark.slow
@pytest.mark.parametrize('changes', RUNS, ids=str)
def test_a_run_learns_and_is_scored_predicted_drawn_and_exported(changes, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    settings = {**SETTINGS, 'steps': 60, 'batch': 4, 'data.sizes': (48,), 'loss.lossnet': 0.0, 'log.every': 10}
    config = load_config('quickstart', **{**settings, **changes})
    run = tmp_path / 'run'
    scores = train_and_evaluate(config, run)
    losses = [row['loss'] for row in read_json_lines(run / 'metrics.jsonl') if 'loss' in row]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert 0 <= scores['test/hard/Dice'] <= 1
    predictor = load_model(run)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert predictor(image).shape == (40, 50)
    pyramid(predictor, image, 20)
    card = (run / 'model_card.md').read_text()
    for key, value in changes.items():
        if key in ('model.columns', 'model.operation', 'model.add_level') and value not in (5, 'subtract', False):
            assert f'`{key}` {value}' in card
    assert (run / 'report.html').exists()
    target = tmp_path / 'model.stablehlo'
    assert main(['', 'export', f'--model={run}', f'--output={target}']) == 0
    about = json.loads(target.with_name('model.stablehlo.json').read_text())
    assert about['columns'] == changes['model.columns']
    assert main(['', 'train', '--config=quickstart', f'--workdir={run}', *arguments({**settings, **changes})]) == 0
    assert 'this run is finished' in capsys.readouterr().err


def arguments(settings):
    return [f'--config.{key}={value}' for key, value in settings.items()]
