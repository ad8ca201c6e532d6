"""Runs of a study side by side: order, cores, failures, signals, and a killed study that goes on exactly."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from flax import nnx
from study_files import study_of, variants, write_file
from tiny_runs import SETTINGS, losses, start_study

from m2snet_jax import InputError
from m2snet_jax.build import create_model
from m2snet_jax.devices import cores
from m2snet_jax.devices.cores import core_shares, pinned
from m2snet_jax.study import jobs, runner
from m2snet_jax.study.definition import base_config, cells_of, load_study
from m2snet_jax.study.jobs import run_side_by_side
from m2snet_jax.weights import load_weights

pytestmark = pytest.mark.usefixtures('compiled_quickly')

TWO_CORES = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='needs two cores')
# In place of a training: leaves its cores and times, then waits for a signal, fails, crashes or finishes.
PROGRAM = """
import json, os, pickle, signal, sys, time
_, folder = pickle.load(sys.stdin.buffer)
(folder / 'scores').mkdir(parents=True)
print('step 1 of 8', file=sys.stderr, flush=True)
begun, name = time.time(), folder.parent.name
if name.startswith('long'):
    def save(number, frame):
        (folder / 'saved').touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / 'begun').touch()
    time.sleep(60)
if name == 'bad':
    sys.exit('error: the loss is nan at step 3 of 8')
if name == 'crash':
    1 / 0
time.sleep(0.5)
seen = {'cores': sorted(os.sched_getaffinity(0)), 'begun': begun, 'ended': time.time()}
(folder / 'seen.json').write_text(json.dumps(seen))
(folder / 'scores' / 'summary.json').write_text('{"step": 8}')
"""


@pytest.fixture
def without_training(monkeypatch):
    monkeypatch.setattr(jobs, '_PROGRAM', PROGRAM)
    monkeypatch.setattr(runner, 'open_dataset', lambda config: type('Data', (), {'manifest_hash': 'x'}))


def test_shares_of_cores_are_disjoint_and_cover_all(monkeypatch):
    monkeypatch.setattr(cores.os, 'sched_getaffinity', lambda process: {9, 2, 3, 4, 5}, raising=False)
    assert core_shares(1) == [[2, 3, 4, 5, 9]]
    assert core_shares(2) == [[2, 3], [4, 5, 9]]
    assert core_shares(5) == [[2], [3], [4], [5], [9]]
    with pytest.raises(InputError, match='--jobs=6: this process may use 5 cores; give at most --jobs=5'):
        core_shares(6)


@pytest.mark.skipif(not hasattr(os, 'sched_getaffinity'), reason='this system does not pin programs to cores')
def test_a_program_stays_on_its_cores_and_the_caller_does_not():
    before = os.sched_getaffinity(0)
    with pinned([min(before)]):
        program = 'import os; print(*os.sched_getaffinity(0))'
        process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    assert os.sched_getaffinity(0) == before
    assert process.communicate()[0].split() == [str(min(before))]


@TWO_CORES
def test_two_run_at_a_time_and_failures_stop_no_other(tmp_path, without_training, capsys):
    mine = [
        *variants('first', 'bad', 'crash', 'last'),
        {'name': 'anew', 'about': '', 'weights_of': 'first'},
        {'name': 'after', 'about': '', 'weights_of': 'bad'},
    ]
    _, cells = study_of(tmp_path, mine)
    finished = []
    failures = run_side_by_side(cells, 2, lambda: finished.append(sum(cell.is_finished for cell in cells)))
    err = capsys.readouterr().err
    assert failures == [
        'bad, seed 0: the loss is nan at step 3 of 8',
        'crash, seed 0: its process ended with status 1',
        'after, seed 0: not run, because it starts from bad, seed 0',
    ]
    assert 'ZeroDivisionError' in err
    assert err.count('ZeroDivisionError') == 1
    assert 'run 1 of 6: first, seed 0 (0 of 6 runs finished)' in err
    assert len(finished) == 3
    seen = {cell.variant: json.loads((cell.folder / 'seen.json').read_text()) for cell in cells if cell.is_finished}
    assert seen.keys() == {'first', 'last', 'anew'}
    assert seen['anew']['begun'] > seen['first']['ended']
    assert seen['last']['cores'] != seen['anew']['cores'] or seen['last']['ended'] < seen['anew']['begun']
    assert run_side_by_side([cells[0]], 2) == []  # is finished


@TWO_CORES
def test_a_signal_ends_all_in_order(tmp_path, without_training, capsys):
    _, cells = study_of(tmp_path, variants('long1', 'long2', 'last'))

    def interrupt():
        while not all((cell.folder / 'begun').exists() for cell in cells[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(SystemExit) as ended:
        run_side_by_side(cells, 2)
    assert ended.value.code == 128 + signal.SIGINT
    assert all((cell.folder / 'saved').exists() for cell in cells[:2])
    assert not cells[2].folder.exists()
    assert 'SIGINT received: 2 runs save their step and end; the same command goes on' in capsys.readouterr().err


TINY = SETTINGS | {'model.name': 'msnet', 'steps': 24, 'checkpoint.every': 3}


@TWO_CORES
@pytest.mark.slow
def test_a_killed_study_of_two_jobs_goes_on_exactly(tmp_path):
    mine = [
        {'name': 'first', 'about': '', 'seeds': (0, 1)},
        {'name': 'last', 'about': '', 'changes': {'loss.bce': 'weighted'}},
    ]
    study = {'config': 'quickstart', 'about': '', 'changes': TINY, 'variants': mine}
    path = write_file(tmp_path, study)
    out, err = start_study(path, tmp_path / 'whole', '--jobs=2').communicate(timeout=600)
    assert '3 of 3 runs finished' in out, err
    cells = cells_of(load_study(path), base_config(load_study(path)), tmp_path / 'killed')
    logs = [cell.folder / 'metrics.jsonl' for cell in cells]
    process = start_study(path, tmp_path / 'killed', '--jobs=2')
    while not all(log.exists() and log.read_text().count('\n') >= 4 for log in logs[:2]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = [log.read_text().count('\n') for log in logs[:2]]
    assert all(step < TINY['steps'] for step in steps)
    assert '0 of 3 runs finished' in start_study(path, tmp_path / 'killed', '--table').communicate(timeout=600)[0]
    process = start_study(path, tmp_path / 'killed', '--jobs=2')
    while not logs[2].exists():  # interrupt it once more, in order
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert 'runs save their step and end' in err
    out, err = start_study(path, tmp_path / 'killed', '--jobs=2').communicate(timeout=600)
    assert '3 of 3 runs finished' in out, err
    for cell in cells:
        folders = cell.folder, tmp_path / 'whole' / cell.folder.relative_to(tmp_path / 'killed')
        states = []
        for folder in folders:
            model = load_weights(create_model('msnet', 'res2net14', 1), folder)
            states.append(nnx.state(model, (nnx.Param, nnx.BatchStat)))
        assert losses(folders[0]) == losses(folders[1])
        assert [step for step, _ in losses(folders[0])] == list(range(1, TINY['steps'] + 1))
        jax.tree.map(np.testing.assert_array_equal, *states)
