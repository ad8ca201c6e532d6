"""The persistent cache of compiled programs after a kill, with damaged entries, and where it cannot be written."""

import logging
import os
import signal
import subprocess
import sys

import jax
import pytest
from jax._src.lru_cache import LRUCache

from m2snet_jax.devices import cache_entries
from m2snet_jax.errors import InputError

ENTRY = b'\x78\x9c' + bytes(1000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of jax with our reading and writing, which takes any bytes as an entry that is complete from 1000 on."""

    def decompress(entry):
        if len(entry) < 1000:
            raise EOFError

    monkeypatch.setattr(LRUCache, 'get', cache_entries._get)
    monkeypatch.setattr(LRUCache, 'put', cache_entries._put)
    monkeypatch.setattr(cache_entries.compilation_cache, 'decompress_executable', decompress)
    monkeypatch.setattr(cache_entries, '_warned', type(cache_entries._warned)())
    return LRUCache(str(tmp_path / 'cache'), max_size=-1)


def test_entries_are_kept(cache):
    assert cache.get('jit_step-1') is None
    cache.put('jit_step-1', ENTRY)
    assert cache.get('jit_step-1') == ENTRY
    assert [path.name for path in cache.path.iterdir()] == ['jit_step-1-cache']


def test_an_entry_that_is_cut_off_is_missing_and_is_replaced(cache):
    (cache.path / 'jit_step-1-cache').write_bytes(ENTRY[:400])
    assert cache.get('jit_step-1') is None
    cache.put('jit_step-1', ENTRY)
    assert cache.get('jit_step-1') == ENTRY


def test_a_bounded_cache_replaces_them_too(cache, tmp_path):
    pytest.importorskip('filelock')
    bounded = LRUCache(str(tmp_path / 'bounded'), max_size=10_000)
    bounded.put('a', ENTRY)
    (bounded.path / 'a-cache').write_bytes(ENTRY[:400])
    assert bounded.get('a') is None
    bounded.put('a', ENTRY)
    assert bounded.get('a') == ENTRY


def test_a_cache_that_cannot_be_written_is_one_warning(cache, monkeypatch, caplog):
    def full(path, content):
        raise InputError(f'{path}: cannot be written (No space left on device)')

    monkeypatch.setattr(cache_entries, 'write', full)
    with caplog.at_level(logging.WARNING, 'absl'):
        for key in ('jit_step-1', 'jit_step-2'):
            cache.put(key, ENTRY)
    (line,) = caplog.messages
    assert 'jit_step-1-cache: cannot be written (No space left on device)' in line


def test_a_cache_that_cannot_be_written_is_found_before_compiling(tmp_path):
    file = tmp_path / 'file'
    file.write_text('')
    before = jax.config.values['jax_compilation_cache_dir']
    try:
        for folder, reason in ((tmp_path / 'new', None), (file, 'exists'), (file / 'below', 'directory'), ('', 'off')):
            jax.config.update('jax_compilation_cache_dir', str(folder))
            if reason is None:
                cache_entries.check_cache()
                assert list(folder.iterdir()) == []
                continue
            with pytest.raises(InputError, match=reason) as caught:
                cache_entries.check_cache()
            assert '\n' not in str(caught.value)
    finally:
        jax.config.update('jax_compilation_cache_dir', before)


def test_programs_that_were_not_kept_are_a_failure_of_compile_only(cache, monkeypatch):
    cache_entries.check_all_kept()
    (cache.path / 'jit_step-1-cache').mkdir()
    assert cache.get('jit_step-1') is None
    with pytest.raises(InputError, match='not in the cache'):
        cache_entries.check_all_kept()


# Compiles two programs; with a word, it is killed when half of the second entry is written.
PROGRAM = """
import os, pathlib, signal, sys
import jax, jax.numpy as jnp
from m2snet_jax.devices.programs import use_compilation_cache
use_compilation_cache()
def first(x): return jnp.sin(x) @ x
def second(x): return jnp.cos(x) @ x
whole = pathlib.Path.write_bytes
def cut(path, content):
    whole(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
x = jnp.ones((3, 3))
jax.jit(first)(x)
if len(sys.argv) > 1:
    pathlib.Path.write_bytes = cut
jax.jit(second)(x)
print('done')
"""


def start(cache, *words):
    environment = {
        **os.environ,
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PLATFORMS': 'cpu',
    }
    program = [sys.executable, '-c', PROGRAM, *words]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)


def entries(cache):
    return {path.name.partition('-')[0]: path for path in cache.glob('jit*-cache')}


def test_a_kill_while_an_entry_is_written_does_not_spoil_later_starts(tmp_path):
    cache = tmp_path / 'cache'
    assert start(cache, 'kill').returncode == -signal.SIGKILL
    assert 'jit_first' in entries(cache)
    assert 'jit_second' not in entries(cache)
    done = start(cache)
    assert (done.stdout, done.stderr, done.returncode) == ('done\n', '', 0)
    written = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in entries(cache).items()}
    assert {'jit_first', 'jit_second'} <= written.keys()
    # An entry that jax itself has cut off, as earlier versions left it, is replaced, and the others are read.
    entries(cache)['jit_second'].write_bytes(written['jit_second'][0][:100])
    done = start(cache)
    assert (done.stdout, done.stderr, done.returncode) == ('done\n', '', 0)
    found = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in entries(cache).items()}
    assert len(found['jit_second'][0]) > 100
    assert found['jit_second'][1] > written['jit_second'][1]
    assert found['jit_first'] == written['jit_first']
