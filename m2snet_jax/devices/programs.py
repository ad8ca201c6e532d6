"""How programs are compiled, ahead of their use too, and where they are kept between runs."""

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, NoReturn, TypeVar

import jax
from jax.stages import Compiled, Lowered
from jaxtyping import Array, Shaped

from m2snet_jax.devices.cache_entries import protect_cache_entries
from m2snet_jax.storage import cache_folder

EXPORT_PLATFORMS = ('cpu', 'cuda', 'tpu')  # for which a program is exported
# jax's own variables override ours.
CACHE, SHORTEST = 'JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'
SHARED_PARTS = 'xla_tpu_enable_deduplicated_calls'  # an option of libtpu
COMPILER = 'compiling ahead'  # name of the threads that compile
INTERRUPTED = 130  # exit status after Ctrl-C
Key = TypeVar('Key')


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, by default in the user's cache folder: five sizes take minutes.

    The smallest ones too: the initial state takes about 60 of them.
    """
    if not os.environ.get(SHORTEST):
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    if not os.environ.get(CACHE):
        jax.config.update('jax_compilation_cache_dir', str(cache_folder() / 'compiled'))
    protect_cache_entries()


def compiler_options(platform: str | None = None) -> dict[str, bool | str] | None:
    """Returns the options for compiling steps for a platform, by default that of this process; None if there are none.

    For a TPU, equal parts of a program are kept once and called, as PyTorch's compiler for TPUs does by default: the
    training step takes .21 GiB instead of .36, of as many estimated cycles. LIBTPU_INIT_ARGS may decide otherwise. For
    a CPU, the library YNN, which leaves cores idle, is not used. Where float64 is enabled it is: without it,
    convolutions in float64 take at least 20 times as long.
    """
    platform = platform or jax.default_backend()
    if platform == 'tpu':
        return None if SHARED_PARTS in os.environ.get('LIBTPU_INIT_ARGS', '') else {SHARED_PARTS: 'ENABLED'}
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # jax defines it at run time
    return {'xla_cpu_experimental_ynn_fusion_type': ''} if platform == 'cpu' and not x64 else None


def one_by_one(function: Callable[[Array], Array], images: Shaped[Array, 'batch ...']) -> Shaped[Array, 'batch ...']:
    """Applies a function that treats each image separately to a batch that is split over all devices.

    On a CPU each device takes its images one after the other, which is 10 % faster, since the maps of one image fit
    into its caches. Any other device takes them all at once.
    """
    images_each, rest = divmod(len(images), jax.device_count())
    if rest or images_each == 1:
        return function(images)

    def in_turn(images):
        turns = images.reshape(-1, images_each, *images.shape[1:]).swapaxes(0, 1)
        outputs = jax.lax.map(function, turns).swapaxes(0, 1)
        return outputs.reshape(-1, *outputs.shape[2:])

    return jax.lax.platform_dependent(images, cpu=in_turn, default=function)


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    affinity = getattr(os, 'sched_getaffinity', None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class CompiledAhead(Generic[Key]):
    """Programs that threads compile ahead, in the order of their keys; `program = programs(key)` waits for one.

    Programs are lowered one at a time, since this is Python, and compiled beside each other. A thread that compiles
    cannot be interrupted. After `close` no further program is begun, and the process ends when the ones begun are
    compiled, or at once by `leave`.

    Args:
        lower: returns the lowered program of a key. It is called in the threads, never twice at once.
        keys: of all programs, in the order in which they will be needed.
        report: called as `report(key, None)` when a program is begun, and with the seconds that it took when it is
            compiled. It is called in the threads.
        threads: the most programs compiled at once; by default one fewer than `usable_cores`, at least 1: the first
            program is there sooner, and the main thread prepares the data and then trains.

    Attributes:
        failed: the key of the first program that could not be lowered or compiled, if any.
    """

    failed: Key | None = None

    def __init__(
        self,
        lower: Callable[[Key], Lowered],
        keys: Iterable[Key],
        report: Callable[[Key, float | None], None] = lambda key, seconds: None,
        threads: int | None = None,
    ):
        self._lower, self._report = lower, report
        self._left = collections.deque(keys)
        self._keys = frozenset(self._left)
        self._programs: dict[Key, Compiled] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._changed, self._lowering = threading.Condition(), threading.Lock()
        for _ in range(min(threads or max(1, usable_cores() - 1), len(self._left))):
            threading.Thread(target=self._work, name=COMPILER).start()

    def __call__(self, key: Key, give_up: Callable[[], bool] = lambda: False) -> Compiled | None:
        """Returns the program of a key, or None as soon as `give_up()` is true before it is compiled.

        Raises:
            KeyError: a key that is not among those given.
            Exception: whatever was raised where any of the programs was lowered or compiled; the first one.
        """
        if key not in self._keys:
            raise KeyError(key)
        with self._changed:
            while self._error is None and key not in self._programs:
                if give_up():
                    return None
                self._changed.wait(0.1)  # seconds between two calls of `give_up`
            if self._error is not None:
                raise self._error
            return self._programs[key]

    def wait(self) -> None:
        """Waits for all programs; raises as a call does."""
        for key in self._keys:
            self(key)

    def close(self) -> None:
        """Begins no further program. It does not wait for those that are being compiled."""
        self._closed = True
        self._left.clear()

    def _work(self):
        key = None
        try:
            while True:
                with self._lowering:
                    try:
                        key = self._left.popleft()
                    except IndexError:  # none left
                        return
                    self._report(key, None)
                    begun = time.monotonic()
                    lowered = self._lower(key)
                if self._closed:
                    return
                program = lowered.compile()
                if self._closed:
                    return
                self._report(key, time.monotonic() - begun)
                with self._changed:
                    self._programs[key] = program
                    self._changed.notify_all()
        except BaseException as error:  # raised where the program is waited for
            self.close()
            with self._changed:
                if self._error is None:
                    self._error, self.failed = error, key
                self._changed.notify_all()


def is_compiling() -> bool:
    """Whether a thread of a `CompiledAhead` is at work."""
    return any(thread.name == COMPILER for thread in threading.enumerate())


def leave(status: int) -> NoReturn:
    """Ends the process at once, with a status, although programs are being compiled.

    A usual exit waits for them.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a closed pipe
            stream.flush()
    if jax.distributed.is_initialized() and status != INTERRUPTED:
        jax.distributed.shutdown()  # waits for the other processes, which end too
    os._exit(status)
