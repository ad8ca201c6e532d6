"""Compiles the steps of a config for a machine that is not here, and tells what they need there."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import time
from pathlib import Path

import jax
from flax import nnx

from m2snet_jax import mesh as devices
from m2snet_jax.predictor import make_predict_step
from m2snet_jax.training.collectives import count_collectives
from m2snet_jax.training.loop import build_lossnet, build_model, build_optimizer, build_train_step
from m2snet_jax.training.step import create_train_state

FORMAT = 2  # of the cached figures
PACKAGES = ('jax', 'jaxlib', 'libtpu', 'jax-cuda12-plugin', 'jax-cuda12-pjrt')
FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'TPU_LIBRARY_PATH')  # what changes a compiled program from outside
FULL = 'RESOURCE_EXHAUSTED'
TOTAL = 100  # steps of the schedule, which changes nothing about the size of a program


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one device needs for one step, by the compiler's own count; bytes unless said otherwise.

    Attributes:
        fits: whether `needed` is within the memory given to `compile_step`, and the compiler agrees.
        needed: `peak`, or what arguments, new outputs, temporaries and the program take together if that is more.
        arguments, outputs, aliased, temporaries, program, peak: as the compiler reports them; `aliased` is the part of
            the outputs that takes the place of donated arguments.
        flops: arithmetic, None where the compiler does not tell.
        accessed: bytes read and written by all operations, None as above.
        collectives: as `count_collectives` returns them.
        seconds: that compiling took.
        refusal: the compiler's words where the step is too large for it, else None; all figures are 0 then.
    """

    fits: bool
    needed: int = 0
    arguments: int = 0
    outputs: int = 0
    aliased: int = 0
    temporaries: int = 0
    program: int = 0
    peak: int = 0
    flops: float | None = None
    accessed: float | None = None
    collectives: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0
    refusal: str | None = None


def lower_step(kind, config, mesh, batch, size):
    """Lowers a step as `train` and `evaluate` run it, over a whole mesh and without allocating anything.

    Args:
        kind: 'training', with LossNet as the config says and the old state donated, or 'prediction'.
        config: its weights' files are not read.
        mesh: of `topology_mesh`, or any other.
        batch: images over all devices, a multiple of them.
        size: side in pixels at which the network runs.

    Returns:
        What `jax.jit(…).lower(…)` gives.
    """
    config = _without_files(config)
    side = config.data.size if kind == 'training' else size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), 'float32')
    if kind == 'prediction':
        graph, params, batch_stats = nnx.split(nnx.eval_shape(lambda: build_model(config)), nnx.Param, nnx.BatchStat)
        state = devices.placed((params, batch_stats), mesh)
        return make_predict_step(graph).lower(*state, devices.placed(images, mesh, split=True))
    optimizer = build_optimizer(config, TOTAL, 1)
    how = {'average': config.ema is not None, 'mesh': mesh}
    graph, state = jax.eval_shape(lambda: create_train_state(build_model(config), optimizer, **how))
    lossnet_graph, lossnet_params = None, None
    if config.loss.lossnet:
        lossnet_graph, lossnet_params = nnx.split(nnx.eval_shape(lambda: build_lossnet(config)))
    step = build_train_step(config, TOTAL, graph, optimizer, lossnet_graph)
    examples = {'image': images, 'mask': jax.ShapeDtypeStruct((batch, side, side, config.data.classes), 'float32')}
    return step.lower(*devices.placed((state, lossnet_params), mesh), devices.placed(examples, mesh, split=True), size)


def count_flops(kind, config, batch, size):
    """Counts a step's arithmetic on one device before any compiler has changed it, for one that does not tell."""
    times = batch if kind == 'prediction' else 1  # of one image, since a CPU's program may hold a loop over them
    lowered = lower_step(kind, config, devices.make_mesh(1), batch // times, size)
    flops = (lowered.cost_analysis() or {}).get('flops')
    return flops and flops * times


def compile_step(lowered, memory, topology, say=lambda words: None, level=None):
    """Compiles a lowered step and returns its Figures, from the cache where the same step was compiled before.

    Args:
        lowered: of `lower_step`.
        memory: bytes that a program may fill on one device.
        topology: name of the machine, part of what the cache goes by.
        say: is told that compiling begins.
        level: of optimisation, as 'O0', which takes a fraction of the time; None: as training compiles.
    """
    path = _cache_path(lowered, topology, level)
    if path.exists():
        known = json.loads(path.read_text())
    else:
        say('compiling (minutes)')
        usual = jax.config.jax_optimization_level
        try:
            jax.config.update('jax_optimization_level', level or usual)
            known = _compile(lowered)
        finally:
            jax.config.update('jax_optimization_level', usual)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f'.{os.getpid()}')
        temporary.write_text(json.dumps(known))
        os.replace(temporary, path)
    return Figures(fits=known['refusal'] is None and known['needed'] <= memory, **known)


def _compile(lowered):
    """Returns the fields of Figures, but `fits`."""
    begun = time.perf_counter()
    try:
        compiled = lowered.compile()
    except RuntimeError as error:
        if FULL not in str(error):
            raise
        return {'seconds': time.perf_counter() - begun, 'needed': 0, 'refusal': _first_lines(str(error))}
    seconds = time.perf_counter() - begun
    found, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    sizes = {
        'arguments': found.argument_size_in_bytes,
        'outputs': found.output_size_in_bytes,
        'aliased': found.alias_size_in_bytes,
        'temporaries': found.temp_size_in_bytes,
        'program': found.generated_code_size_in_bytes,
        'peak': found.peak_memory_in_bytes,
    }
    together = sum(sizes[key] for key in ('arguments', 'outputs', 'temporaries', 'program')) - sizes['aliased']
    return {
        **sizes,
        'needed': max(sizes['peak'], together),
        'flops': cost.get('flops'),
        'accessed': cost.get('bytes accessed'),
        'collectives': count_collectives(compiled.as_text()),
        'seconds': seconds,
        'refusal': None,
    }


def _first_lines(message):
    """The compiler's refusal without its pages of buffers."""
    return ' '.join(message.partition('Largest program allocations')[0].split())[:400]


def _cache_path(lowered, topology, level):
    """Where the figures of a step are kept: named by all that makes them what they are."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    about = [FORMAT, topology, versions, {flag: os.environ.get(flag) for flag in FLAGS}]
    about += [] if level is None else [level]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode() + lowered.as_text().encode())
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'm2snet_jax' / 'compile-check' / f'{digest.hexdigest()}.json'


def _without_files(config):
    """The config with random weights: shapes are the same, and no file need be there."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.encoder_weights = config.model.weights = config.loss.lossnet_weights = None
    return config


def largest_batch(estimate, fits, memory, start, attempts=8):
    """Searches the largest number of images a device that fits; memory grows nearly as a straight line with it.

    Two estimates give the line, the next ones look where it meets the memory, or halfway where it has misled. Above
    sixteen, only multiples of eight are tried, since a TPU fills up to them. What is found is confirmed by `fits`, or
    else fewer images are.

    Args:
        estimate: images → bytes needed, None where the compiler refuses.
        fits: images → whether they do, for certain; takes longer.
        memory: bytes that a program may fill on one device.
        start: images to begin with.
        attempts: estimates at most.

    Returns:
        (the most images known to fit, 0 if none; the least that do not, None if none was met).
    """
    sizes, low, high, images = {}, 0, None, start
    for _ in range(attempts):
        sizes[images] = estimate(images)
        if sizes[images] is not None and sizes[images] <= memory:
            low = max(low, images)
        else:
            high = images if high is None else min(high, images)
        images = _next_images(sizes, memory, low, high)
        if images is None:
            break
    while low and not fits(low):
        low, high = low - _grain(low - 1), low
    return low, high


def _grain(images):
    return 8 if images >= 16 else 1


def _next_images(sizes, memory, low, high):
    """The number to measure next, None when no other can lie between `low` and `high`."""
    if low == 0:
        return high // 2 or None
    grain = _grain(low)
    if high is not None and high - low <= grain:
        return None
    known = sorted((images, size) for images, size in sizes.items() if size is not None)[-2:]
    if len(known) < 2:
        guess = 2 * low if high is None else (low + high) // 2
    else:
        (images0, size0), (images1, size1) = known
        slope = (size1 - size0) / (images1 - images0)
        guess = images1 + int((memory - size1) // slope) if slope > 0 else 2 * images1
    if high is not None and guess >= high:  # no line after all
        guess = (low + high) // 2
    return max(guess // grain * grain, (low // grain + 1) * grain)
