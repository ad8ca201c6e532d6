"""Studies that are run: what is trained, what is not trained again, and how a killed one goes on."""

import json
import random
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from study_files import study_of, variants, write_file, write_run
from tiny_runs import SETTINGS, losses, start_study

from m2snet_jax import InputError
from m2snet_jax.__main__ import main
from m2snet_jax.build import create_model
from m2snet_jax.config import load_config
from m2snet_jax.study import runner
from m2snet_jax.study.definition import base_config, cells_of, load_study
from m2snet_jax.training.optimizer import build_optimizer
from m2snet_jax.weights import load_weights

pytestmark = pytest.mark.usefixtures('compiled_quickly')

MEANS_ANEW = {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 2}


@pytest.fixture(autouse=True)
def _prepared(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))


@pytest.fixture
def trained(monkeypatch):
    """The folders of the runs that were started; each leaves what a finished run does, those of variant 'bad' fail."""
    started = []

    def train(config, folder):
        started.append('/'.join(folder.parts[-2:]))
        if folder.parent.name == 'bad':
            raise FloatingPointError('the loss is nan at step 3 of 8')
        cell = next(cell for cell in cells if cell.folder == folder)
        assert flat(cell.config) == flat(config)
        write_run(cell, [0.1 * len(started), 0.5])

    def remember(given, after=lambda: None):
        cells[:] = given
        return runner_run(given, after)

    def flat(config):
        return config.to_json()

    cells, runner_run = [], runner.run_study
    monkeypatch.setattr(runner, 'train_and_evaluate', train)
    monkeypatch.setattr(runner, 'run_study', remember)
    monkeypatch.setattr(runner, 'open_dataset', lambda config: type('Data', (), {'manifest_hash': 'x'}))
    return started


def test_runs_are_made_in_order_and_once(tmp_path, trained, capsys):
    mine = [*variants('a', 'b', seeds=(0, 1)), {'name': 'same', 'about': '', 'changes': {'batch': 2}, 'seeds': (0,)}]
    _, cells = study_of(tmp_path, mine)
    write_run(cells[1], [0.5, 0.5])
    seen = []
    assert runner.run_study(cells, lambda: seen.append(sum(cell.is_finished for cell in cells))) == []
    assert trained == ['a/seed0', 'b/seed0', 'b/seed1']
    assert seen == [3, 4, 5]
    err = capsys.readouterr().err
    assert 'run 1 of 4: a, seed 0 (1 of 4 runs finished, about 54 s of training left)' in err  # a log of 18 s
    assert '4 of 4 runs finished' in err
    assert runner.run_study(cells) == []
    assert len(trained) == 3


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, trained, capsys):
    mine = [
        *variants('first', 'bad'),
        {'name': 'after', 'about': '', 'weights_of': 'bad'},
        {'name': 'last', 'about': '', 'changes': {'batch': 7}},
    ]
    path = write_file(tmp_path, {'config': 'quickstart', 'about': '', 'variants': mine})
    assert main(['m2snet_jax', 'study', f'--config={path}', f'--workdir={tmp_path}/runs']) == 1
    assert trained == ['first/seed0', 'bad/seed0', 'last/seed0']
    captured = capsys.readouterr()
    assert 'error: bad, seed 0: the loss is nan at step 3 of 8' in captured.err
    assert 'error: after, seed 0: not run, because it starts from bad, seed 0' in captured.err
    assert '2 of 4 runs finished' in captured.out
    assert (tmp_path / 'runs/study.html').exists()
    assert json.loads((tmp_path / 'runs/study.json').read_text())['runs'] == {'finished': 2, 'all': 4}


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'data.name': 'folder', 'data.root': '/nowhere'}, 'x, seed 0: '),
        ({'model.weights': '/nowhere.pth'}, 'x, seed 0: /nowhere.pth: no such file'),
    ],
)
def test_everything_is_checked_before_anything_is_trained(tmp_path, capsys, monkeypatch, changes, words):
    monkeypatch.setattr(runner, 'train_and_evaluate', lambda *arguments: pytest.fail('trained'))
    mine = [{'name': 'first', 'about': '', 'changes': SETTINGS}, {'name': 'x', 'about': '', 'changes': changes}]
    path = write_file(tmp_path, {'config': 'quickstart', 'about': '', 'variants': mine})
    assert main(['m2snet_jax', 'study', f'--config={path}', f'--workdir={tmp_path}/runs']) == 2
    assert f'error: {words}' in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def test_other_data_are_refused(tmp_path, trained):
    _, cells = study_of(tmp_path, variants('a', 'b'))
    write_run(cells[0], [0.5])
    path = cells[0].folder / 'config.json'
    path.write_text(path.read_text().replace('"manifest_hash": "x"', '"manifest_hash": "y"'))
    with pytest.raises(InputError, match='was trained on other data'):
        runner.run_study(cells)
    assert not trained


def test_a_step_at_rate_0_keeps_weights_to_the_bit():
    config = load_config('busi:small', **MEANS_ANEW)
    rng = np.random.default_rng(0)
    params = {'encoder': {'conv1': jnp.asarray(rng.normal(size=1000), jnp.float32)}}
    optimizer = build_optimizer(config, 1, 61)
    updates, _ = optimizer.update(jax.tree.map(lambda p: 1e3 * p[::-1], params), optimizer.init(params), params)
    kept = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(kept['encoder']['conv1'], params['encoder']['conv1'])


@pytest.mark.slow
def test_weights_of_another_variant_are_kept_to_the_bit(tmp_path):
    mine = [
        {'name': 'first', 'about': ''},
        {'name': 'anew', 'about': '', 'weights_of': 'first', 'changes': MEANS_ANEW},
    ]
    _, cells = study_of(tmp_path, mine, changes=SETTINGS)
    assert runner.run_study(cells) == []
    states = []
    for cell in cells:
        model = load_weights(create_model('m2snet', 'res2net14', 1), cell.folder)
        states.append(nnx.split(model, nnx.Param, nnx.BatchStat)[1:])
    (params, statistics), (same, anew) = states
    jax.tree.map(np.testing.assert_array_equal, params, same)
    initial = nnx.state(create_model('m2snet', 'res2net14', 1, seed=0), nnx.Param)
    moved = [not np.array_equal(*pair) for pair in zip(jax.tree.leaves(initial), jax.tree.leaves(params), strict=True)]
    assert any(moved)  # the first was trained at all
    changed = [not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (statistics, anew)), strict=True)]
    assert all(changed)


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_with_the_same_table(tmp_path):
    mine = [
        {'name': 'first', 'about': ''},
        {'name': 'anew', 'about': '', 'weights_of': 'first', 'changes': MEANS_ANEW},
        {'name': 'last', 'about': '', 'changes': {'loss.bce': 'weighted'}},
    ]
    common = SETTINGS | {'model.name': 'msnet', 'steps': 20, 'checkpoint.every': 3, 'evaluate.bootstrap': 50}
    study = {'config': 'quickstart', 'about': '', 'seeds': (0, 1), 'changes': common, 'variants': mine}
    path = write_file(tmp_path, study)

    def figures(workdir):
        table = json.loads((workdir / 'study.json').read_text())
        for one in table['variants']:
            one.pop('seconds')
            one.pop('folders')
        return table

    whole = start_study(path, tmp_path / 'whole')
    assert '6 of 6 runs finished' in whole.communicate()[0]
    cells = cells_of(load_study(path), base_config(load_study(path)), tmp_path / 'killed')
    rng, kills = random.Random(time.time()), 0
    for goal in (cells[0], cells[1], cells[4]):  # in the first, after one, and amid the last variant
        log = goal.folder / 'metrics.jsonl'
        process = start_study(path, tmp_path / 'killed')
        while process.poll() is None and not (log.exists() and log.read_text().count('\n') >= 4):
            time.sleep(0.05)
        time.sleep(rng.random())
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills == 3
    assert not cells[-1].is_finished
    assert '6 of 6 runs finished' in start_study(path, tmp_path / 'killed').communicate()[0]
    assert figures(tmp_path / 'killed') == figures(tmp_path / 'whole')
    for cell in cells:
        whole_run = tmp_path / 'whole' / cell.folder.relative_to(tmp_path / 'killed')
        assert losses(cell.folder) == losses(whole_run)
