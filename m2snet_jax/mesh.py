"""Devices: the only file that names them.

Data parallel over one mesh axis: the state is replicated, every batch is split. Batch norm sees the global batch.
"""

import os
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m2snet_jax.errors import InputError

# jax's own variables override ours.
CACHE, SHORTEST = 'JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'


def use_compilation_cache():
    """Keeps compiled programs between runs, by default in the user's cache folder: five sizes take minutes.

    The smallest too: initial weights are made by some hundred of them, at a quarter of a minute all in all.
    """
    if not os.environ.get(SHORTEST):
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    if not os.environ.get(CACHE):
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(home / 'm2snet_jax' / 'compiled'))


def compiler_options():
    """Returns what steps are compiled with: on a CPU without the library YNN, which leaves cores idle; else None.

    Where float64 is allowed YNN stays: nothing else convolves float64 in less than twenty times its time.
    """
    without = jax.default_backend() == 'cpu' and not jax.config.jax_enable_x64
    return {'xla_cpu_experimental_ynn_fusion_type': ''} if without else None


def one_by_one(function, images):
    """Applies a function of images `[b, …]` that treats each by itself to a batch that is split over all devices.

    On a CPU each device takes its images one after the other: the maps of one fit its caches, at nine tenths of the
    time that a batch takes. Anything else takes them all at once.
    """
    images_each, rest = divmod(len(images), jax.device_count())
    if rest or images_each == 1:
        return function(images)

    def in_turn(images):
        turns = images.reshape(-1, images_each, *images.shape[1:]).swapaxes(0, 1)
        outputs = jax.lax.map(function, turns).swapaxes(0, 1)
        return outputs.reshape(-1, *outputs.shape[2:])

    return jax.lax.platform_dependent(images, cpu=in_turn, default=function)


def make_mesh(count=None):
    """Returns a mesh of the first `count` devices, by default of all, along the axis `data`."""
    count = count or jax.device_count()
    return jax.make_mesh((count,), ('data',), devices=jax.devices()[:count], axis_types=(AxisType.Auto,))


def check_batch(batch, accumulate, mesh):
    """Raises InputError if a global batch cannot be split evenly over the mesh, in `accumulate` parts."""
    if batch % (mesh.size * accumulate):
        parts = f' times the {accumulate} parts (accumulate)' if accumulate > 1 else ''
        raise InputError(f'--config.batch={batch}: must be divisible by the {mesh.size} devices{parts}')


def everywhere(mesh):
    """Returns the sharding of an array that every device of a mesh holds."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh):
    """Puts a copy of every array of `tree` on every device."""
    return jax.device_put(tree, everywhere(mesh))


def shard(batch, mesh):
    """Splits this process's share of a batch, numpy arrays `[b, …]`, over its devices: global arrays `[B, …]`."""
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def own_rows(array):
    """Returns, as one numpy array, the rows of an array split over all devices that lie on this process's."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])


def describe(mesh):
    """Returns the mesh in words, as '4 × NVIDIA H100 (gpu) in 2 processes'."""
    device = mesh.devices.flat[0]
    processes = '' if jax.process_count() == 1 else f' in {jax.process_count()} processes'
    return f'{mesh.size} × {device.device_kind} ({device.platform}){processes}'


def topology_mesh(platform, name, **options):
    """Returns the mesh of a machine that is not here, along the axis `data`, for compiling only.

    Args:
        platform: 'tpu' or 'cuda'.
        name: as `v5e:4x4`.
        **options: of the platform's compiler.

    Raises:
        InputError: no such topology.
    """
    try:
        topology = topologies.get_topology_desc(platform=platform, topology_name=name, **options)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        message = ' '.join(str(error).split())
        raise InputError(f'--topology={name}: no such topology ({message})') from None
    return Mesh(np.array(topology.devices), ('data',), axis_types=(AxisType.Auto,))


def placed(tree, mesh, split=False):
    """Returns the ShapeDtypeStructs of a tree's arrays, split or replicated over a mesh; nothing is allocated."""
    sharding = NamedSharding(mesh, PartitionSpec('data')) if split else everywhere(mesh)
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), tree)
