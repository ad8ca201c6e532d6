"""The TPU compiler's estimates, read from the text of its programs."""

import dataclasses

import pytest

from m2snet_jax.planning.chips import CHIPS
from m2snet_jax.planning.compilation import Figures
from m2snet_jax.planning.cycles import count_cycles, part_of
from m2snet_jax.planning.planning_text import text
from m2snet_jax.planning.scaling import scaling

PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused.1 (x: f32[8]) -> f32[8] {
  ROOT %add.1 = f32[8]{0:T(128)} add(%x, %x), metadata={op_name="jit(f)/optimizer/add"}
}

%body.1 (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.3 = f32[8]{0} fusion(%b), calls=%fused.1,\
 metadata={op_name="jit(f)/while/body/encoder/layer3/add"}, backend_config={"window":{"estimated_cycles":"100"}}
}

%condition.1 (c: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(4)
  %index.1 = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%index.1, %constant.1), direction=LT, backend_config={"estimated_cycles":"1"}
}

%async_collective_fusion.1 (x: f32[8]) -> f32[8] {
  %fusion.4 = f32[8]{0} fusion(%x), calls=%fused.1,\
 metadata={op_name="jit(f)/pyramid/x5_x4/resize/dot"}, backend_config={"estimated_cycles":"30"}
}

%never_called (x: f32[8]) -> f32[8] {
  %fusion.9 = f32[8]{0} fusion(%x), calls=%fused.1, backend_config={"estimated_cycles":"999"}
}

ENTRY %main.1_spmd (param: f32[8]) -> f32[8] {
  %fusion.1 = f32[8]{0:T(128)} fusion(%param), calls=%fused.1,\
 metadata={op_name="jit(f)/optimizer/add"}, backend_config={"estimated_cycles":"7"}
  %while.1 = (s32[], f32[8]) while(%fusion.1), condition=%condition.1, body=%body.1
  %fusion.2 = f32[8]{0} fusion(%while.1), calls=%async_collective_fusion.1, backend_config={"estimated_cycles":"5"}
  ROOT %copy.1 = f32[8]{0} copy(%fusion.2)
}
"""


def test_cycles_are_summed_by_part_and_those_of_a_loop_times_its_trips():
    found = count_cycles(PROGRAM)
    assert found == {'encoder/layer3': 4 * 100, 'resize': 30, 'other': 4 * 1 + 5, 'optimizer': 7}
    assert list(found or ()) == ['encoder/layer3', 'resize', 'other', 'optimizer']


def test_a_loop_counts_once_whose_condition_is_another():
    found = count_cycles(PROGRAM.replace('direction=LT', 'direction=NE'))
    assert found == {'encoder/layer3': 100, 'resize': 30, 'other': 1 + 5, 'optimizer': 7}


def test_a_program_without_estimates_has_none():
    assert count_cycles('ENTRY %main (x: f32[2]) -> f32[2] {\n  ROOT %add = f32[2]{0} add(%x, %x)\n}') is None


@pytest.mark.parametrize(
    ('scopes', 'part'),
    [
        ('jvp(M2SNet)/encoder/layer3/block2/conv1/conv_general_dilated', 'encoder/layer3'),
        ('transpose(jvp(M2SNet))/encoder/conv1/0/conv_general_dilated', 'encoder/stem'),
        ('jvp(M2SNet)/encoder/bn1/sub', 'encoder/stem'),
        ('jvp(MSNet)/reduction/2/conv/add', 'decoder'),
        ('transpose(jvp(M2SNet))/pyramid/x3_x2_x1/full_one_5/norm/mul', 'units'),
        ('jvp(M2SNet)/pyramid/x3_x2_x1/resize/dot_general', 'resize'),
        ('jvp(M2SNet)/enhancement/level1/norm/mul', 'decoder'),
        ('jvp(M2SNet)/x5_dem_5/conv/add', 'decoder'),
        ('jvp(M2SNet)/output2/conv/add', 'decoder'),
        ('jvp(loss)/lossnet/prediction/blocks/0/1/conv_general_dilated', 'lossnet/prediction'),
        ('transpose(jvp(loss))/lossnet/prediction/resize/dot_general', 'resize'),
        ('jvp(loss)/lossnet/mask/blocks/0/1/conv_general_dilated', 'lossnet/mask'),
        ('jvp(loss)/lossnet/reduce_sum', 'losses'),
        ('jvp(loss)/structure_loss/abs', 'losses'),
        ('optimizer/mul', 'optimizer'),
        ('ema/add', 'ema'),
        ('copy', 'other'),
    ],
)
def test_an_operation_belongs_to_the_part_that_its_scopes_name(scopes, part):
    assert part_of(f'jit(train_step)/{scopes}') == part


def report(**of_step):
    """A report of one training step on one chip of v5e."""
    chip = CHIPS['v5e']
    step = {'kind': 'training', 'size': 352, 'batch': 16, 'images_a_chip': 16}
    step |= dataclasses.asdict(Figures(fits=True, flops=1.97e12, seconds=700, cpu_seconds=650)) | of_step
    about = {'topology': 'v5e:1x1', 'chips': 1, 'memory': chip.memory, 'usable': chip.memory, 'peak': chip.peak}
    about |= {'clock': chip.clock, 'config': 'kvasir', 'model': 'm2snet', 'encoder': 'res2net50', 'dtype': 'bfloat16'}
    about |= {'remat': False, 'lossnet': 0.1, 'config_batch': 16, 'largest': None}
    return about | {'steps': [step], 'scaling': [scaling(chip, 0.1, {}, 1, (1, 1))]}


def test_the_report_shows_cycles_beside_the_arithmetic_at_peak():
    """150 million cycles at 1.5 GHz are 100 ms; 1.97 TFLOP at 197 TFLOP/s are 10 ms."""
    words = text(report(estimated_cycles=150_000_000, cycles_by_part={'units': 90_000_000, 'other': 60_000_000}))
    total = 'estimated cycles: 150.0 million, 100.0 ms at 1.5 GHz; '
    at_peak = 'the arithmetic alone takes 10.0 ms at peak, 10% of it'
    assert total + at_peak in words
    assert 'the compiler’s guess, not a measurement' in words
    assert ['units', '90.00', 'million', '60%'] in [line.split() for line in words.splitlines()]
    assert ['1', '100.0', '0.00', '0.00', '100.0%'] in [line.split() for line in words.splitlines()]
    assert 'compiled in 700 s, 650 s of processor time' in words


def test_the_report_of_a_compiler_without_estimates_has_no_line_of_them():
    assert 'cycles' not in text(report() | {'scaling': []})


def test_the_report_of_a_gpu_counts_its_kernels():
    words = text(report(kernels={'reductions': 400, 'convolutions': 143}))
    assert '543 kernels: 143 convolutions, 400 reductions' in words
