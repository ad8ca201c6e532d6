"""What happens to a run from outside: Ctrl-C, a second run in its folder, a full disk, a start that was wrong."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import ROOT, SETTINGS, start

from m2snet_jax import InputError, folder_lock, load_config, storage
from m2snet_jax.buckets import LOCK
from m2snet_jax.commands import run
from m2snet_jax.commands.train import main
from m2snet_jax.devices.processes import termination
from m2snet_jax.folder_lock import lock
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training.event_file import EventFile
from m2snet_jax.training.logs import Logs
from m2snet_jax.training.run_folder import check_same_run, only_writer, write_about
from m2snet_jax.weights.checkpoint import Checkpoints, saved_steps

pytestmark = pytest.mark.usefixtures('compiled_quickly')

TINY = SETTINGS | {'steps': 200, 'log.tensorboard': True, 'checkpoint.every': 1000, 'evaluate.bootstrap': 20}
ARGUMENTS = ['--config=quickstart', *(f'--config.{key}={value}' for key, value in TINY.items())]
PROGRAM = 'import sys; from m2snet_jax.commands.train import main; sys.exit(main(sys.argv))'


def start_run(folder):
    return start(folder / 'tfds', '-c', PROGRAM, *ARGUMENTS, f'--workdir={folder / "run"}')


def wait_for_a_step(folder, process):
    while not read_json_lines(folder / 'run' / 'metrics.jsonl'):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_a_second_run_is_refused_meanwhile(tmp_path):
    process = start_run(tmp_path)
    wait_for_a_step(tmp_path, process)
    second = start_run(tmp_path)
    _, log = second.communicate(timeout=600)
    assert second.returncode == 2
    errors = [line for line in log.splitlines() if 'error: ' in line]
    assert len(errors) == 1
    assert f'process {process.pid} on {socket.gethostname()} has been writing here since 20' in errors[0]
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT
    assert log.splitlines()[-1].startswith('SIGINT received: step ')
    assert 'Traceback' not in log
    steps = saved_steps(tmp_path / 'run' / 'checkpoints')
    assert len(steps) == 1
    assert f'step {steps[0]} of 200 is saved; the same command goes on from there' in log
    assert not (tmp_path / 'run' / LOCK).exists()


def test_the_first_signal_is_recorded_and_the_second_ends_at_once():
    program = (
        'import os, signal, time\n'
        'from m2snet_jax.devices.processes import termination\n'
        'with termination() as asked:\n'
        '    assert asked(1) is None\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    assert asked(2) == signal.SIGINT, asked(2)\n'
        '    print("asked", flush=True)\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    time.sleep(60)\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert done.stdout == 'asked\n'
    assert done.stderr == 'interrupted again: ended without saving; the checkpoints are of earlier steps\n'


def test_handlers_are_put_back_and_other_threads_set_none():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with termination() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(1) == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    answers = []

    def other():
        with termination() as asked:
            answers.append(asked(1))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert answers == [None]


def test_ctrl_c_elsewhere_is_one_line(capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    assert run(interrupted, ['predict']) == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_a_folder_has_one_writer(tmp_path):
    with lock(tmp_path):
        about = json.loads((tmp_path / LOCK).read_text())
        assert about['pid'] == os.getpid()
        message = f'{tmp_path}: process {os.getpid()} on .* has been writing here since 20'
        with pytest.raises(InputError, match=message), lock(tmp_path):
            pass
        with pytest.raises(InputError, match='--workdir='), only_writer(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / 'a' / 'b'), pytest.raises(InputError), lock(tmp_path / 'a' / 'b'):
        pass


def test_the_lock_of_a_dead_process_is_none(tmp_path):
    program = (
        'import os, signal, sys; from pathlib import Path; from m2snet_jax.folder_lock import lock\n'
        'with lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)'
    )
    done = subprocess.run([sys.executable, '-c', program, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / LOCK).read_text())['pid'] != os.getpid()
    with lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())['pid'] == os.getpid()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(folder_lock.fcntl, 'flock', flock)
    with lock(tmp_path):
        assert 'this file system has no locks' in caplog.text


def test_without_a_checkpoint_a_folder_binds_nothing(tmp_path):
    def about(rate):
        config = load_config('quickstart', **{'optimizer.peak_lr': rate})
        return config, {'config': json.loads(config.to_json()), 'manifest_hash': 'a', 'lossnet_hash': None}

    wrong, right = about(0.5), about(0.05)
    for config, record in (wrong, right):
        check_same_run(config, record, tmp_path)
        write_about(record, [], tmp_path)
        assert json.loads((tmp_path / 'config.json').read_text()) == record
    (tmp_path / 'checkpoints' / '5.orbax-checkpoint-tmp').mkdir(parents=True)
    check_same_run(*wrong, tmp_path)
    (tmp_path / 'scores').mkdir()
    (tmp_path / 'scores' / 'summary.json').write_text('{"step": 5}')
    with pytest.raises(InputError, match=r'optimizer\.peak_lr 0\.05 → 0\.5'):
        check_same_run(*wrong, tmp_path)
    check_same_run(*right, tmp_path)


@contextlib.contextmanager
def small_files(size):
    """Lets no file of this process grow beyond `size` bytes, as on a full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_checkpoint_that_does_not_fit_is_one_line_and_earlier_ones_stay(tmp_path, caplog):
    from m2snet_jax.models.model_weights import ModelWeights

    small = ModelWeights({'a': np.zeros(10, 'f4')}, {})
    large = ModelWeights({'a': np.random.default_rng(0).random(300_000).astype('f4')}, {})
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_model(1, small)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)

    def save():
        checkpoints.save_model(2, large)
        checkpoints.close()

    with small_files(200_000), pytest.raises(InputError, match=r'a checkpoint cannot be written .* are good') as caught:
        save()
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 400
    checkpoints.close()  # again, as at the end of every run
    assert saved_steps(tmp_path) == [1]
    assert caplog.text == ''
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_model(2, large)
    checkpoints.close()
    assert saved_steps(tmp_path) == [1, 2]


def write_rows(write):
    for step in range(100):
        write(step)


def test_logs_that_do_not_fit_name_their_file(tmp_path):
    logs = Logs(tmp_path / 'a', tensorboard=False)
    with small_files(100), pytest.raises(InputError, match=r'metrics\.jsonl: cannot be written \(File too large\)'):
        write_rows(lambda step: logs.write(step, {'loss': 1.0}))
    assert read_json_lines(tmp_path / 'a' / 'metrics.jsonl')[0] == {'step': 0, 'loss': 1.0}
    (tmp_path / 'b').mkdir()
    events = EventFile(tmp_path / 'b', 1)
    with small_files(100), pytest.raises(InputError, match=r'b/events.out.tfevents.*: cannot be written'):
        write_rows(lambda step: events.add_scalar(step, 'loss', 1.0))
    events.close()


def test_a_full_disk_is_one_line_whatever_the_command(tmp_path, capsys):
    def fills(argv):
        storage.write(tmp_path / 'maps' / 'a.png', bytes(10_000))

    def fills_without_storage(argv):
        (tmp_path / 'b').write_bytes(bytes(10_000))

    with small_files(1000):
        assert run(fills, ['x']) == 2
        assert run(fills_without_storage, ['x']) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f'error: {tmp_path}/maps/a.png: cannot be written (File too large)'
    assert len(lines) == 2
    assert list((tmp_path / 'maps').iterdir()) == []


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='a device of Linux')
@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_output_that_cannot_be_written_ends_with_a_status(stream):
    with open('/dev/full', 'w') as full:
        streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, stream: full}
        words = ['compare', '--help'] if stream == 'stdout' else ['compare']
        done = subprocess.run([sys.executable, '-m', 'm2snet_jax', *words], cwd=ROOT, text=True, **streams)
    assert done.returncode == (1 if stream == 'stdout' else 2)
    if stream == 'stdout':
        assert done.stderr == 'error: the output: cannot be read or written (No space left on device)\n'


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_with_one_line_and_goes_on_when_there_is_room(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    arguments = [*ARGUMENTS, '--config.steps=2', '--config.checkpoint.every=1']
    assert main(['train', *arguments, f'--workdir={tmp_path / "whole"}']) == 0  # and its programs are compiled
    capsys.readouterr()
    with small_files(1_000_000):
        assert main(['train', *arguments, f'--workdir={tmp_path / "run"}']) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if 'rror' in line]
    assert len(lines) == 1
    assert 'run/checkpoints: a checkpoint cannot be written (File too large)' in lines[0]
    assert main(['train', *arguments, f'--workdir={tmp_path / "run"}']) == 0
    hashes = [
        json.loads((tmp_path / run / 'scores' / 'summary.json').read_text())['model_hash'] for run in ('whole', 'run')
    ]
    assert hashes[0] == hashes[1]
