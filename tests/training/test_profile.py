"""Traces of training steps, read back from what the profiler wrote."""

import jax
import jax.numpy as jnp
import pytest

from m2snet_jax import InputError, load_config
from m2snet_jax.config_values import check_values, profiled_steps
from m2snet_jax.training.profile import Profile, check_profile


@pytest.mark.parametrize('value', ['', '5', '5:', ':5', '0:3', '7:5', '2:-3', 'a:b', '1.5:3', '3:4:5'])
def test_bad_values_are_one_line(value):
    with pytest.raises(InputError, match='give the first and the last step') as caught:
        check_values(load_config('default', **{'log.profile': value}))
    assert str(caught.value).startswith(f'--config.log.profile={value}: ')
    assert '\n' not in str(caught.value)


def test_steps_are_counted_from_one_with_both_ends():
    assert list(profiled_steps('3:5')) == [3, 4, 5]
    assert list(profiled_steps('7:7')) == [7]
    assert list(profiled_steps(None)) == []
    check_values(load_config('default', **{'log.profile': '101:103'}))


def test_steps_beyond_the_run_are_refused():
    check_profile(range(8, 11), 10)
    check_profile(range(0), 10)
    with pytest.raises(InputError, match=r'^--config.log.profile=9:11: the run has 10 steps'):
        check_profile(range(9, 12), 10)


@jax.jit
def some_step(x):
    with jax.named_scope('layer'):
        return jnp.sin(x @ x)


def run(profile, first=1, last=8, error_at=None):
    x = jnp.ones((20, 20))
    with profile:
        for step in range(first, last + 1):
            profile.begin(step, x)
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
                x = some_step(x)
            profile.end(step, x)
            if step == error_at:
                raise ArithmeticError


def traced_steps(folder):
    (path,) = folder.glob('plugins/profile/*/*.xplane.pb')
    assert list(path.parent.glob('*.trace.json.gz'))  # for Perfetto
    events = [
        event
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
    ]
    return sorted(dict(event.stats)['step_num'] for event in events if event.name.startswith('train'))


def test_the_trace_has_the_steps_asked_for(tmp_path, capsys):
    run(Profile(range(3, 6), tmp_path, 0))
    assert traced_steps(tmp_path) == [3, 4, 5]
    assert capsys.readouterr().err == f'the trace of steps 3 to 5 is in {tmp_path}/plugins/profile\n'


def test_a_resumed_run_traces_what_is_left_of_them(tmp_path, capsys):
    run(Profile(range(3, 6), tmp_path, 4), first=5)
    assert traced_steps(tmp_path) == [5]
    run(Profile(range(3, 6), tmp_path / 'later', 6), first=7)
    assert not (tmp_path / 'later').exists()
    assert capsys.readouterr().err.splitlines()[-1] == 'nothing is profiled: steps 3 to 5 were made before'


def test_a_trace_ends_with_the_run(tmp_path):
    with pytest.raises(ArithmeticError):
        run(Profile(range(2, 6), tmp_path, 0), error_at=3)
    assert traced_steps(tmp_path) == [2, 3]


def test_without_steps_nothing_is_traced(tmp_path):
    run(Profile(range(0), tmp_path, 0))
    assert list(tmp_path.iterdir()) == []
