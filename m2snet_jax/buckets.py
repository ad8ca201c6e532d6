"""Buckets of Google Cloud Storage: what lies at gs:// is read and written through copies on this computer.

What is read is kept in the user's cache, and only what has changed is fetched again. What is written lies in a
temporary folder of this process; a thread puts it into the bucket, every file as one whole object, while the program
goes on. Only this file knows the library, and imports it when a bucket is named.
"""

import atexit
import base64
import concurrent.futures
import contextlib
import datetime
import email.utils
import functools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from absl import logging

from m2snet_jax.errors import InputError

ADDRESS = re.compile(r'gs:/{1,2}([^/]+)/?(.*)', re.DOTALL)  # pathlib makes one slash of two
NAME = re.compile(r'[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]')  # of a bucket
LOCK = 'writer.lock'
PATIENCE, LONG_PATIENCE = 120, 3600  # seconds for which is tried again: to read, to put what was computed
LONGEST_PAUSE, TIMEOUT, THREADS = 60, 60, 8  # seconds, seconds without an answer, transfers at once
REFRESH, STALE = 60, 600  # seconds after which a lock is refreshed; without which it counts as left behind
_CREDENTIALS = (
    'no credentials that can be used ({}); run `gcloud auth application-default login`, or set '
    'GOOGLE_APPLICATION_CREDENTIALS to the file of a service account'
)
_STEP = re.compile(r'(.*/)?checkpoints/\d+/')  # what is below is whole once its last file is there
_LAST_OF_STEP, _LAST_OF_RUN = '_CHECKPOINT_METADATA', 'scores/summary.json'
_Value = TypeVar('_Value')


class Copies:
    """The copies that this process reads and writes, and what is still to be put."""

    def __init__(self):
        self.cache: Path | None = None
        self.scratch: Path | None = None
        self.fetched: set[tuple[Path, bool]] = set()
        self.put: dict[Path, tuple] = {}  # {path in scratch: signature of what was fetched or is to be put}
        self.pending: dict[Path, tuple | None] = {}  # what is to be put, None for what is to be deleted
        self.changed = threading.Condition()
        self.strays: set[Path] = set()  # left by a save that did not end
        self.working = False
        self.error: InputError | None = None
        self.thread: threading.Thread | None = None


_copies = Copies()


class Stored(NamedTuple):
    """One object of a bucket: its name, bytes, hash and generation."""

    name: str
    size: int
    hash: str
    generation: int


def is_address(text: str) -> bool:
    """Whether a text is an address in a bucket: gs://bucket/path."""
    return ADDRESS.match(text) is not None


def copy_of(address: str, given: str, cache: Path, *, written: bool) -> Path:
    """Returns the path of the copy of an address; nothing is fetched.

    Raises:
        InputError: no name of a bucket, or the library is missing; it begins with `given`.
    """
    found = ADDRESS.match(address)
    if found is None or not NAME.fullmatch(found[1]) or '..' in found[2].split('/'):
        raise InputError(f'{given}: not an address in a bucket; give gs://BUCKET/PATH')
    _library(given)
    _copies.cache = cache / 'gs'
    if written and _copies.scratch is None:
        _copies.scratch = Path(tempfile.mkdtemp(prefix='m2snet_jax-')).resolve() / 'gs'
        atexit.register(_remove_scratch)
    root = _copies.scratch if written else _copies.cache
    assert root is not None
    return root / found[1] / found[2].strip('/')


def address_of(path: Path) -> tuple[str, str] | None:
    """Returns (bucket, name) of what a path is the copy of; None for other paths."""
    for root in (_copies.scratch, _copies.cache):
        if root is not None and path.is_relative_to(root):
            bucket, *parts = path.relative_to(root).parts or ('',)
            return bucket, '/'.join(parts)
    return None


def with_addresses(text: str) -> str:
    """Returns a text with the addresses of the copies that it names."""
    for root in (_copies.scratch, _copies.cache):
        if root is not None:
            text = text.replace(f'{root}{os.sep}', 'gs://')
    return text


def fetch(path: Path, *, checkpoints: bool = True) -> None:
    """Fetches what lies at the address of a copy and is not there yet; nothing for other paths.

    The copy's time is computed from the hash of the object, so that an unchanged one is recognised. Several processes
    of a computer wait for each other, so that each object is fetched once.

    Args:
        path: a file, a folder, or a pattern, whose folder before the first * is fetched.
        checkpoints: without, only which checkpoints are whole.

    Raises:
        InputError: the bucket cannot be read.
    """
    path = _before_pattern(path)
    place = address_of(path)
    if place is None or any((one, True) in _copies.fetched for one in (path, *path.parents)):
        return
    if (path, checkpoints) in _copies.fetched:
        return
    written = _copies.scratch is not None and path.is_relative_to(_copies.scratch)
    with contextlib.nullcontext() if written else _one_at_a_time(path):
        _fetch(path, *place, checkpoints, written)
    _copies.fetched.add((path, checkpoints))


def refetch(path: Path) -> None:
    """Fetches what other processes have put below a copy that is written, and leaves what is there."""
    if (place := address_of(path)) is not None:
        _fetch(path, *place, True, True)


def _fetch(path, bucket, prefix, checkpoints, written):
    top = Path(str(path)[: len(str(path)) - len(prefix)] if prefix else path)
    stored = _listed(bucket, prefix)
    whole = {found[0] for one in stored if (found := _STEP.match(one.name)) and one.name == found[0] + _LAST_OF_STEP}
    wanted, strays = [], []
    for one in stored:
        step = _STEP.match(one.name)
        if step and step[0] not in whole:  # a save that did not end
            strays.append(top / one.name)
            continue
        deferred = step and not checkpoints and one.name != step[0] + _LAST_OF_STEP and not _STEP.match(f'{prefix}/')
        if not deferred and one.name.rpartition('/')[2] != LOCK and not _is_there(top / one.name, one, written):
            wanted.append(one)
    _fetch_all(bucket, wanted, top, written)
    if written:
        _copies.strays.update(strays)
    elif path.is_dir():
        names = {top / one.name for one in stored}
        for file in path.rglob('*'):
            if file.is_file() and file not in names and not file.name.startswith('.'):
                file.unlink(missing_ok=True)


def _is_there(path, stored, written):
    try:
        status = path.stat()
    except OSError:
        return False
    return written or (status.st_size, status.st_mtime_ns) == (stored.size, _time_of(stored.hash))


def _fetch_all(bucket, wanted, top, written):
    """Fetches objects, several at once, each under another name until it is whole."""
    from tqdm import tqdm

    def one(stored):
        path = top / stored.name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{os.getpid()}.{path.name}')
        blob = _bucket(bucket).blob(stored.name)
        options = {'retry': None, 'timeout': TIMEOUT, 'raw_download': True}
        try:
            _patiently(lambda: blob.download_to_filename(str(temporary), **options), f'gs://{bucket}/{stored.name}')
            time_of_hash = _time_of(stored.hash)
            os.utime(temporary, ns=(time_of_hash, time_of_hash))
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None
        finally:
            temporary.unlink(missing_ok=True)
        if written:
            with _copies.changed:
                _copies.put[path] = _signature(path.stat())

    shown = {'unit': 'file', 'disable': None, 'file': sys.stderr}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(one, stored) for stored in wanted]
        try:
            for done in tqdm(concurrent.futures.as_completed(running), f'gs://{bucket}', len(running), **shown):
                done.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def publish(folder: Path) -> None:
    """Puts what has changed below a copy that is written into the bucket, in the background; nothing for other paths.

    Each file gets there as it is now, even if the program appends to it meanwhile.

    Raises:
        InputError: what was to be put before could not be, for an hour.
    """
    if _copies.scratch is None or not folder.is_relative_to(_copies.scratch):
        return
    if _copies.error is not None:
        raise _copies.error
    now = {path: _signature(status) for path, status in _files(folder)}
    with _copies.changed:
        known = {path: one for path, one in _copies.put.items() if path.is_relative_to(folder)}
        changes: dict = {path: one for path, one in now.items() if known.get(path) != one}
        _copies.put.update(changes)
        for path in known.keys() - now.keys():
            del _copies.put[path]
            changes[path] = None
        _copies.pending.update(changes)
        if _copies.thread is None:
            _copies.thread = threading.Thread(target=_put_all, daemon=True, name='bucket')
            _copies.thread.start()
        _copies.changed.notify_all()


def finish(folder: Path | None = None) -> None:
    """Puts everything below a folder, by default all that this process wrote, and waits until it is in the bucket.

    Raises:
        InputError: it cannot be put; the message names the folder of this computer that has it.
    """
    if _copies.scratch is None or not _copies.scratch.exists():
        return
    publish(folder or _copies.scratch)
    with _copies.changed:
        while (_copies.pending or _copies.working) and _copies.error is None:
            _copies.changed.wait(1)
    if _copies.error is not None:
        raise _copies.error


def _put_all():
    """Puts what is pending, again and again."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        while True:
            with _copies.changed:
                _copies.working = False
                _copies.changed.notify_all()
                while not _copies.pending:
                    _copies.changed.wait()
                batch, _copies.pending, _copies.working = _copies.pending, {}, True
            try:
                # What says that a folder is whole comes after the rest of it, and goes first.
                for order in sorted({_order(path, one) for path, one in batch.items()}):
                    chosen = [(path, one) for path, one in batch.items() if _order(path, one) == order]
                    list(threads.map(lambda pair: _put(*pair), chosen))
            except InputError as error:
                where = f'what this process has written is in {_copies.scratch}'
                _copies.error = InputError(f'{error}; {where}: copy the run from there, or go on with it as --workdir')
            except Exception as error:
                _copies.error = InputError(f'the bucket cannot be written ({type(error).__name__}: {error})')
            if _copies.error is not None:
                with _copies.changed:
                    _copies.working = False
                    _copies.changed.notify_all()
                return


def _order(path, signature):
    name = path.as_posix()
    is_last_of_step = path.name == _LAST_OF_STEP and _STEP.fullmatch(f'{path.parent.as_posix()}/') is not None
    if signature is None:
        return 3 if is_last_of_step else 4
    return 1 if is_last_of_step else 2 if name.endswith(_LAST_OF_RUN) else 0


def _put(path, signature):
    """Puts a file as it was when its signature was taken, or deletes its object."""
    bucket, name = address_of(path) or ('', '')
    blob = _bucket(bucket).blob(name)
    what = f'gs://{bucket}/{name}'
    if signature is None:
        _patiently(lambda: _deleted(blob), what, LONG_PATIENCE)
        return
    try:
        with path.open('rb') as file:
            appended = os.fstat(file.fileno()).st_ino == signature[2]
            content = file.read(signature[0] if appended else -1)  # another file took its place: a whole one
    except FileNotFoundError:  # removed meanwhile; the next look will find that
        return
    options = {'content_type': 'application/octet-stream', 'retry': None, 'timeout': TIMEOUT}
    _patiently(lambda: blob.upload_from_string(content, **options), what, LONG_PATIENCE)


def _deleted(blob):
    from google.api_core.exceptions import NotFound  # pyright: ignore[reportMissingImports]

    with contextlib.suppress(NotFound):
        blob.delete(retry=None, timeout=TIMEOUT)


def _files(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    """Yields the files below a folder that are whole, with their status."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith('.') or entry.name == LOCK or 'orbax-checkpoint-tmp' in entry.name:
            continue
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir():
                yield from _files(Path(entry.path))
            else:
                yield Path(entry.path), entry.stat()


def _signature(status):
    return status.st_size, status.st_mtime_ns, status.st_ino


def _remove_scratch():
    if _copies.scratch is not None and _copies.error is None and not _copies.pending and not _copies.working:
        shutil.rmtree(_copies.scratch.parent, ignore_errors=True)


def _before_pattern(path):
    parts = path.parts
    return Path(*parts[: next((n for n, part in enumerate(parts) if '*' in part), len(parts))])


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Waits until no other process of this computer fetches into the cache what lies at the same address."""
    try:
        import fcntl
    except ImportError:  # Windows; each object is replaced whole anyway
        yield
        return
    assert _copies.cache is not None
    name = '.' + re.sub(r'[^\w.-]', '+', str(path.relative_to(_copies.cache)))[:200] + '.lock'
    _copies.cache.mkdir(parents=True, exist_ok=True)
    with (_copies.cache / name).open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a copy that is written: an object that only one program can make, refreshed every minute.

    Raises:
        InputError: another program holds it and has refreshed it in the last ten minutes.
    """
    bucket, name = address_of(folder) or ('', '')
    blob = _bucket(bucket).blob(f'{name}/{LOCK}')
    about = {'pid': os.getpid(), 'host': socket.gethostname(), 'machine': _machine()}
    about['since'] = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    content = json.dumps(about)
    generation = _take(blob, content, f'gs://{bucket}/{name}')
    with _copies.changed:  # only the one writer may delete them: another's save may be under way
        _copies.pending.update(dict.fromkeys(path for path in _copies.strays if path.is_relative_to(folder)))
        _copies.strays.clear()
    ended = threading.Event()

    def refresh():
        nonlocal generation
        while not ended.wait(REFRESH):
            try:
                generation = _conditional_put(blob, content, generation)
            except Exception as error:
                if type(error).__name__ == 'PreconditionFailed':
                    _copies.error = _copies.error or InputError(
                        f'gs://{bucket}/{name}: another run has taken over this folder, since this one had not '
                        'refreshed its lock for ten minutes'
                    )
                    return
                logging.warning('gs://%s/%s: the lock cannot be refreshed (%s)', bucket, name, _reason(error))

    thread = threading.Thread(target=refresh, daemon=True, name='lock')
    thread.start()
    try:
        yield
        finish(folder)
    except BaseException:
        with contextlib.suppress(InputError):
            finish(folder)
        raise
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            blob.delete(if_generation_match=generation, retry=None, timeout=TIMEOUT)


def _take(blob: Any, content: str, what: str) -> int:
    """Makes the object of a lock and returns its generation; takes over one that was left behind."""
    from google.api_core.exceptions import NotFound, PreconditionFailed  # pyright: ignore[reportMissingImports]

    for _ in range(5):  # it may vanish while it is looked at
        try:
            return _patiently(lambda: _conditional_put(blob, content, 0), what)
        except PreconditionFailed:
            pass
        try:
            _patiently(lambda: blob.reload(retry=None, timeout=TIMEOUT), what)
            before = _patiently(lambda: blob.download_as_bytes(retry=None, timeout=TIMEOUT), what)
        except NotFound:
            continue
        try:
            about = json.loads(before)
            who = f'process {about["pid"]} on {about["host"]}, which has been writing here since {about["since"]}'
        except (ValueError, KeyError, TypeError):
            about, who = {}, 'another process'
        if about.get('machine') == _machine() is not None and about['pid'] == os.getpid():
            raise InputError(f'{what}: this process is writing here already')
        age = (_server_time() - blob.updated).total_seconds()
        dead = about.get('machine') == _machine() is not None and not _is_alive(about['pid'])
        if age < STALE and not dead:
            raise InputError(
                f'{what}: locked by {who} (refreshed {age:.0f} s ago); wait until it ends, or name another folder. '
                f'If it has died, the same command goes on in {STALE - age:.0f} s'
            )
        with contextlib.suppress(PreconditionFailed):
            generation = _patiently(lambda: _conditional_put(blob, content, blob.generation), what)
            why = 'has ended' if dead else f'has not refreshed its lock for {age / 60:.0f} min'
            logging.warning('%s: %s, %s; its lock is taken over', what, who, why)
            return generation
    raise InputError(f'{what}: another process is writing here; wait until it ends, or name another folder')


def _conditional_put(blob: Any, content: str, generation: int) -> int:
    options = {'content_type': 'application/json', 'retry': None, 'timeout': TIMEOUT}
    blob.upload_from_string(content, if_generation_match=generation, **options)
    return blob.generation


def _machine() -> str | None:
    """Returns what is the same for processes that see each other's numbers, None where that is not known."""
    with contextlib.suppress(OSError):
        return f'{Path("/proc/sys/kernel/random/boot_id").read_text().strip()} {os.readlink("/proc/self/ns/pid")}'
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _server_time() -> datetime.datetime:
    """Returns the time by the clock of the last answer of the server, since the clocks of computers differ."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=_clock['ahead'])


_clock = {'ahead': 0.0}


def _listed(bucket: str, prefix: str) -> list[Stored]:
    """Returns the objects at or below a name."""

    def listed():
        return list(_client().list_blobs(bucket, prefix=prefix or None, retry=None, timeout=TIMEOUT))

    found = []
    for blob in _patiently(listed, f'gs://{bucket}/{prefix}', missing=f'gs://{bucket}: there is no such bucket'):
        inside = not prefix or blob.name == prefix or blob.name.startswith(f'{prefix}/')
        if not inside or blob.name.endswith('/'):
            continue
        if {'', '.', '..'} & set(blob.name.split('/')):
            raise InputError(f'gs://{bucket}/{blob.name}: this name cannot be a path; rename the object')
        found.append(Stored(blob.name, blob.size or 0, blob.md5_hash or blob.crc32c or '', blob.generation or 0))
    return found


def _time_of(hash_: str) -> int:
    """Returns a time in ns, between 2001 and 2017, computed from the hash of an object."""
    return 10**18 + int.from_bytes(base64.b64decode(hash_)[:8].ljust(8, b'\0')) % (5 * 10**17) // 1000 * 1000


def _library(given: str) -> Any:
    try:
        from google.cloud import storage  # pyright: ignore
    except ImportError:
        raise InputError(
            f"{given}: a bucket needs optional packages; pip install 'm2snet_jax[cloud]', or '.[cloud]' in a clone"
        ) from None
    return storage


@functools.cache
def _client() -> Any:
    storage = _library('gs://')
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

    try:  # no call that is made here needs a project
        client = storage.Client(project=os.environ.get('GOOGLE_CLOUD_PROJECT') or 'unused')
    except GoogleAuthError as error:
        raise InputError(f'gs://: {_CREDENTIALS.format(_reason(error))}') from None
    client._http.hooks['response'].append(_note_time)
    return client


def _note_time(response, *_, **__):
    with contextlib.suppress(TypeError, ValueError):
        there = email.utils.parsedate_to_datetime(response.headers.get('Date'))
        _clock['ahead'] = (there - datetime.datetime.now(datetime.UTC)).total_seconds()
    return response


def _bucket(name: str) -> Any:
    return _client().bucket(name)


def _patiently(
    action: Callable[[], _Value], what: str, seconds: float | None = None, missing: str | None = None
) -> _Value:
    """Returns what an action returns; one that fails for a passing reason is repeated, with growing pauses.

    Raises:
        InputError: no permission, no bucket, no credentials; or a passing reason for `seconds`, by default PATIENCE.
    """
    from google.api_core import exceptions  # pyright: ignore[reportMissingImports]
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

    seconds, pause, begun = PATIENCE if seconds is None else seconds, 1.0, time.monotonic()
    while True:
        try:
            return action()
        except InputError:
            raise
        except exceptions.NotFound as error:
            if missing is None and 'bucket' not in str(error).lower():
                raise
            raise InputError(f'{missing or what}: cannot be found; make it, or correct the name') from None
        except exceptions.PreconditionFailed:
            raise
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise InputError(f'{what}: no permission ({_reason(error)}); grant it, or use another account') from None
        except Exception as error:
            if isinstance(error, GoogleAuthError) and not getattr(error, 'retryable', False):
                raise InputError(f'{what}: {_CREDENTIALS.format(_reason(error))}') from None
            if not _passes(error):
                raise InputError(f'{what}: cannot be used ({_reason(error)})') from None
            if time.monotonic() - begun + pause > seconds:
                raise InputError(f'{what}: no answer for {seconds / 60:.0f} min ({_reason(error)})') from None
            _say_again(what, error, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


_said = {'at': -1e9}


def _say_again(what, error, pause):
    """Logs that something is tried again, one line for all that fail at the same time."""
    now = time.monotonic()
    if now - _said['at'] >= min(pause, 1.0) * 0.9:
        _said['at'] = now
        logging.warning('%s: %s; again in %.0f s', what, _reason(error), pause)


def _passes(error):
    """Whether an error may pass: of the server, of the connection, or of damaged bytes."""
    import requests
    from google.api_core import exceptions  # pyright: ignore[reportMissingImports]
    from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # pyright: ignore[reportMissingImports]

    if isinstance(error, GoogleAuthError):
        return error.retryable
    if isinstance(error, InvalidResponse):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    kinds = (exceptions.ServerError, exceptions.TooManyRequests, DataCorruption)
    others = (requests.exceptions.RequestException, ConnectionError, TimeoutError)
    return isinstance(error, (*kinds, *others)) or getattr(error, 'code', None) == 408


def _reason(error):
    """Returns an error in one short line."""
    text = ' '.join(str(getattr(error, 'message', None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else f'{text[:200]}…'
