"""What `benchmark` can time, and its results as text."""

from typing import Any

from m2snet_jax.benchmark import family, layouts, scoring, starts, throughput
from m2snet_jax.benchmark.steps import PRODUCT, product_gflops, time_step
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.devices.mesh import Mesh, describe


def measure(kinds: list[str], config: Any, mesh: Mesh, repeats: int, arguments: list[str]) -> dict[str, Any]:
    """Returns {kind: figures} beside `device` and `product_gflops`.

    Args:
        kinds: of 'inference', 'training', 'data', 'metrics', 'scaling', 'family' and 'start'.
        config: its `batch` and `data.size` are timed.
        repeats: timed runs of each step.
        arguments: of the command, to start it again on other numbers of devices.
    """
    results = {'device': describe(mesh), 'product_gflops': product_gflops()}
    for kind in kinds:
        if kind == 'data':
            source = throughput.StandIn() if config.data.root is None else open_dataset(config).train
            results[kind] = throughput.time_batches(source, config)
        elif kind == 'metrics':
            results[kind] = scoring.time_scores()
        elif kind == 'scaling':
            results[kind] = layouts.time_layouts(arguments)
        elif kind == 'family':
            results[kind] = family.time_family(config, mesh, repeats)
        elif kind == 'start':
            results[kind] = starts.time_start(config, mesh, arguments)
        else:
            results[kind] = time_step(kind, config, mesh, repeats)
    return results


def text(results: dict[str, Any], config: Any) -> str:
    """Returns what `measure` returned as text."""
    lines = [
        f'{config.model.name}, {config.model.encoder}, {config.dtype}, LossNet weight {config.loss.lossnet}',
        f'device: {results["device"]}; {PRODUCT}³ float32 product: {results["product_gflops"]:.0f} GFLOP/s',
    ]
    for kind in ('inference', 'training'):
        if one := results.get(kind):
            lines.append(
                f'{kind}, {one["batch"]} × {one["size"]}²: p50 {one["p50"]:.3f} s, p95 {one["p95"]:.3f} s, best '
                f'{one["best"]:.3f} s, {one["images_per_second"]:.2f} images/s; compiled in {one["compile"]:.1f} s; '
                f"by the compiler's count {one['gflop']:.1f} GFLOP, {one['temporary_mib']:.0f} MiB of temporaries, "
                f'{one["argument_mib"]:.0f} MiB of arguments'
            )
    if one := results.get('data'):
        rates = one['images_per_second']
        lines.append(
            f'data, {one["images"]} images of {one["height"]}×{one["width"]} to {one["size"]}², '
            f'{one["threads"]} threads: {rates["cached"]:.0f} images/s from the cache, '
            f'{rates["decoded"]:.0f} with decoding; peak memory {one["peak_mib"]:.0f} MiB'
        )
    for one in results.get('scaling', []):
        lines.append(
            f'scaling, training, {config.batch} × {config.data.size}²: {one["processes"]} process(es) with '
            f'{one["devices"]} device(s): {one["images_per_second"]:.2f} images/s, {one["lost"]:.0%} lost'
        )
    if one := results.get('start'):
        first = one['first_step']
        turns = ', '.join(
            f'{" ".join(f"{second:.1f}" for second in seconds)} s in {threads} thread(s)'
            for threads, seconds in one['compile'].items()
        )
        lines.append(
            f'start, {len(one["sizes"])} training steps compiled in turns: {turns}, ratio {one["ratio"]:.2f}; '
            f'first step after {first["cold"]:.1f} s, with compiled programs after {first["warm"]:.1f} s'
        )
    if one := results.get('metrics'):
        lines.append(
            f'metrics, ms an image: both protocols {one["both_protocols"]:.2f}, without wFm '
            f'{one["all_but_wFm"]:.2f}, hard {one["hard"]:.2f}, everything '
            f'{one["everything"]:.2f}; {one["images"]} images with reading in {one["seconds"]:.1f} s'
        )
    if one := results.get('family'):
        lines += ['', family.table(one, config.data.size)]
    return '\n'.join(lines)
