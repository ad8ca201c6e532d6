"""Programs compiled ahead in threads: their order, what is waited for, errors, and the end."""

import threading

import jax
import jax.numpy as jnp
import pytest

from m2snet_jax.devices import programs
from m2snet_jax.devices.programs import CompiledAhead, usable_cores


class Lowered:
    """A lowered program that is compiled when `ready` is set; its program is its key."""

    def __init__(self, key, ready=None, error=None):
        self.key, self.ready, self.error = key, ready, error

    def compile(self):
        if self.ready is not None:
            assert self.ready.wait(20)
        if self.error is not None:
            raise self.error
        return self.key


def finish():
    """Waits until no thread compiles any more."""
    for thread in threading.enumerate():
        if thread.name == programs.COMPILER:
            thread.join(20)
    assert not programs.is_compiling()


def test_one_thread_compiles_in_order_and_the_first_program_is_there_before_the_others():
    ready = {key: threading.Event() for key in 'abc'}
    reports = []
    ahead = CompiledAhead(
        lambda key: Lowered(key, ready[key]), 'abc', lambda key, seconds: reports.append((key, seconds)), threads=1
    )
    ready['a'].set()
    assert ahead('a') == 'a'
    assert ahead('b', give_up=lambda: True) is None
    assert programs.is_compiling()
    ready['b'].set(), ready['c'].set()
    ahead.wait()
    assert ahead('c') == 'c'
    finish()
    assert [key for key, seconds in reports if seconds is None] == ['a', 'b', 'c']
    assert [key for key, seconds in reports if seconds is not None] == ['a', 'b', 'c']
    assert all(seconds >= 0 for _, seconds in reports if seconds is not None)


def test_two_threads_compile_at_once_and_lower_one_at_a_time():
    together, lowering, most = threading.Barrier(2), [], []

    class Meeting(Lowered):
        def compile(self):
            together.wait(20)  # passes only if both are here
            return self.key

    def lower(key):
        lowering.append(key)
        most.append(len(lowering))
        lowering.remove(key)
        return Meeting(key)

    CompiledAhead(lower, range(4), threads=2).wait()
    finish()
    assert most == [1] * 4


def test_there_are_no_more_threads_than_programs_and_none_for_no_program():
    ready = threading.Event()
    ahead = CompiledAhead(lambda key: Lowered(key, ready), 'ab', threads=5)
    assert sum(thread.name == programs.COMPILER for thread in threading.enumerate()) == 2
    ready.set()
    ahead.wait()
    finish()
    CompiledAhead(Lowered, '').wait()
    assert not programs.is_compiling()
    assert usable_cores() >= 1


@pytest.mark.parametrize(('cores', 'threads'), [(1, 1), (2, 1), (4, 3), (64, 5)])
def test_one_core_stays_free(cores, threads, monkeypatch):
    monkeypatch.setattr(programs, 'usable_cores', lambda: cores)
    ready = threading.Event()
    ahead = CompiledAhead(lambda key: Lowered(key, ready), 'abcde')
    assert sum(thread.name == programs.COMPILER for thread in threading.enumerate()) == threads
    ready.set()
    ahead.wait()
    finish()


@pytest.mark.parametrize('where', ['lower', 'compile'])
def test_an_error_of_a_thread_is_raised_where_a_program_is_waited_for(where):
    error = MemoryError('too large')

    def lower(key):
        if where == 'lower' and key == 'b':
            raise error
        return Lowered(key, error=error if key == 'b' else None)

    ahead = CompiledAhead(lower, 'abc', threads=1)
    with pytest.raises(MemoryError, match='too large'):
        ahead('c')  # is never begun
    assert ahead.failed == 'b'
    finish()


def test_nothing_is_begun_after_the_end():
    ready, begun, reports = threading.Event(), [], []

    def lower(key):
        begun.append(key)
        return Lowered(key, ready)

    ahead = CompiledAhead(lower, 'ab', lambda key, seconds: reports.append(seconds), threads=1)
    while not begun:
        pass
    ahead.close()
    ready.set()
    finish()
    assert begun == ['a']
    assert reports == [None]  # the end of a program that nobody waits for is not reported


def test_an_unknown_program_is_not_waited_for():
    ahead = CompiledAhead(Lowered, 'a')
    with pytest.raises(KeyError):
        ahead('b')
    finish()


def test_a_program_from_shapes_is_the_one_of_the_arrays():
    """Compiled from shapes with sharding and donation, it runs on arrays and needs no second compilation."""
    mesh = jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    sharding = jax.sharding.NamedSharding(mesh, jax.P())
    step = jax.jit(lambda state, power: (state + 1, (state**power).sum()), static_argnames='power', donate_argnums=0)
    ahead = CompiledAhead(
        lambda power: step.lower(jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding), power), (2, 3)
    )
    state = jax.device_put(jnp.arange(4.0), sharding)
    for power in (2, 3, 2):
        before, expected = state, float((state**power).sum())
        state, total = ahead(power)(state)
        assert float(total) == expected
        assert before.is_deleted()
    assert state.tolist() == [3, 4, 5, 6]
    assert step._cache_size() == 0
    finish()


def test_options_of_the_compiler_by_platform(monkeypatch):
    monkeypatch.delenv('LIBTPU_INIT_ARGS', raising=False)
    assert programs.compiler_options('cpu') == programs.compiler_options()
    assert programs.compiler_options('cuda') is None
    assert programs.compiler_options('tpu') == {'xla_tpu_enable_deduplicated_calls': 'ENABLED'}
    monkeypatch.setenv('LIBTPU_INIT_ARGS', '--xla_tpu_enable_deduplicated_calls=false')
    assert programs.compiler_options('tpu') is None
