"""Several processes on one machine as stand-ins for hosts: they meet, share the work, and end together."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from compilation_cache import CACHE

from m2snet_jax.devices import processes
from m2snet_jax.devices.processes import ADDRESS, COUNT, INDEX
from m2snet_jax.evaluation.sheets import read_summary
from m2snet_jax.storage import read_json_lines

pytestmark = pytest.mark.usefixtures('compiled_quickly')

ROOT = Path(__file__).parents[2]
STEPS = 20
# At the recipe's rate each update of a fresh network multiplies rounding by up to a thousand, so that after twenty
# steps any two orders of summation differ; at this one what is left is rounding.
RUN = {
    'batch': 8,
    'steps': STEPS,
    'optimizer.peak_lr': 1e-5,
    'loss.lossnet_size': 32,
    'data.size': 64,
    'data.sizes': (56, 64),
    'data.count': 18,
    'data.test_count': 7,
    'data.validation': 5.0,
    'log.every': 1,
    'log.tensorboard': False,
    'checkpoint.every': 5,
    'evaluate.batch': 4,
}
ARGUMENTS = ['--config=quickstart', *(f'--config.{key}={value}' for key, value in RUN.items())]


def start(command, processes, devices, folder):
    """Starts a command in several processes, the devices shared out evenly."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    started = []
    for index in range(processes):
        environment = {
            **os.environ,
            'JAX_PLATFORMS': 'cpu',
            'JAX_NUM_CPU_DEVICES': str(devices // processes),
            'JAX_COMPILATION_CACHE_DIR': os.path.abspath(CACHE),
            'TFDS_DATA_DIR': str(folder / 'tfds'),
        }
        if processes > 1:
            environment |= {ADDRESS: address, COUNT: str(processes), INDEX: str(index)}
        out, err = folder / f'stdout{index}.txt', folder / f'stderr{index}.txt'
        with out.open('w') as stdout, err.open('w') as stderr:
            program = [sys.executable, *command]
            started.append(subprocess.Popen(program, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr))
    return started


def finish(started, seconds=600):
    return [process.wait(timeout=seconds) for process in started]


def train(workdir, processes, devices, folder):
    return start(['train.py', *ARGUMENTS, f'--workdir={workdir}'], processes, devices, folder)


MEETING = """
import json, sys
import jax
import numpy as np
from m2snet_jax import load_config
from m2snet_jax.devices import processes
from m2snet_jax.devices.mesh import make_mesh, own_rows, shard
from m2snet_jax.data.pipeline import eval_batches
processes.join()
mesh = make_mesh()
index, count = jax.process_index(), jax.process_count()
everything = processes.gather({'index': index, 'text': 'x' * (10 + 1000 * index)})
rows = own_rows(shard(np.arange(4) + 4 * index, mesh) * 2)
class Source:
    def __len__(self): return 7
    def __getitem__(self, k):
        return {'name': str(k), 'image': np.full((40, 40, 3), k, np.uint8), 'mask': np.zeros((40, 40), np.uint8)}
config = load_config('quickstart', **{'data.size': 40, 'evaluate.batch': 3})
batches = [[example['name'] for example in examples] + [images.shape[0]]
           for examples, images in eval_batches(Source(), config, mesh.size, index, count)]
print('found', json.dumps({'devices': mesh.size, 'first': processes.is_primary(), 'rows': rows.tolist(),
      'batches': batches, 'gathered': [[one['index'], len(one['text'])] for one in everything]}))
"""


def test_processes_meet_gather_and_share_examples(tmp_path):
    started = start(['-c', MEETING], 2, 4, tmp_path)
    assert finish(started, 200) == [0, 0], (tmp_path / 'stderr0.txt').read_text()
    found = [
        json.loads(next(line for line in (tmp_path / f'stdout{k}.txt').read_text().splitlines() if 'found' in line)[6:])
        for k in range(2)
    ]
    assert [one['devices'] for one in found] == [4, 4]
    assert [one['first'] for one in found] == [True, False]
    assert [one['rows'] for one in found] == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert all(one['gathered'] == [[0, 10], [1, 1010]] for one in found)
    # Four rows a batch over all, two for each process, and as many batches for both.
    assert found[0]['batches'] == [['0', '2', 2], ['4', '6', 2]]
    assert found[1]['batches'] == [['1', '3', 2], ['5', 2]]


COMPILING = """
import sys
import jax
import numpy as np
from m2snet_jax.devices import processes
from m2snet_jax.devices.mesh import abstract, make_mesh, shard
from m2snet_jax.devices.programs import CompiledAhead
processes.join()
mesh, begun = make_mesh(), []
step = jax.jit(lambda x, power: (x**power).sum(), static_argnums=1)
x = shard(np.arange(2.) + 2 * jax.process_index(), mesh)
like = abstract(jax.ShapeDtypeStruct(x.shape, x.dtype), mesh, split=True)
report = lambda power, seconds: begun.append(power) if seconds is None else None
ahead = CompiledAhead(lambda power: step.lower(like, power), (3, 1, 2), report, threads=1 + 2 * jax.process_index())
print('found', [float(ahead(power)(x)) for power in (3, 1, 2, 1)], begun)
"""


def test_processes_with_other_numbers_of_threads_compile_in_one_order(tmp_path):
    """And execute what they compile while others still compile: no process waits for another one's compiler."""
    started = start(['-c', COMPILING], 2, 2, tmp_path)
    assert finish(started, 100) == [0, 0], (tmp_path / 'stderr0.txt').read_text()
    for k in range(2):
        assert 'found [36.0, 6.0, 14.0, 6.0] [3, 1, 2]' in (tmp_path / f'stdout{k}.txt').read_text()


LATE = """
import time
import jax
import numpy as np
from m2snet_jax.devices import processes
from m2snet_jax.devices.mesh import make_mesh, shard
processes.join()
mesh = make_mesh()
time.sleep(35 * jax.process_index())  # as a process whose compiler is slower
print('found', float(jax.jit(lambda x: x.sum())(shard(np.arange(2.) + 2 * jax.process_index(), mesh))))
"""


@pytest.mark.slow
def test_a_process_that_executes_later_than_the_others_is_waited_for(tmp_path):
    started = start(['-c', LATE], 2, 4, tmp_path)
    assert finish(started, 200) == [0, 0], (tmp_path / 'stderr0.txt').read_text()
    for k in range(2):
        assert 'found 6.0' in (tmp_path / f'stdout{k}.txt').read_text()


def test_alone_there_is_nobody_to_wait_for(monkeypatch):
    for name in (ADDRESS, COUNT, INDEX):
        monkeypatch.delenv(name, raising=False)
    processes.join()
    processes.join(False)
    assert processes.is_primary()
    assert processes.gather({'a': 1}) == [{'a': 1}]


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        (
            {},
            f'coordinator_address should be defined.; set {ADDRESS}, {COUNT} and {INDEX}',
        ),
        ({ADDRESS: '127.0.0.1:1', COUNT: 'two'}, 'invalid literal'),
        ({ADDRESS: '127.0.0.1:1', COUNT: '2'}, 'process id of the current process must be defined'),
    ],
)
def test_an_incomplete_or_wrong_description_of_the_cluster_is_one_line(variables, message, tmp_path):
    command = [sys.executable, 'train.py', '--config=quickstart', '--distributed', f'--workdir={tmp_path / "run"}']
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith('error: --distributed: ')
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def losses(workdir):
    rows = [row for row in read_json_lines(workdir / 'metrics.jsonl') if 'loss' in row]
    assert [row['step'] for row in rows] == list(range(1, STEPS + 1))
    return [row['loss'] for row in rows]


def table(folder):
    text = (folder / 'stdout0.txt').read_text().splitlines()
    return [line for line in text if '[Gloo]' not in line and 'peer ranks' not in line]  # its lines may come in pieces


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a run in one process on one device, and the table that it printed."""
    folder = tmp_path_factory.mktemp('whole')
    assert finish(train(folder / 'run', 1, 1, folder)) == [0], (folder / 'stderr0.txt').read_text()
    return folder / 'run', table(folder)


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'devices'), [(2, 4), (1, 4)])
def test_processes_and_devices_change_nothing_but_rounding(processes, devices, whole, tmp_path):
    assert finish(train(tmp_path / 'run', processes, devices, tmp_path)) == [0] * processes
    np.testing.assert_allclose(losses(tmp_path / 'run'), losses(whole[0]), rtol=2e-5)
    scores = [read_summary(run)['scores']['test/hard/MAE'] for run in (tmp_path / 'run', whole[0])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    maps = [sorted(path.name for path in (run / 'maps' / 'test').iterdir()) for run in (tmp_path / 'run', whole[0])]
    assert maps[0] == maps[1]
    said = (tmp_path / 'stderr0.txt').read_text()
    assert f'training on {devices} × cpu (cpu)' in said
    if processes == 2:
        assert (tmp_path / 'stderr1.txt').read_text() == ''


@pytest.mark.slow
def test_processes_score_a_model_to_the_same_last_digit(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / 'run', ignore=shutil.ignore_patterns('scores', 'maps'))
    assert finish(train(tmp_path / 'run', 2, 4, tmp_path)) == [0, 0], (tmp_path / 'stderr0.txt').read_text()
    assert f'going on after step {STEPS} of {STEPS}' in (tmp_path / 'stderr0.txt').read_text()
    assert table(tmp_path) == whole[1]
    assert len(whole[1]) > 40


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_a_run_goes_on_in_another_number_of_processes(before, after, whole, tmp_path):
    """SIGTERM to the last of them: all save the same step, and the rest is done by another number."""
    run = tmp_path / 'run'
    started = train(run, before, 2, tmp_path)
    while len(read_json_lines(run / 'metrics.jsonl')) < 7:
        assert all(process.poll() is None for process in started), (tmp_path / 'stderr0.txt').read_text()
        time.sleep(0.05)
    started[-1].send_signal(signal.SIGTERM)
    assert finish(started, 120) == [128 + signal.SIGTERM] * before
    assert 'is saved; the same command goes on from there' in (tmp_path / 'stderr0.txt').read_text()
    assert not (run / 'scores').exists()
    assert finish(train(run, after, 2, tmp_path)) == [0] * after, (tmp_path / 'stderr0.txt').read_text()
    assert 'going on after step' in (tmp_path / 'stderr0.txt').read_text()
    np.testing.assert_allclose(losses(run), losses(whole[0]), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_dies_ends_the_others(victim, tmp_path):
    run = tmp_path / 'run'
    started = train(run, 2, 2, tmp_path)
    while len(read_json_lines(run / 'metrics.jsonl')) < 3:
        assert all(process.poll() is None for process in started), (tmp_path / 'stderr0.txt').read_text()
        time.sleep(0.05)
    started[victim].kill()
    started[victim].wait()
    begun = time.monotonic()
    other = started[1 - victim]
    assert other.wait(timeout=60) != 0
    assert time.monotonic() - begun < 60
    said = (tmp_path / f'stderr{1 - victim}.txt').read_text()
    # Where the first process dies, jax itself may end the others before an error reaches Python.
    assert 'another process has ended' in said or 'another task died' in said
