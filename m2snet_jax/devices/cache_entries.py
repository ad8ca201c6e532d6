"""The files of jax's persistent compilation cache: written completely or not at all, and replaced where damaged."""

import os
import threading

import jax
from absl import logging
from jax._src import compilation_cache, lru_cache  # jax has no public way to replace how entries are written

from m2snet_jax.errors import InputError
from m2snet_jax.storage import write

_read, _write = lru_cache.LRUCache.get, lru_cache.LRUCache.put  # of jax itself
_writing = threading.Lock()  # two threads may compile the same program
_warned = threading.Event()


def protect_cache_entries() -> None:
    """Makes jax write each entry of its cache atomically, and compile and write again one that is cut off.

    jax itself writes in place, and does not replace an entry that exists: one that a kill has cut off would be
    compiled again by every later start. Where the cache cannot be read or written, a warning is logged once.
    """
    lru_cache.LRUCache.get, lru_cache.LRUCache.put = _get, _put


def check_cache() -> None:
    """Raises InputError if jax's cache is switched off, or its folder or bucket cannot be written."""
    folder = jax.config.values['jax_compilation_cache_dir']
    if not jax.config.values['jax_enable_compilation_cache'] or not folder:
        raise InputError('the cache of compiled programs is switched off; unset JAX_ENABLE_COMPILATION_CACHE')
    try:
        probe = lru_cache.LRUCache(folder, max_size=-1).path / f'probe-{os.getpid()}'
        probe.write_bytes(b'')
        probe.unlink()
    except Exception as error:  # the libraries of buckets raise errors of their own
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__
        raise InputError(
            f'{folder}: compiled programs cannot be written there ({reason}); '
            'set JAX_COMPILATION_CACHE_DIR to a folder or bucket that can be written'
        ) from None


def check_all_kept() -> None:
    """Raises InputError if a program of this process could not be read from the cache or written to it."""
    if _warned.is_set():
        raise InputError('some compiled programs are not in the cache, for the reason above; give the command again')


def _get(self: lru_cache.LRUCache, key: str) -> bytes | None:
    """Returns an entry; None where there is none, or only a part of one."""
    try:
        entry = _read(self, key)
    except OSError as error:
        _warn(f'{self.path}: compiled programs cannot be read ({error.strerror or error})')
        return None
    if entry is not None:
        try:
            compilation_cache.decompress_executable(entry)
        except Exception:  # zlib and zstandard raise errors of their own
            return None
    return entry


def _put(self: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """Writes an entry. jax calls this only where `_get` found none that it can use."""
    path = self.path / f'{key}-cache'
    try:
        with _writing:
            if self.eviction_enabled or '://' in str(path):  # a bucket's objects appear when they are complete
                path.unlink(missing_ok=True)
                _write(self, key, value)
            else:
                write(path, value)
    except (OSError, InputError) as error:
        _warn(f'compiled programs are not kept for the next start: {error}')


def _warn(line: str) -> None:
    """Logs a warning, the first time only: a run compiles about a hundred programs."""
    if not _warned.is_set():
        _warned.set()
        logging.warning(line)
