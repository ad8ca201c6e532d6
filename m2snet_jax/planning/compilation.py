"""Compiles the steps of a config for a machine that is not present, and reads off what they need there."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.stages import Lowered

from m2snet_jax.build import build_model
from m2snet_jax.devices.mesh import Mesh, abstract, make_mesh
from m2snet_jax.devices.programs import compiler_options
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.planning.collectives import count_collectives
from m2snet_jax.planning.cycles import count_cycles
from m2snet_jax.planning.gpu_kernels import count_kernels
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.storage import cache_folder, write
from m2snet_jax.training.step import lower_train_step, without_files

FORMAT = 5  # of the cached figures; another one for other names of parts or options too: they are not in the key
PACKAGES = ('jax', 'jaxlib', 'libtpu', 'jax-cuda12-plugin', 'jax-cuda12-pjrt')
FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'TPU_LIBRARY_PATH')  # environment variables that change a program
FULL = 'RESOURCE_EXHAUSTED'
TOTAL = 100  # steps of the schedule; any number compiles to a program of the same size


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one device needs for one step, by the compiler's own count; bytes unless said otherwise.

    Attributes:
        fits: whether `needed` is within the memory given to `compile_step`, and the compiler agrees.
        needed: the larger of `peak` and the sum of arguments, new outputs, temporaries and the program.
        aliased: the part of the outputs that reuses donated arguments.
        flops: arithmetic; None where the compiler does not report it.
        accessed: bytes read and written by all operations; None as above.
        collectives: as `count_collectives` returns them.
        estimated_cycles: the time of the step by the TPU compiler's own estimates; None where a compiler gives none.
        cycles_by_part: the same by part of the network, as `count_cycles` returns it.
        kernels: of a GPU's program by kind, as `count_kernels` returns them; None for other platforms.
        seconds, cpu_seconds: that compiling took, by the clock and of processor time.
        refusal: the compiler's message where the step is too large; all figures are 0 then.
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
    collectives: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    estimated_cycles: int | None = None
    cycles_by_part: dict[str, int] | None = None
    kernels: dict[str, int] | None = None
    seconds: float = 0
    cpu_seconds: float = 0
    refusal: str | None = None


def lower_step(kind: str, config: Any, mesh: Mesh, batch: int, size: int) -> Lowered:
    """Lowers a step as `train` and `evaluate` run it, over a whole mesh and without allocating anything.

    Args:
        kind: 'training', with LossNet as the config says and the old state donated, or 'prediction'.
        config: files of weights are not read.
        batch: images over all devices, a multiple of their number.
        size: side in pixels at which the network runs.
    """
    config = without_files(config)
    if kind == 'training':
        with config.unlocked():
            config.batch = batch
        return lower_train_step(config, mesh, TOTAL, 1)(size)
    images = jax.ShapeDtypeStruct((batch, size, size, 3), 'float32')
    graph, weights = split_model(nnx.eval_shape(lambda: build_model(config)))
    return make_predict_step(graph).lower(abstract(weights, mesh), abstract(images, mesh, split=True))


def count_flops(kind: str, config: Any, batch: int, size: int) -> float | None:
    """Counts a step's arithmetic on one device before compilation, for compilers that do not report it."""
    times = batch if kind == 'prediction' else 1  # of one image, since a CPU's program may hold a loop over them
    lowered = lower_step(kind, config, make_mesh(1), batch // times, size)
    flops = (lowered.cost_analysis() or {}).get('flops')
    return flops and flops * times


def compile_step(
    lowered: Lowered,
    memory: float,
    topology: str,
    say: Callable = lambda words: None,
    level: str | None = None,
    platform: str | None = None,
) -> Figures:
    """Compiles a lowered step and returns its figures, from the cache where the same step was compiled before.

    Args:
        memory: bytes that a program may fill on one device.
        topology: name of the machine, part of the cache's key.
        say: called with a line when compiling begins.
        level: of optimisation, e.g. 'O0', which takes a fraction of the time; None: as training compiles.
        platform: of the machine: 'tpu' or 'cuda'; None: that of this process.
    """
    path = _cache_path(lowered, topology, level)
    if path.exists():
        known = json.loads(path.read_text())
    else:
        say('compiling (minutes)')
        usual = jax.config.values['jax_optimization_level']
        try:
            jax.config.update('jax_optimization_level', level or usual)
            known = _compile(lowered, platform)
        finally:
            jax.config.update('jax_optimization_level', usual)
        write(path, json.dumps(known))
    return Figures(fits=known['refusal'] is None and known['needed'] <= memory, **known)


def _compile(lowered: Lowered, platform: str | None) -> dict[str, Any]:
    """Returns the fields of Figures except `fits`."""
    begun, cpu_begun = time.perf_counter(), time.process_time()

    def taken():
        return {'seconds': time.perf_counter() - begun, 'cpu_seconds': time.process_time() - cpu_begun}

    try:
        compiled: Any = lowered.compile(compiler_options(platform))
    except RuntimeError as error:
        if FULL not in str(error):
            raise
        return {**taken(), 'needed': 0, 'refusal': _first_lines(str(error))}
    times = taken()
    found, cost, text = compiled.memory_analysis(), compiled.cost_analysis() or {}, compiled.as_text()
    cycles = count_cycles(text)
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
        'collectives': count_collectives(text),
        'estimated_cycles': cycles and sum(cycles.values()),
        'cycles_by_part': cycles,
        'kernels': count_kernels(text),
        **times,
        'refusal': None,
    }


def _first_lines(message):
    """The compiler's refusal without its pages of buffers."""
    return ' '.join(message.partition('Largest program allocations')[0].split())[:400]


def _cache_path(lowered: Lowered, topology: str, level: str | None) -> Path:
    """The cache file of a step, named by everything that its figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    about = [FORMAT, topology, versions, {flag: os.environ.get(flag) for flag in FLAGS}]
    about += [] if level is None else [level]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode() + lowered.as_text().encode())
    return cache_folder() / 'compile-check' / f'{digest.hexdigest()}.json'


def largest_batch(
    estimate: Callable[[int], float | None], fits: Callable[[int], bool], memory: float, start: int, attempts: int = 8
) -> tuple[int, int | None]:
    """Searches the largest number of images per device that fits; memory is nearly affine in it.

    Two estimates give a line; the next ones are taken where it reaches the memory, or by bisection where the line was
    wrong. From 16 on only multiples of 8 are tried, since a TPU pads to them. `fits` confirms the result, or fewer.

    Args:
        estimate: images → bytes needed; None where the compiler refuses.
        fits: images → whether they fit; exact, but slower.
        memory: bytes that a program may fill on one device.
        start: images to begin with.
        attempts: the most estimates.

    Returns:
        (the most images that fit, 0 if none; the fewest tried that do not, None if there were none).
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
    """The number to estimate next; None when no candidate is left between `low` and `high`."""
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
    if high is not None and guess >= high:  # the line was wrong
        guess = (low + high) // 2
    return max(guess // grain * grain, (low // grain + 1) * grain)
