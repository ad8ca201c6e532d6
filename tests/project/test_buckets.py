"""Paths at gs://: fetched once, put as whole objects, one writer, and what fails on the way."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bucket_server import failing_for

from m2snet_jax import InputError, storage
from m2snet_jax.__main__ import main
from m2snet_jax.buckets import bucket_lock, copies, uploads
from m2snet_jax.folder_lock import lock
from m2snet_jax.storage import local_path

pytestmark = pytest.mark.filterwarnings('ignore::ResourceWarning')  # of connections that the tests break
ROOT = Path(__file__).parents[2]


def reads(bucket):
    return [name for method, name in bucket.requests if method == 'GET' and not name.startswith('/')]


def start_again(monkeypatch):
    """As in another process of this computer."""
    monkeypatch.setattr(copies, 'state', copies.Copies())


def test_what_is_read_is_fetched_once(bucket, monkeypatch):
    for name in ('set/a.png', 'set/sub/b.png', 'settings'):
        bucket.put(name, name.encode())
    folder = local_path('gs://bucket/set', '--root')
    assert (folder / 'a.png').read_bytes() == b'set/a.png'
    assert (folder / 'sub' / 'b.png').read_bytes() == b'set/sub/b.png'
    assert not (folder.parent / 'settings').exists()
    assert storage.with_addresses(f'{folder}/a.png: bad') == 'gs://bucket/set/a.png: bad'
    times = {path: path.stat().st_mtime_ns for path in folder.rglob('*.png')}
    assert len(reads(bucket)) == 2
    start_again(monkeypatch)
    bucket.put('set/a.png', b'set/a.png')  # the same bytes again
    assert local_path('gs://bucket/set/*.png') == folder / '*.png'
    assert len(reads(bucket)) == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*.png')} == times
    start_again(monkeypatch)
    bucket.put('set/a.png', b'changed')
    bucket.storage.delete_file('bucket', 'set/sub/b.png')
    local_path(Path('gs://bucket/set'))
    assert (folder / 'a.png').read_bytes() == b'changed'
    assert not (folder / 'sub' / 'b.png').exists()
    assert len(reads(bucket)) == 3


def test_what_is_written_is_put_whole(bucket):
    folder = local_path('gs://bucket/run', written=True)
    storage.write(folder / 'config.json', 'one')
    storage.append(folder / 'log', 'a\n')
    (folder / '.hidden').write_text('half')
    bucket.fault = lambda method, path: time.sleep(0.3)
    storage.publish(folder)
    storage.append(folder / 'log', 'b\n')  # later than what is published
    storage.write(folder / 'config.json', 'three')  # in place of it
    deadline = time.monotonic() + 20
    while bucket.names() != ['run/config.json', 'run/log']:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert bucket.read('run/log') == b'a\n'
    assert bucket.read('run/config.json') in (b'one', b'three')
    storage.finish()
    assert bucket.read('run/log') == b'a\nb\n'
    assert bucket.read('run/config.json') == b'three'
    before = len(bucket.requests)
    storage.finish()
    assert len(bucket.requests) == before
    (folder / 'log').unlink()
    storage.finish()
    assert bucket.names() == ['run/config.json']


def test_a_checkpoint_counts_when_its_last_file_is_there(bucket, monkeypatch):
    for step in (5, 10):
        bucket.put(f'run/checkpoints/{step}/model/data', b'arrays')
    bucket.put('run/checkpoints/5/_CHECKPOINT_METADATA', b'{}')
    folder = local_path('gs://bucket/run', written=True)
    assert [path.name for path in (folder / 'checkpoints').iterdir()] == ['5']
    assert not (folder / 'checkpoints' / '5' / 'model').exists()
    storage.fetch(folder / 'checkpoints')
    assert (folder / 'checkpoints' / '5' / 'model' / 'data').read_bytes() == b'arrays'
    storage.finish()
    assert 'run/checkpoints/10/model/data' in bucket.names()  # another run may be saving it
    with lock(folder):
        for name in ('_CHECKPOINT_METADATA', 'model/data'):
            storage.write(folder / 'checkpoints' / '15' / name, 'x')
        (folder / 'scores').mkdir()
        bucket.requests.clear()
        storage.publish(folder / 'checkpoints')
        storage.finish()
    assert 'run/checkpoints/10/model/data' not in bucket.names()
    puts = [name for method, name in bucket.requests if method == 'POST' and 'checkpoints' in name]
    assert puts == ['run/checkpoints/15/model/data', 'run/checkpoints/15/_CHECKPOINT_METADATA']
    assert {'run/checkpoints/15/_CHECKPOINT_METADATA', 'run/checkpoints/15/model/data'} <= set(bucket.names())


def test_one_writer(bucket, monkeypatch, caplog):
    folder = local_path('gs://bucket/run', written=True)
    with lock(folder):
        about = json.loads(bucket.read('run/writer.lock'))
        with pytest.raises(InputError, match='writing here already'), lock(folder):
            pass
    assert bucket.names() == []
    other = {**about, 'machine': 'another', 'host': 'host-2'}
    bucket.put('run/writer.lock', json.dumps(other))
    with pytest.raises(InputError, match=r'gs://bucket/run: locked by process .* on host-2'), lock(folder):
        pass
    monkeypatch.setattr(bucket_lock, 'STALE', 0.5)
    time.sleep(1.6)  # the date of an answer has whole seconds
    with lock(folder):
        assert json.loads(bucket.read('run/writer.lock'))['machine'] == about['machine']
    assert 'its lock is taken over' in caplog.text
    monkeypatch.setattr(bucket_lock, 'STALE', 600)
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    bucket.put('run/writer.lock', json.dumps({**about, 'pid': ended.pid}))
    with lock(folder):  # of this computer, and dead: at once
        pass
    assert 'has ended' in caplog.text


def test_a_lock_is_refreshed_and_its_loss_ends_the_run(bucket, monkeypatch):
    monkeypatch.setattr(bucket_lock, 'REFRESH', 0.1)
    folder = local_path('gs://bucket/run', written=True)
    with pytest.raises(InputError, match='another run has taken over'), lock(folder):  # noqa: PT012
        first = bucket.object('run/writer.lock')['generation']
        time.sleep(0.5)
        assert bucket.object('run/writer.lock')['generation'] != first
        bucket.put('run/writer.lock', b'{}')
        time.sleep(0.5)
        storage.write(folder / 'a', 'a')
        storage.publish(folder)
    assert bucket.names() == ['run/writer.lock']


@pytest.mark.parametrize(
    ('status', 'message'),
    [(403, 'no permission'), (401, 'credentials'), (404, 'there is no such bucket')],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(status, message, bucket, capsys, tmp_path):
    bucket.fault = lambda method, path: status
    assert main(['m2snet_jax', 'report', 'gs://bucket/run']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: gs://bucket')
    assert message in error
    assert error.count('\n') == 1
    bucket.fault = lambda method, path: None
    assert bucket.names() == []


def test_no_credentials_are_one_line(bucket, monkeypatch, tmp_path):
    monkeypatch.delenv('STORAGE_EMULATOR_HOST')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('NO_GCE_CHECK', 'True')
    with pytest.raises(InputError, match='no credentials'):
        local_path('gs://bucket/run')


@pytest.mark.parametrize('fault', [503, 429, 'drop'])
def test_what_passes_is_tried_again(fault, bucket, monkeypatch, caplog):
    bucket.put('run/a', b'a')
    bucket.fault = failing_for(2.5, fault)
    folder = local_path('gs://bucket/run', written=True)
    assert (folder / 'a').read_bytes() == b'a'
    assert 'again in 1 s' in caplog.text
    assert 'again in 2 s' in caplog.text
    storage.write(folder / 'b', 'b' * 100_000)
    bucket.fault = failing_for(1.5, fault)
    storage.finish()
    assert bucket.read('run/b') == b'b' * 100_000


def test_a_bucket_that_fails_for_long_ends_the_run_and_names_the_folder(bucket, monkeypatch):
    monkeypatch.setattr(uploads, 'LONG_PATIENCE', 0.1)
    folder = local_path('gs://bucket/run', written=True)
    storage.write(folder / 'a', 'a')
    bucket.fault = lambda method, path: 503
    with pytest.raises(InputError, match='no answer for') as caught:
        storage.finish()
    assert str(copies.state.scratch) in str(caught.value)
    with pytest.raises(InputError):
        storage.publish(folder)
    copies.remove_scratch()
    assert (folder / 'a').read_text() == 'a'


@pytest.mark.parametrize('address', ['gs://', 'gs://UPPER/a', 'gs://bucket/../other', 'gs:///a'])
def test_addresses_that_are_none(address, bucket):
    with pytest.raises(InputError, match=r'--root=gs:.*(not an address in a bucket|an address)'):
        local_path(address, '--root')


def test_names_that_lead_outside_are_refused(bucket, tmp_path):
    bucket.put('set/a', b'x')
    bucket.storage.objects['bucket']['set/../a'] = {**bucket.object('set/a'), 'name': 'set/../a'}
    with pytest.raises(InputError, match='cannot be a path'):
        local_path('gs://bucket/set')


def test_no_library_of_a_cloud_is_imported_unless_a_bucket_is_named(tmp_path):
    program = (
        'import sys\nfrom m2snet_jax.__main__ import main\n'
        "main(['m2snet_jax', 'report', 'nowhere'])\n"
        "clouds = ('google.cloud', 'google.auth', 'google.api_core', 'gcsfs')\n"
        'assert not [name for name in sys.modules if name.startswith(clouds)]'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'google.cloud', None)
    with pytest.raises(InputError, match=r'--workdir=gs://bucket/run: .*pip install'):
        local_path('gs://bucket/run', '--workdir')
