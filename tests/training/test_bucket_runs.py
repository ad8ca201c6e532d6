"""Runs whose folder is in a bucket: the same bits as on a disk, however they are interrupted."""

import csv
import json
import signal
import sys
import time
from pathlib import Path

import pytest
from bucket_server import failing_for

from m2snet_jax import load_config, load_model, storage, train_and_evaluate
from m2snet_jax.__main__ import main
from m2snet_jax.buckets import copies
from m2snet_jax.evaluation.sheets import read_summary
from m2snet_jax.weights.names import model_hash

sys.path.insert(0, str(Path(__file__).parents[1] / 'devices'))
import test_processes

pytestmark = [
    pytest.mark.usefixtures('compiled_quickly'),
    pytest.mark.filterwarnings('ignore::ResourceWarning'),  # of connections to the server of the tests
]
TINY = {
    'batch': 4,
    'steps': 2,
    'model.encoder': 'res2net14',
    'loss.lossnet': 0.0,
    'data.size': 48,
    'data.sizes': (48,),
    'data.count': 8,
    'data.test_count': 3,
    'log.every': 1,
    'checkpoint.every': 1,
    'evaluate.bootstrap': 20,
    'log.tensorboard': True,
}


def tiny(tmp_path, monkeypatch, **changes):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    return load_config('quickstart', **{**TINY, **changes})


def as_another_process(monkeypatch):
    monkeypatch.setattr(copies, 'state', copies.Copies())


def result(folder):
    """What identifies the result of a run: scores, hash of the model, bytes of its maps."""
    maps = {path.name: path.read_bytes() for path in (folder / 'maps' / 'test').glob('*.png')}
    assert maps
    scores = {name: repr(score) for name, score in read_summary(folder)['scores'].items()}  # NaN is not equal to itself
    return scores, model_hash(load_model(folder).model), maps


@pytest.mark.slow
def test_a_run_in_a_bucket_equals_one_on_a_disk(bucket, tmp_path, monkeypatch, capsys):
    config = tiny(tmp_path, monkeypatch)
    train_and_evaluate(config, tmp_path / 'run')
    train_and_evaluate(config, 'gs://bucket/run')
    names = set(bucket.names())
    local = {str(path.relative_to(tmp_path / 'run')) for path in (tmp_path / 'run').rglob('*') if path.is_file()}
    missing = {name for name in local if f'run/{name}' not in names and 'tfevents' not in name and 'ocdbt' not in name}
    assert not {name for name in missing if not name.startswith('checkpoints/')}, missing
    assert 'run/checkpoints/2/_CHECKPOINT_METADATA' in names
    assert any('tfevents' in name for name in names)
    assert 'run/writer.lock' not in names
    as_another_process(monkeypatch)
    copy = storage.local_path('gs://bucket/run')
    assert result(copy) == result(tmp_path / 'run')
    assert json.loads(bucket.read('run/config.json')) == json.loads((tmp_path / 'run' / 'config.json').read_text())
    as_another_process(monkeypatch)
    capsys.readouterr()
    train_and_evaluate(config, 'gs://bucket/run')
    assert 'gs://bucket/run: this run is finished' in capsys.readouterr().err
    assert main(['m2snet_jax', 'compare', 'gs://bucket/run', str(tmp_path / 'run'), '--resamples=20']) == 0
    assert main(['m2snet_jax', 'report', 'gs://bucket/run']) == 0
    arguments = ['--model=gs://bucket/run', '--output=gs://bucket/scores']
    assert main(['m2snet_jax', 'evaluate', *arguments]) == 0
    again = json.loads(bucket.read('scores/scores/summary.json'))
    assert again['scores'] == json.loads(bucket.read('run/scores/summary.json'))['scores']
    assert again['model'] == 'gs://bucket/run'


@pytest.mark.slow
def test_a_run_goes_on_from_the_bucket(bucket, tmp_path, monkeypatch, capsys):
    """The disk of the first computer is gone, and a save that did not end lies beside the last whole one."""
    config = tiny(tmp_path, monkeypatch)
    train_and_evaluate(config, tmp_path / 'run')
    train_and_evaluate(config, 'gs://bucket/run')
    for name in bucket.names():
        if name.startswith(('run/scores/', 'run/maps/')) or name == 'run/checkpoints/2/_CHECKPOINT_METADATA':
            bucket.storage.delete_file('bucket', name)
    as_another_process(monkeypatch)
    capsys.readouterr()
    bucket.fault = failing_for(1.5)
    train_and_evaluate(config, 'gs://bucket/run')
    assert 'gs://bucket/run: going on after step 1 of 2' in capsys.readouterr().err
    as_another_process(monkeypatch)
    assert result(storage.local_path('gs://bucket/run')) == result(tmp_path / 'run')


def wait_for(bucket, wanted, started, folder):
    deadline = time.monotonic() + 900
    while not wanted():
        assert all(process.poll() is None for process in started), (folder / 'stderr0.txt').read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize('moment', ['step', 'save', 'objects'])
def test_two_processes_killed_and_gone_on_with_one(moment, bucket, tmp_path):
    def start(workdir, processes, folder):
        folder.mkdir(exist_ok=True)
        arguments = [*test_processes.ARGUMENTS, '--config.steps=10', '--config.loss.lossnet=0', f'--workdir={workdir}']
        return test_processes.start(['train.py', *arguments], processes, 4, folder)

    def wait(started, folder):
        assert test_processes.finish(started) == [0] * len(started), (folder / 'stderr0.txt').read_text()

    disk, cloud = tmp_path / 'disk', tmp_path / 'cloud'
    wait(start(disk / 'run', 2, disk), disk)
    wait(start('gs://bucket/whole', 2, cloud), cloud)
    assert result(storage.local_path('gs://bucket/whole')) == result(disk / 'run')
    last = 'run/checkpoints/5/_CHECKPOINT_METADATA'
    if moment == 'objects':  # the last object of a checkpoint never comes
        bucket.fault = lambda method, name: 503 if name == last and method != 'GET' else None
    bucket.requests.clear()
    started = start('gs://bucket/run', 2, cloud)
    wanted = {
        'step': lambda: (
            (bucket.object('run/metrics.jsonl') or {}).get('size') and b'"step": 7' in bucket.read('run/metrics.jsonl')
        ),
        'save': lambda: any(name.startswith('run/checkpoints/5/') for name in bucket.names()),
        'objects': lambda: any(method != 'GET' and name == last for method, name in bucket.requests[::-1][:200]),
    }[moment]
    wait_for(bucket, wanted, started, cloud)
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()
    bucket.fault = lambda method, name: None
    wait(start('gs://bucket/run', 1, cloud), cloud)
    said = (cloud / 'stderr0.txt').read_text()
    assert 'its lock is taken over' in said
    assert ('going on after step 5' in said) == (moment == 'step'), said
    scores = [storage.local_path(f'gs://bucket/{name}') for name in ('run', 'whole')]
    found, expected = (read_summary(folder)['scores'] for folder in scores)
    assert found == pytest.approx(expected, abs=2e-4, nan_ok=True)


@pytest.mark.slow
def test_a_second_run_is_refused_while_the_first_one_lives(bucket, tmp_path):
    command = ['train.py', *test_processes.ARGUMENTS, '--config.loss.lossnet=0', '--workdir=gs://bucket/run']
    for name in ('first', 'second', 'third'):
        (tmp_path / name).mkdir()
    first = test_processes.start(command, 1, 1, tmp_path / 'first')
    wait_for(bucket, lambda: bucket.object('run/metrics.jsonl'), first, tmp_path / 'first')
    assert test_processes.finish(test_processes.start(command, 1, 1, tmp_path / 'second')) == [2]
    assert 'locked by process' in (tmp_path / 'second' / 'stderr0.txt').read_text()
    first[0].kill()
    first[0].wait()
    assert test_processes.finish(test_processes.start(command, 1, 1, tmp_path / 'third')) == [0]


def test_data_in_a_bucket_are_fetched_once(bucket, tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    for index in range(200):
        image = np.full((40, 40, 3), index, np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[:20] = 255
        for kind, pixels in (('images', image), ('masks', mask)):
            path = tmp_path / 'set' / kind / f'{index:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            bucket.put(f'set/{kind}/{path.name}', path.read_bytes())
    from m2snet_jax.data.datasets import open_dataset

    keys = {'data.name': 'folder', 'data.folds': 5, 'data.fold': 0}
    manifests = []
    for number, root in enumerate((tmp_path / 'set', 'gs://bucket/set', 'gs://bucket/set')):
        as_another_process(monkeypatch)
        bucket.requests.clear()
        dataset = open_dataset(load_config('default', **keys, **{'data.root': str(root)}))
        manifests.append(dataset.manifest_path.read_bytes())
        fetched = [name for method, name in bucket.requests if method == 'GET' and name.endswith('.png')]
        assert len(fetched) == (400 if number == 1 else 0)
    assert manifests[0] == manifests[1] == manifests[2]
    assert len(list(csv.reader(manifests[0].decode().splitlines()))) == 201
