"""The mesh of devices, and arrays on it.

Data parallel over one mesh axis: the state is replicated, every batch is split. Batch norm sees the global batch.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree, Shaped

from m2snet_jax.errors import InputError


def make_mesh(count: int | None = None) -> Mesh:
    """Returns a mesh of the first `count` devices, by default all, along the axis `data`."""
    count = count or jax.device_count()
    return jax.make_mesh((count,), ('data',), devices=jax.devices()[:count], axis_types=(AxisType.Auto,))


def check_batch(batch: int, gradient_accumulation: int, mesh: Mesh) -> None:
    """Raises InputError if a global batch cannot be split evenly over the mesh, in `gradient_accumulation` parts."""
    if batch % (mesh.size * gradient_accumulation):
        parts = f' times the {gradient_accumulation} parts (gradient_accumulation)' if gradient_accumulation > 1 else ''
        raise InputError(f'--config.batch={batch}: must be divisible by the {mesh.size} devices{parts}')


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device of a mesh holds."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> Any:
    """Puts a copy of every array of `tree` on every device."""
    return jax.device_put(tree, replicated(mesh))


def shard(batch: PyTree[Shaped[np.ndarray, 'share ...']], mesh: Mesh) -> Any:
    """Splits this process's share of a batch over its devices: global arrays of the whole batch."""
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def own_rows(array: Shaped[jax.Array | np.ndarray, 'batch ...']) -> Shaped[np.ndarray, 'share ...']:
    """Returns the rows that this process's devices hold of an array that is split over all devices."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])


def describe(mesh: Mesh) -> str:
    """Returns the mesh as text, e.g. '4 × NVIDIA H100 (gpu) in 2 processes'."""
    device = mesh.devices.flat[0]
    processes = '' if jax.process_count() == 1 else f' in {jax.process_count()} processes'
    return f'{mesh.size} × {device.device_kind} ({device.platform}){processes}'


def packs_maps(mesh: Mesh) -> bool:
    """Whether training on these devices packs maps of few channels (models/packing.py): on TPUs alone."""
    return mesh.devices.flat[0].platform == 'tpu'


def abstract(tree: PyTree, mesh: Mesh, split: bool = False) -> Any:
    """Returns the ShapeDtypeStructs of a tree's arrays, split or replicated over a mesh; nothing is allocated."""
    sharding = NamedSharding(mesh, PartitionSpec('data')) if split else replicated(mesh)
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), tree)
