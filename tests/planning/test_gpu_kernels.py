"""Kernels counted in the text of a GPU's program."""

from m2snet_jax.planning.gpu_kernels import count_kernels

PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused_transpose.1 (x: f32[8,2]) -> f32[2,8] {
  ROOT %transpose.1 = f32[2,8]{1,0} transpose(%x), dimensions={1,0}
}

%fused_computation (x: f32[8]) -> f32[8] {
  %copy.7 = f32[8]{0} copy(%x)
}

ENTRY %main.1 (param: f32[8]) -> f32[8] {
  %param = f32[8]{0} parameter(0)
  %conv.1 = (f32[8]{0}, u8[0]{0}) custom-call(%param), custom_call_target="__cudnn$convForward"
  %conv.2 = (f32[8]{0}, u8[0]{0}) custom-call(%param), custom_call_target="__cudnn$convBackwardFilter"
  %get-tuple-element.1 = f32[8]{0} get-tuple-element(%conv.1), index=0
  %gemm.1 = (f32[8]{0}, s8[64]{0}) custom-call(%param), custom_call_target="__cublas$lt$matmul"
  %topk.1 = f32[8]{0} custom-call(%param), custom_call_target="__other"
  %fusion.1 = f32[2,8]{1,0} fusion(%param), kind=kInput, calls=%fused_transpose.1
  %fusion.2 = f32[8]{0} fusion(%param), kind=kInput, calls=%fused_reduce_subtract.3
  %fusion.3 = f32[8]{0} fusion(%param), kind=kLoop, calls=%fused_reduce_window
  %fusion.4 = f32[8]{0} fusion(%param), kind=kLoop, calls=%fused_computation
  ROOT %copy.1 = f32[8]{0} copy(%fusion.4)
}
"""


def test_kernels_are_counted_by_kind_in_the_entry_alone():
    assert count_kernels(PROGRAM) == {
        'convolutions': 2,
        'matrix products': 1,
        'transposes': 1,
        'reductions': 1,
        'other fusions': 2,
        'copies': 1,
    }


def test_a_program_of_another_platform_has_none():
    assert (
        count_kernels('ENTRY %main (x: f32[2]) -> f32[2] {\n  ROOT %fusion = f32[2]{0} fusion(%x), calls=%f\n}') is None
    )
    assert count_kernels('') is None
