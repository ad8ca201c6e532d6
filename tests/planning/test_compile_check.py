"""Steps compiled for other machines: what is counted, searched, modelled and said."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from m2snet_jax.benchmark.layouts import time_layouts
from m2snet_jax.build import build_model
from m2snet_jax.commands.benchmark import main as benchmark
from m2snet_jax.commands.compile_check import global_batch, main
from m2snet_jax.config import load_config
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.errors import InputError
from m2snet_jax.planning.chips import CHIPS
from m2snet_jax.planning.collectives import count_collectives
from m2snet_jax.planning.compilation import compile_step, largest_batch, lower_step
from m2snet_jax.planning.scaling import scaling

TPU = """\
HloModule jit_train_step, is_scheduled=true

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main (param: f32[64,3]) -> f32[64] {
  %fusion.1 = f32[64]{0:T(128)} fusion(%param), kind=kLoop, calls=%fused, metadata={op_name="all-reduce(x)"}
  %all-reduce.1 = f32[64]{0:T(128)S(1)} all-reduce(%fusion.1), channel_id=1, to_apply=%region_0.1.clone
  %all-reduce.2 = (bf16[8,3]{1,0:T(8,128)(2,1)}, f32[]{:T(128)}, /*index=2*/pred[7]{0}) all-reduce(%a, %b, %c)
  ROOT %gte = f32[64]{0} get-tuple-element(%all-reduce.2), index=0
}

%async_collective_fusion.1 (param: f32[2,1,64]) -> f32[2,4,64] {
  %all-gather.1 = f32[2,4,64]{2,0,1:T(2,128)} all-gather(%param), channel_id=2, dimensions={1}
}

%async_collective_fusion.2 (param: f32[2,1,64]) -> f32[2,4,64] {
  %all-gather.2 = f32[2,4,64]{2,0,1:T(2,128)S(1)} all-gather(%param), channel_id=2, dimensions={1}
}
"""
GPU = """\
  %all-reduce-start = f32[100]{0} all-reduce-start(%x), channel_id=1, to_apply=%add
  %all-reduce-done = f32[100]{0} all-reduce-done(%all-reduce-start)
  %ags = (f32[10]{0}, f32[40]{0}) all-gather-start(%y), dimensions={0}
  %agd = f32[40]{0} all-gather-done(%ags)
  %cps = (f32[9]{0}, f32[9]{0}, u32[], u32[]) collective-permute-start(%z), source_target_pairs={{0,1}}
  %cpd = f32[9]{0} collective-permute-done(%cps)
  %rs = s8[5,2]{1,0} reduce-scatter(%w), dimensions={0}
  %a2a = f8e4m3fn[16]{0} all-to-all(%v), dimensions={0}
"""


def test_collectives_of_a_tpu_program():
    reduced = {'count': 2, 'bytes': 315, 'sizes': [256, 8 * 3 * 2 + 4 + 7], 'asynchronous': 0}
    gathered = {'count': 1, 'bytes': 2048, 'sizes': [2048], 'asynchronous': 1}
    assert count_collectives(TPU) == {'all-reduce': reduced, 'all-gather': gathered}


def test_asynchronous_collectives_count_once_and_by_their_results():
    found = count_collectives(GPU)
    assert {kind: (one['count'], one['bytes'], one['asynchronous']) for kind, one in found.items()} == {
        'all-gather': (1, 160, 1),
        'all-reduce': (1, 400, 1),
        'all-to-all': (1, 16, 0),
        'collective-permute': (1, 36, 1),
        'reduce-scatter': (1, 10, 0),
    }


def test_a_program_of_one_device_has_no_collectives():
    assert count_collectives('ENTRY %main {\n  ROOT %dot = f32[2,2]{1,0} dot(%a, %b)\n}') == {}


def measured(size_of):
    """A fake compiler that counts what it is asked for."""
    asked = []

    def measure(images):
        asked.append(images)
        return size_of(images)

    return measure, asked


def confirm(images):
    return True


def test_search_of_a_straight_line_takes_four_compilations():
    measure, asked = measured(lambda images: 1000 + 250 * images)
    assert largest_batch(measure, confirm, 16000, 16) == (
        56,
        64,
    )  # 60 would fit, but above sixteen only eights are tried
    assert asked == [16, 32, 56, 64]


def test_search_goes_by_ones_among_small_batches():
    measure, asked = measured(lambda images: 1000 + 1000 * images)
    assert largest_batch(measure, confirm, 12000, 4) == (11, 12)
    assert asked == [4, 8, 11, 12]


def test_search_where_the_compiler_refuses_and_memory_is_no_line():
    def size_of(images):
        return None if images > 40 else 100 * images + (500 if images > 24 else 0)

    measure, asked = measured(size_of)
    low, high = largest_batch(measure, confirm, 3000, 16)
    assert (low, high) == (24, 32)
    assert len(asked) == len(set(asked)) <= 6


def test_search_halves_what_is_left_where_the_line_misleads():
    """As with remat on a TPU: needs that grow slower and slower, and then a refusal, which names no size."""

    def size_of(images):
        return None if images > 126 else 200 * images if images < 72 else 14400 + 20 * (images - 72)

    measure, asked = measured(size_of)
    assert largest_batch(measure, confirm, 16000, 16) == (120, 128)
    assert len(asked) == len(set(asked)) <= 8
    assert all(images % 8 == 0 for images in asked)


def test_search_goes_down_from_a_batch_that_does_not_fit():
    measure, _ = measured(lambda images: None if images > 9 else 100 * images)
    assert largest_batch(measure, confirm, 750, 16) == (7, 8)


def test_search_finds_that_nothing_fits():
    measure, asked = measured(lambda images: 10**9)
    assert largest_batch(measure, confirm, 1000, 4) == (0, 1)
    assert asked == [4, 2, 1]


@pytest.mark.parametrize(('most', 'found'), [(56, (56, 64)), (30, (24, 32)), (14, (14, 15)), (0, (0, 1))])
def test_search_goes_down_from_what_is_not_confirmed(most, found):
    measure, _ = measured(lambda images: 1000 + 250 * images)
    assert largest_batch(measure, lambda images: images <= most, 16000, 16) == found


def test_search_stops_after_its_attempts():
    measure, asked = measured(lambda images: 1)
    low, high = largest_batch(measure, confirm, 1000, 16, attempts=4)
    assert high is None
    assert low == max(asked)
    assert len(asked) == 4


def test_scaling_by_hand():
    chip = CHIPS['v5e']
    collectives = {
        'all-reduce': {'count': 3, 'bytes': 100_000_008},
        'all-gather': {'count': 5, 'bytes': 4_000_000},  # over four chips: each gives a quarter
    }
    whole = scaling(chip, 0.080, collectives, 4, (16, 16))  # two rings, 50 GB/s each way of each link
    assert whole['chips'] == 256
    assert whole['computation'] == 0.080
    assert whole['transfer'] == pytest.approx((2 * 100_000_008 + 256_000_000) * 255 / 256 / 200e9)
    assert whole['hops'] == pytest.approx((3 * 2 + 5) * 16e-6)
    assert whole['efficiency'] == pytest.approx(0.080 / (0.080 + whole['transfer'] + whole['hops']))
    small = scaling(chip, 0.080, collectives, 4, (4, 4))  # lines: one way, three hops along each
    assert small['transfer'] == pytest.approx((2 * 100_000_008 + 16_000_000) * 15 / 16 / 100e9)
    assert small['hops'] == pytest.approx((3 * 2 + 5) * 6e-6)


def test_one_chip_loses_nothing_and_a_faster_chip_more():
    chip = CHIPS['v4']
    reduced = {'all-reduce': {'count': 1, 'bytes': 10**8}}
    assert scaling(chip, 1e-3, reduced, 1, (1, 1, 1))['efficiency'] == 1
    by_speed = [scaling(chip, seconds, reduced, 64, (4, 4, 4))['efficiency'] for seconds in (0.2, 0.1, 0.05)]
    assert by_speed == sorted(by_speed, reverse=True)


def test_a_layout_that_fails_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr('m2snet_jax.benchmark.layouts.LAYOUTS', ((1, 2),))
    with pytest.raises(InputError, match=r'1 process\(es\) with 2 device\(s\): --config.batch=3: must be divisible by'):
        time_layouts(['--config=quickstart', '--batch=3'])


@pytest.mark.slow
def test_scaling_is_measured_in_every_layout(capsys):
    small = [f'--config.{key}={value}' for key, value in SMALL.items() if key != 'data.sizes']
    arguments = ['--config=kvasir', *small, '--batch=4', '--repeats=2', '--what=scaling', '--json']
    assert benchmark(['benchmark', *arguments]) == 0
    results = json.loads(capsys.readouterr().out)['scaling']
    assert [(one['processes'], one['devices']) for one in results] == [(1, 1), (1, 2), (2, 1)]
    assert results[0]['lost'] == 0
    for one in results:
        assert one['lost'] == pytest.approx(1 - one['images_per_second'] / results[0]['images_per_second'])


@pytest.mark.parametrize(
    ('asked', 'of_config', 'gradient_accumulation', 'chips', 'batch'),
    [(None, 16, 1, 4, 16), (None, 16, 1, 256, 4096), (512, 16, 1, 256, 512), (None, 16, 2, 16, 256)],
)
def test_batch_is_the_configs_or_as_many_on_each_chip(asked, of_config, gradient_accumulation, chips, batch):
    config = load_config('kvasir', batch=of_config, gradient_accumulation=gradient_accumulation)
    assert global_batch(asked, config, chips) == batch


def test_batch_that_the_chips_cannot_share_is_refused():
    with pytest.raises(InputError, match='--batch=100: must be divisible by the 16 chips, as 96'):
        global_batch(100, load_config('kvasir'), 16)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--topology=v9:2x2'], "unknown chip 'v9'; give one like v4:4x4x4"),
        (['--topology=v5e:two'], "'two' is no shape; give one like v5e:4x4"),
        (['--topology=v5e'], "'' is no shape"),
        ([], '--topology is missing'),
        (['--topology=v5e:2x2', '--sizes=12'], '--sizes=12: give sides of at least 33'),
        (['--topology=v5e:2x2', 'more'], 'more: not understood'),
    ],
)
def test_what_cannot_start_is_one_line_and_status_2(arguments, words, capsys):
    assert main(['compile-check', '--config=kvasir', *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('topology', 'package'),
    [('v5e:2x2', 'libtpu==0.0.42.*'), ('h100:1x1x4', 'jax-cuda12-pjrt'), ('a100:1x1x1', 'jax-cuda12-pjrt')],
)
def test_a_missing_compiler_is_named_with_its_pip_command(topology, package, monkeypatch, capsys):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.delenv('TPU_LIBRARY_PATH', raising=False)
    assert main(['compile-check', '--config=kvasir', f'--topology={topology}']) == 2
    error = capsys.readouterr().err
    assert 'pip install' in error
    assert package in error
    assert error.count('\n') == 1


SMALL = {
    'model.encoder': 'res2net14',
    'model.encoder_weights': 'no such file',  # sizes need no weights
    'data.size': 48,
    'data.sizes': (48,),
    'loss.lossnet_size': 16,
}
VGG = 7_635_264  # parameters of VGG-16 up to relu4_3


@pytest.mark.slow
def test_the_real_step_is_compiled_once_and_its_arguments_are_state_lossnet_and_batch(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    config = load_config('kvasir', **SMALL)
    lowered = lower_step('training', config, make_mesh(), 2, 48)
    begun = []
    figures = compile_step(lowered, 10**9, 'here', begun.append)
    with config.unlocked():
        config.model.encoder_weights = None
    _, params, stats = jax.eval_shape(lambda: split(build_model(config)))
    state = 4 * (2 * size(params) + size(stats) + 2)  # momentum; the counts of step and schedule
    assert figures.arguments == state + 4 * VGG + 2 * 48 * 48 * 4 * 4
    assert figures.aliased == state  # all of the old state is given back
    assert figures.needed >= figures.peak >= figures.arguments
    assert figures.flops > 1e9
    assert (figures.fits, figures.refusal, figures.collectives) == (True, None, {})
    assert figures.estimated_cycles is None  # the compiler for CPUs gives none

    again = compile_step(lowered, figures.needed - 1, 'here', begun.append)
    assert len(begun) == 1
    assert not again.fits
    assert dataclasses.replace(again, fits=True) == figures
    assert list(tmp_path.rglob('*.json')) == list((tmp_path / 'm2snet_jax' / 'compile-check').glob('*.json'))


def split(model):
    return nnx.split(model, nnx.Param, nnx.BatchStat)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_refusal_is_kept_in_the_compilers_words(tmp_path, monkeypatch):
    class Refused:
        def as_text(self):
            return 'a program'

        def compile(self, options):
            assert options == {'xla_tpu_enable_deduplicated_calls': 'ENABLED'}
            raise RuntimeError('RESOURCE_EXHAUSTED: Used 20.1G of 15.75G hbm.\n\nLargest program allocations: …')

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    figures = compile_step(Refused(), 10**12, 'v5e:2x2', platform='tpu')
    assert not figures.fits
    assert figures.refusal == 'RESOURCE_EXHAUSTED: Used 20.1G of 15.75G hbm.'


ON_FOUR = """
import dataclasses, json, sys
import jax
jax.config.update('jax_num_cpu_devices', 4)
from m2snet_jax.config import load_config
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.planning.compilation import compile_step, lower_step
config = load_config('kvasir', **json.loads(sys.argv[1]))
for kind in ('training', 'prediction'):
    lowered = lower_step(kind, config, make_mesh(), 8, 48)
    print(json.dumps(dataclasses.asdict(compile_step(lowered, 1e12, 'here'))))
"""


@pytest.mark.slow
def test_over_four_devices_gradients_are_reduced_and_prediction_needs_no_word(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    run = [sys.executable, '-c', ON_FOUR, json.dumps(SMALL)]
    done = subprocess.run(run, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    training, prediction = map(json.loads, done.stdout.splitlines())
    config = load_config('kvasir', **{**SMALL, 'model.encoder_weights': None})
    _, params, _ = jax.eval_shape(lambda: split(build_model(config)))
    assert set(training['collectives']) == {'all-reduce', 'all-gather'}
    reduced, gathered = (training['collectives'][kind] for kind in ('all-reduce', 'all-gather'))
    of_norms = sum(size(leaf) for path, leaf in nnx.to_flat_state(params) if path[-1] in ('scale', 'bias'))
    assert 4 * (size(params) - of_norms) <= reduced['bytes'] <= 4 * size(params) + 100  # gradients, and the losses
    assert gathered['count'] == 2 * 89  # of every call of a norm, once forward and once backward
    assert prediction['collectives'] == {}


@pytest.mark.slow
def test_compiles_for_a_tpu(tmp_path, monkeypatch, capsys):
    pytest.importorskip('libtpu', reason='compiling for a TPU needs libtpu')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    small = [f'--config.{key}={value}' for key, value in SMALL.items() if key != 'data.sizes']
    arguments = ['--config=kvasir', *small, '--topology=v5e:2x2', '--sizes=48', '--nosearch', '--json']
    assert main(['compile-check', *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    training, prediction = report['steps']
    assert (report['chips'], training['batch'], training['images_a_chip']) == (4, 16, 4)
    assert training['fits']
    assert training['collectives']['all-gather']['count'] > 50
    assert training['estimated_cycles'] == sum(training['cycles_by_part'].values()) > 0
    assert {'encoder/layer1', 'units', 'decoder', 'lossnet/mask', 'optimizer'} <= training['cycles_by_part'].keys()
    assert training['cpu_seconds'] > 0
    assert prediction['collectives'] == {}
    assert [one['chips'] for one in report['scaling']] == [4, 16, 64, 256]
    assert main(['compile-check', *arguments[:-1]]) == 0  # from the cache, in words
    words = capsys.readouterr().out
    assert 'fits: needs' in words
    assert 'estimated cycles: ' in words
