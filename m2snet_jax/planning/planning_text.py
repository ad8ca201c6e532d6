"""The report of compile-check as text."""

from typing import Any

from m2snet_jax.planning.scaling import HOP


def text(report: dict[str, Any]) -> str:
    """Returns the report of `check` as text."""
    chips = report['chips']
    lines = [
        f'{report["config"]}: {report["model"]}, {report["encoder"]}, {report["dtype"]}, LossNet weight '
        f'{report["lossnet"]}, remat {"on" if report["remat"] else "off"}',
        f'{report["topology"]}: {chips} chips of {_gib(report["memory"])}, of which a program may fill '
        f'{_gib(report["usable"])}; figures are the compiler’s, for one chip',
    ]
    for step in report['steps']:
        lines += ['', f'{step["kind"]}, {step["size"]}², {step["images_a_chip"]} images a chip, {step["batch"]} in all']
        lines += _step_lines(step, report)
    trained = report['steps'][0]['batch']
    if trained != report['config_batch']:
        lines += ['', f'train with --config.batch={trained}: the config says {report["config_batch"]}']
    if largest := report['largest']:
        edge = f'{largest["refused"]} would not' if largest['refused'] else 'more was not tried'
        lines += [
            '',
            f'largest training batch at {largest["size"]}²: {largest["images_a_chip"]} images a chip fit '
            f'({largest["batch"]} in all), {edge}',
        ]
    if report['scaling']:
        lines += [
            '',
            f'model of scaling, {report["steps"][0]["images_a_chip"]} images a chip, published speeds, '
            f'{HOP * 1e6:g} µs a hop, nothing overlaps:',
            'ms of computation on a chip, by the compiler’s estimates, and of transfer and hops between chips',
            '  chips  computation  transfer   hops  efficiency',
        ]
        lines += [
            f'  {one["chips"]:5}  {one["computation"] * 1e3:11.1f}  {one["transfer"] * 1e3:8.2f}  '
            f'{one["hops"] * 1e3:5.2f}  {one["efficiency"]:10.1%}'
            for one in report['scaling']
        ]
    return '\n'.join(lines)


def _step_lines(step, report):
    """The figures of one step, a line each."""
    usable = report['usable']
    if step['refusal']:
        return [f'  DOES NOT FIT: {step["refusal"]}']
    lines = [
        f'  arguments {_gib(step["arguments"])}, temporaries {_gib(step["temporaries"])}, '
        f'program {_gib(step["program"])}; peak {_gib(step["peak"])}',
        f'  {"fits" if step["fits"] else "DOES NOT FIT"}: needs {_gib(step["needed"])} of {_gib(usable)} '
        f'({step["needed"] / usable:.0%})',
    ]
    if step['flops']:
        accessed = f', {step["accessed"] / 1e9:.1f} GB read and written' if step['accessed'] else ''
        lines.append(f'  {step["flops"] / 1e12:.3f} TFLOP{accessed}')
    for kind, found in step['collectives'].items():
        small = sum(size <= 2**16 for size in found['sizes'])
        beside = f', {found["asynchronous"]} run beside something else' if found['asynchronous'] else ''
        lines.append(
            f'  {found["count"]} {kind}, {found["bytes"] / 1e6:.2f} MB; {small} of them are of 64 KiB or less{beside}'
        )
    if not step['collectives']:
        lines.append('  no collectives')
    if step['kernels']:
        by_kind = ', '.join(f'{count} {kind}' for kind, count in sorted(step['kernels'].items()))
        lines.append(f'  {sum(step["kernels"].values())} kernels: {by_kind}')
    if step['estimated_cycles']:
        lines += _cycle_lines(step, report)
    return [*lines, f'  compiled in {step["seconds"]:.0f} s, {step["cpu_seconds"]:.0f} s of processor time']


def _cycle_lines(step, report):
    """The compiler’s estimates of one step: in total beside the arithmetic at peak, and a line for each part."""
    cycles, clock = step['estimated_cycles'], report['clock']
    lines = [f'  estimated cycles: {cycles / 1e6:.1f} million, {cycles / clock * 1e3:.1f} ms at {clock / 1e9:g} GHz']
    if step['flops']:
        peak = step['flops'] / report['peak']
        lines[0] += f'; the arithmetic alone takes {peak * 1e3:.1f} ms at peak, {peak * clock / cycles:.0%} of it'
    lines.append('  The estimates are the compiler’s guess, not a measurement: compare them with each other.')
    return lines + [
        f'    {part:18}  {part_cycles / 1e6:7.2f} million  {part_cycles / cycles:4.0%}'
        for part, part_cycles in step['cycles_by_part'].items()
    ]


def _gib(size):
    return f'{size / 2**30:.2f} GiB'
