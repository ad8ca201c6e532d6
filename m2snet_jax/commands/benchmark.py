"""Times the steps of a config, its data pipeline and the scoring on this machine.

python -m m2snet_jax benchmark --config=NAME [--what=KIND,…] [--batch=N] [--size=S] [--repeats=N] [--json]
    [--distributed]

inference, training (the default): one step. Compilation is timed apart, every timed run is waited for, and a 2048³
float32 matrix product is timed beside, so that figures of other machines can be compared.
data: training images a second, from the cache and with decoding; of the config's dataset where it has a root, else of
enlarged phantoms.
metrics: milliseconds for each scored image of 352×288, and 798 of them with reading, on every core.
scaling: the training step at one batch on one CPU device, on two, and in two processes: images/s and the share lost.
"""

import json
import time

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.config import check_config
from m2snet_jax.errors import InputError

PRODUCT = 2048
STEPS = ('inference', 'training')
KINDS = (*STEPS, 'data', 'metrics', 'scaling')


def main(argv):
    """Runs the command; returns its exit status."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_list('what', list(STEPS), f'what to time, of {", ".join(KINDS)}', flag_values=values)
        flags.DEFINE_integer('batch', None, "images a step; by default the config's", flag_values=values)
        flags.DEFINE_integer('size', None, "side in pixels; by default the config's data.size", flag_values=values)
        flags.DEFINE_integer('repeats', 10, 'timed runs of each step', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
        flags.DEFINE_bool(
            'distributed', None, 'be one of several processes; by default tried where recognised', flag_values=values
        )

    config, values, _ = parse(argv, __doc__, define)
    for kind in values.what:
        if kind not in KINDS:
            raise InputError(f'--what={kind}: must be one of {", ".join(KINDS)}')
    if values.repeats < 1:
        raise InputError(f'--repeats={values.repeats}: must be at least 1')
    config.batch = config.batch if values.batch is None else values.batch
    config.data.size = config.data.size if values.size is None else values.size
    # Time does not depend on the weights, so none are fetched.
    config.model.encoder_weights = config.model.weights = config.loss.lossnet_weights = None
    check_config(config)

    from m2snet_jax import hosts
    from m2snet_jax import mesh as devices

    hosts.join(values.distributed)
    devices.use_compilation_cache()
    mesh = devices.make_mesh()
    devices.check_batch(config.batch, config.accumulate, mesh)
    results = {'device': devices.describe(mesh), 'product_gflops': product_gflops()}
    for kind in values.what:
        if kind in STEPS:
            results[kind] = benchmark_model(kind, config, mesh, values.repeats)
        elif kind == 'data':
            results[kind] = benchmark_data(config)
        elif kind == 'scaling':
            from m2snet_jax.training.scaling import measure

            results[kind] = measure(argv[1:])
        else:
            from m2snet_jax.evaluation.scoring import throughput

            results[kind] = throughput()
    if hosts.is_first():
        print(json.dumps(results) if values.json else _table(results, config))


def product_gflops():
    """Returns GFLOP/s of a 2048³ float32 matrix product on the first device."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((PRODUCT, PRODUCT), jnp.float32)
    compiled = jax.jit(lambda a: a @ a).lower(matrix).compile()
    return 2 * PRODUCT**3 / _time(lambda: compiled(matrix), 10)['p50'] / 1e9


def benchmark_model(kind, config, mesh, repeats):
    """Times one kind of step at `config.batch` and `config.data.size`: seconds, images/s, and the compiler's counts."""
    import jax
    import numpy as np

    from m2snet_jax import mesh as devices
    from m2snet_jax.training.compilation import count_flops

    shape = (config.batch // jax.process_count(), config.data.size, config.data.size)
    generator = np.random.default_rng(0)
    image = generator.standard_normal((*shape, 3), np.float32)
    mask = generator.integers(0, 2, (*shape, config.data.classes)).astype(np.float32)
    batch = devices.shard({'image': image, 'mask': mask}, mesh)
    step, arguments = (_prediction if kind == 'inference' else _training)(config, mesh, batch)
    begun = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - begun

    def once():
        nonlocal arguments
        outputs = compiled(*arguments)
        if kind == 'training':  # the state was donated: the next step takes the new one
            arguments = (outputs[0], *arguments[1:])
        return jax.tree.leaves(outputs)

    times = _time(once, repeats)
    memory = compiled.memory_analysis()
    if kind == 'training':
        flops = (compiled.cost_analysis() or {}).get('flops', float('nan'))
    else:
        flops = count_flops('prediction', config, config.batch // mesh.size, config.data.size)
    return {
        'batch': config.batch,
        'size': config.data.size,
        'compile': seconds,
        **times,
        'images_per_second': config.batch / times['p50'],
        'gflop': flops / 1e9,
        'temporary_mib': memory.temp_size_in_bytes / 2**20,
        'argument_mib': memory.argument_size_in_bytes / 2**20,
    }


def benchmark_data(config):
    """Times the training batches that the host prepares; see `data.throughput.measure`."""
    from m2snet_jax.data.datasets import open_dataset
    from m2snet_jax.data.throughput import StandIn, measure

    return measure(StandIn() if config.data.root is None else open_dataset(config).train, config)


def _prediction(config, mesh, batch):
    from flax import nnx

    from m2snet_jax import memory
    from m2snet_jax import mesh as devices
    from m2snet_jax.model.folding import fold
    from m2snet_jax.predictor import make_predict_step
    from m2snet_jax.training.loop import build_model

    memory.keep_freed_memory()  # as every command that predicts does
    graph, params, batch_stats = nnx.split(fold(build_model(config)), nnx.Param, nnx.BatchStat)
    state = devices.replicate((params, batch_stats), mesh)
    return make_predict_step(graph), (*state, batch['image'])


def _training(config, mesh, batch):
    from flax import nnx

    from m2snet_jax import mesh as devices
    from m2snet_jax.training.loop import build_lossnet, build_model, build_optimizer, build_train_step
    from m2snet_jax.training.step import create_train_state

    optimizer = build_optimizer(config, total=100, epoch_steps=1)
    graph, state = create_train_state(build_model(config), optimizer, average=config.ema is not None, mesh=mesh)
    lossnet = build_lossnet(config)
    lossnet_graph, lossnet_params = (None, None) if lossnet is None else nnx.split(lossnet)
    step = build_train_step(config, 100, graph, optimizer, lossnet_graph)
    return step, (*devices.replicate((state, lossnet_params), mesh), batch)


def _time(once, repeats):
    """Runs `once` twice to warm up and `repeats` times timed, waiting for its result each time."""
    import jax
    import numpy as np

    seconds = []
    for index in range(repeats + 2):
        begun = time.perf_counter()
        jax.block_until_ready(once())
        if index >= 2:
            seconds.append(time.perf_counter() - begun)
    return {'p50': float(np.median(seconds)), 'p95': float(np.percentile(seconds, 95)), 'best': min(seconds)}


def _table(results, config):
    """Returns the results in words."""
    lines = [
        f'{config.model.name}, {config.model.encoder}, {config.dtype}, LossNet weight {config.loss.lossnet}',
        f'device: {results["device"]}; {PRODUCT}³ float32 product: {results["product_gflops"]:.0f} GFLOP/s',
    ]
    for kind in STEPS:
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
    if one := results.get('metrics'):
        lines.append(
            f'metrics, ms an image: both protocols {one["both_protocols"]:.2f}, without wFm '
            f'{one["all_but_wFm"]:.2f}, hard {one["hard"]:.2f}, everything '
            f'{one["everything"]:.2f}; {one["images"]} images with reading in {one["seconds"]:.1f} s'
        )
    return '\n'.join(lines)
