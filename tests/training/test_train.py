"""Whole runs of a tiny model: what they leave, how they go on after being killed, and what they refuse."""

import html
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from compilation_cache import CACHE

from m2snet_jax import InputError, load_config, load_model, train_and_evaluate
from m2snet_jax.__main__ import main as run_command
from m2snet_jax.commands.train import main
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training import loop
from m2snet_jax.training.step import create_train_state
from m2snet_jax.weights.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures('compiled_quickly')

ROOT = Path(__file__).parents[2]
STEPS = 12
TINY = {
    'batch': 4,
    'steps': STEPS,
    'model.encoder': 'res2net14',
    'model.columns': 1,
    'loss.lossnet_size': 32,
    'optimizer.peak_lr': 0.01,
    'data.size': 48,
    'data.sizes': (40, 48),
    'data.count': 10,
    'data.test_count': 5,
    'log.every': 1,
    'log.images': 2,
    'checkpoint.every': 5,
    'evaluate.batch': 2,
}
ARGUMENTS = ['--config=quickstart', *(f'--config.{key}={value}' for key, value in TINY.items())]


@pytest.fixture(scope='module', autouse=True)
def _data_folder(tmp_path_factory):
    """Prepared data of this file's runs, apart from the user's."""
    before = os.environ.get('TFDS_DATA_DIR')
    os.environ['TFDS_DATA_DIR'] = str(tmp_path_factory.mktemp('tfds'))
    yield
    os.environ.pop('TFDS_DATA_DIR')
    if before is not None:
        os.environ['TFDS_DATA_DIR'] = before


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The folder and the scores of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    return workdir, train_and_evaluate(load_config('quickstart', **TINY), workdir)


def command(workdir):
    return [sys.executable, 'train.py', *ARGUMENTS, f'--workdir={workdir}']


def start(workdir):
    environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': os.path.abspath(CACHE)}
    return subprocess.Popen(command(workdir), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def final_state(workdir):
    """Every array of the last checkpoint: parameters, running statistics, momentum, step."""
    config = load_config('quickstart', **TINY)
    optimizer = loop.build_optimizer(config, STEPS, 3)
    _, like = create_train_state(loop.build_model(config), optimizer)
    checkpoints = Checkpoints(workdir / 'checkpoints')
    assert checkpoints.latest_step() == STEPS
    state = checkpoints.restore(like)
    checkpoints.close()
    return state


def assert_equal_runs(workdir, other):
    jax.tree.map(np.testing.assert_array_equal, final_state(workdir), final_state(other))
    logs = [read_json_lines(folder / 'metrics.jsonl') for folder in (workdir, other)]
    losses = [[(row['step'], row['loss']) for row in rows] for rows in logs]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, STEPS + 1))


def test_what_a_run_leaves(finished):
    workdir, scores = finished
    summary = json.loads((workdir / 'scores' / 'summary.json').read_text())
    assert summary['config']['data']['sizes'] == [40, 48]
    assert [line.partition(' ')[0] for line in summary['warnings']] == ['the', 'LossNet']  # encoder: random weights
    assert 0 <= scores['test/hard/Dice'] <= 1
    assert {f'test/hard/{name}' for name in ('Dice', 'IoU', 'MAE')} <= summary['scores'].keys()
    assert len(list((workdir / 'maps' / 'test').glob('*.png'))) == 5
    assert len(list((workdir / 'overlays' / 'test').glob('*.png'))) == 2
    assert list(workdir.glob('events.out.tfevents.*'))
    manifest = (workdir / 'manifest.csv').read_text().splitlines()
    assert len(manifest) == 1 + 15
    row = read_json_lines(workdir / 'metrics.jsonl')[-1]
    assert {'step', 'loss', 'structure', 'lossnet', 'images_per_second', 'data_wait'} <= row.keys()


def test_the_run_loads_for_prediction(finished):
    workdir, _ = finished
    example = open_dataset(load_config('quickstart', **TINY)).tests['test'][0]
    probability = load_model(workdir)(example['image'])
    assert probability.shape == example['mask'].shape
    assert probability.dtype == np.float32
    stored = next((workdir / 'maps' / 'test').glob(f'{example["name"]}.png'))
    from m2snet_jax.images.formats import read_mask

    assert np.abs(read_mask(stored) - probability * 255).max() < 2  # the file is cut to bytes before its resize


def test_random_weights_are_warned_of_wherever_the_run_is_scored(finished, tmp_path, capsys):
    workdir, _ = finished
    warnings = json.loads((workdir / 'scores' / 'summary.json').read_text())['warnings']
    assert run_command(['m2snet_jax', 'evaluate', f'--model={workdir}', f'--output={tmp_path}']) == 0
    out = capsys.readouterr().out
    assert json.loads((tmp_path / 'scores' / 'summary.json').read_text())['warnings'] == warnings
    for line in warnings:
        assert f'warning: {line}' in out
        for folder in (workdir, tmp_path):
            assert line in html.unescape((folder / 'report.html').read_text())


def test_a_finished_run_says_so_and_does_nothing(finished, capsys):
    workdir, scores = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*') if path.is_file()}
    again = train_and_evaluate(load_config('quickstart', **TINY), workdir)
    assert 'finished' in capsys.readouterr().err
    np.testing.assert_equal(again, scores)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*') if path.is_file()} == before


def test_a_run_goes_on_from_an_earlier_checkpoint_bit_for_bit(finished, tmp_path, capsys):
    workdir = tmp_path / 'run'
    shutil.copytree(finished[0], workdir, ignore=shutil.ignore_patterns('scores', 'maps', 'overlays', str(STEPS)))
    scores = train_and_evaluate(load_config('quickstart', **TINY), workdir)
    assert f'going on after step 10 of {STEPS}' in capsys.readouterr().err
    assert_equal_runs(workdir, finished[0])
    np.testing.assert_equal(scores, finished[1])


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_bit_for_bit(number, finished, tmp_path):
    workdir, when = tmp_path / 'killed', random.Random(int(number)).randrange(2, STEPS - 3)
    process = start(workdir)
    while len(read_json_lines(workdir / 'metrics.jsonl')) < when:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert 'is saved; the same command goes on from there' in errors
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (workdir / 'scores').exists()
    process = start(workdir)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_equal_runs(workdir, finished[0])


def test_another_config_is_refused_with_its_keys_named(finished):
    workdir, _ = finished
    other = load_config('quickstart', **{**TINY, 'seed': 7, 'batch': 2, 'log.every': 3})
    with pytest.raises(InputError) as caught:
        train_and_evaluate(other, workdir)
    message = str(caught.value)
    assert 'seed 0 → 7' in message
    assert 'batch 4 → 2' in message
    assert 'log.every' not in message
    assert f'--workdir={workdir}-2' in message


def test_other_data_are_refused(finished, monkeypatch):
    workdir, _ = finished
    config = load_config('quickstart', **TINY)
    dataset = open_dataset(config)
    object.__setattr__(dataset, 'manifest_hash', 'another')
    monkeypatch.setattr(loop, 'open_dataset', lambda config, counted: dataset)
    with pytest.raises(InputError, match='the data'):
        train_and_evaluate(config, workdir)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_good_checkpoints(tmp_path, capsys):
    workdir = tmp_path / 'run'
    extreme = [*ARGUMENTS, '--config.data.sizes=(48,)', '--config.loss.lossnet=0', '--config.optimizer.peak_lr=1e25']
    extreme += ['--config.checkpoint.every=1', '--config.log.every=50']
    assert main(['train', *extreme, f'--workdir={workdir}']) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: the loss is ')
    bad = int(error.partition('at step ')[2].split()[0])
    assert bad > 1
    checkpoints = Checkpoints(workdir / 'checkpoints')
    assert checkpoints.latest_step() == bad - 1
    checkpoints.close()
    assert not (workdir / 'scores').exists()


def test_training_starts_from_the_weights_of_another_run(finished):
    workdir, _ = finished
    model = loop.build_model(load_config('quickstart', **{**TINY, 'model.weights': str(workdir)}))
    trained = final_state(workdir)
    np.testing.assert_array_equal(model.output1.kernel[...], trained.params['output1']['kernel'][...])
    other = {'model.weights': str(workdir), 'model.name': 'msnet', 'model.columns': 2}
    with pytest.raises(
        InputError, match=r'the weights do not fit MSNet: they are of a network with columns=1, filters=\(\)'
    ):
        loop.build_model(load_config('quickstart', **{**TINY, **other}))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--config.nonsense=1'], '--config.nonsense'),
        (['--config.batch=3'], '--config.batch=3: must be divisible by the 2 devices'),
        (['--config.data.name=folder'], '--config.data.root is not set'),
        (['--config.data.name=folder', '--root=/nowhere'], '/nowhere: no such folder'),
        (['--config.data.sizes=(20,)'], 'the least side is 33'),
        (['--config.data.classes=3'], '--config.data.classes=3: phantoms have one class'),
        (['--config.model.weights=/nowhere.pth'], '/nowhere.pth: no such file'),
        (['--workdir=/dev/null/run'], '/dev/null is a file; name a folder'),
        (['--workdir=/proc/run'], '--workdir=/proc/run: cannot be made'),
        (['stray'], 'stray: not understood'),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    if 'divisible' in message:
        monkeypatch.setattr(loop, 'make_mesh', lambda: type('Mesh', (), {'size': 2}))
    workdir = [] if any(word.startswith('--workdir') for word in arguments) else [f'--workdir={tmp_path / "run"}']
    assert main(['train', *ARGUMENTS, *workdir, *arguments]) == 2
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert message in errors[0]
    assert output.out == ''
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('root', 'message'), [('{folder}', 'vgg16-397923af.pth'), ('/nowhere', '/nowhere: no such folder')]
)
def test_without_network_nothing_is_written_and_data_are_looked_at_first(root, message, tmp_path, monkeypatch, capsys):
    def offline(*arguments, **keywords):
        raise OSError('no network')

    monkeypatch.setattr('urllib.request.urlopen', offline)
    monkeypatch.setenv('M2SNET_JAX_CACHE', str(tmp_path / 'cache'))
    folder = tmp_path / 'data'
    for name in 'abcdef':
        write(folder / 'images' / f'{name}.png', np.full((40, 44, 3), 90))
        write(folder / 'masks' / f'{name}.png', np.pad(np.full((10, 10), 255), ((5, 25), (9, 25))))
    arguments = [f'--root={root.format(folder=folder)}', f'--workdir={tmp_path / "run"}', '--config.data.name=folder']
    assert main(['train', *ARGUMENTS, *arguments, '--config.loss.lossnet_weights=vgg16']) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.splitlines()[-1].endswith('--config.loss.lossnet_weights=none') == ('vgg16' in message)
    assert list(tmp_path.iterdir()) == [folder]


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        ('no mask', 'images/b.png'),
        ('no image', 'masks/c.png'),
        ('size', 'masks/b.png'),
        ('unreadable', 'images/b.png'),
        ('classes', 'masks/b.png'),
    ],
)
def test_bad_files_are_named(fault, message, tmp_path, capsys):
    root = tmp_path / 'data'
    for name in 'abdefg':
        write(root / 'images' / f'{name}.png', np.full((40, 44, 3), 90))
        write(root / 'masks' / f'{name}.png', np.pad(np.full((10, 10), 255), ((5, 25), (9, 25))))
    if fault == 'no mask':
        (root / 'masks' / 'b.png').unlink()
    elif fault == 'no image':
        write(root / 'masks' / 'c.png', np.zeros((40, 44)))
    elif fault == 'size':
        write(root / 'masks' / 'b.png', np.zeros((44, 40)))
    elif fault == 'unreadable':
        (root / 'images' / 'b.png').write_bytes((root / 'images' / 'b.png').read_bytes()[:60])
    elif fault == 'classes':
        write(root / 'masks' / 'b.png', np.full((40, 44), 3))
    workdir = tmp_path / 'run'
    arguments = ['--config.data.name=folder', f'--root={root}', f'--workdir={workdir}']
    assert main(['train', *ARGUMENTS, *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert message in errors[0]
    assert not workdir.exists()
