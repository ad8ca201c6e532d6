"""The accelerators of `compile-check`: their memory, speed and links, as published by the makers."""

import dataclasses
import importlib.util
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from m2snet_jax.errors import InputError

GIB = 2**30
PACKAGES = {  # platform: (module, what pip installs)
    'tpu': ('libtpu', '"libtpu==0.0.42.*"'),
    'cuda': ('jax_cuda12_plugin', 'jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2'),
}
# Without these libtpu looks for a TPU here, refuses to run beside another program, and logs at length.
QUIET = {
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TF_CPP_MIN_LOG_LEVEL': '3',
}

# Without a card no tile sizes are tried for Triton's matrix products, and those assumed do not fit some of the resizes.
WITHOUT_CARD = '--xla_gpu_enable_triton_gemm=false'


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
        platform: 'tpu' or 'cuda'.
        memory: bytes.
        usable: share of the memory that a program may fill. For a TPU the compiler itself refuses what is too large;
            on a GPU jax takes 75 % unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
        peak: bfloat16 FLOP/s.
        clock: cycles/s of the compiler's estimates; 0: it gives none.
        bandwidth: of the memory, bytes/s.
        axes: of the torus that the chips form; 0: no torus.
        link: bytes/s of one link in one direction; a chip has two links along each axis.
        closed: an axis is a ring if its length is a multiple of this, else a line.
        example: a topology's name.
    """

    platform: str
    memory: float
    usable: float
    peak: float
    clock: float
    bandwidth: float
    axes: int
    link: float
    closed: int
    example: str


# TPU: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}. The published bandwidth of a chip is that of all its links in
# both directions: 600 GB/s over six (v4), 400 over four (v5e), 1200 over six (v5p), 800 over four (v6e).
# The clock is the peak over the FLOP of all matrix units in a cycle; by it, 8192³ products are estimated at 70 to 93 %
# of the peak.
# H100 and A100: NVIDIA's data sheets of the SXM cards with 80 GB.
CHIPS = {
    'v4': Chip('tpu', 32 * GIB, 1, 275e12, 1.05e9, 1200e9, 3, 50e9, 4, 'v4:4x4x4'),
    'v5e': Chip('tpu', 16 * GIB, 1, 197e12, 1.5e9, 819e9, 2, 50e9, 16, 'v5e:4x4'),
    'v5p': Chip('tpu', 95 * GIB, 1, 459e12, 1.75e9, 2765e9, 3, 100e9, 4, 'v5p:4x4x4'),
    'v6e': Chip('tpu', 32 * GIB, 1, 918e12, 1.75e9, 1638e9, 2, 100e9, 16, 'v6e:4x4'),
    'h100': Chip('cuda', 80 * GIB, 0.75, 989e12, 0, 3352e9, 0, 0, 0, 'h100:1x1x4'),
    'a100': Chip('cuda', 80 * GIB, 0.75, 312e12, 0, 2039e9, 0, 0, 0, 'a100:1x1x4'),
}

# What the compiler needs of a card that is not present: the limits of its compute capability and the data sheet.
CARDS = {
    'h100': {
        'cuda_compute_capability': '{ major: 9 minor: 0 }',
        'shared_memory_per_block_optin': 232448,
        'shared_memory_per_core': 233472,
        'core_count': 132,
        'fpus_per_core': 128,
        'clock_rate_ghz': 1.98,
        'l2_cache_size': 52428800,
    },
    'a100': {
        'cuda_compute_capability': '{ major: 8 minor: 0 }',
        'shared_memory_per_block_optin': 166912,
        'shared_memory_per_core': 167936,
        'core_count': 108,
        'fpus_per_core': 64,
        'clock_rate_ghz': 1.41,
        'l2_cache_size': 41943040,
    },
}
BOTH = {
    'threads_per_block_limit': 1024,
    'threads_per_warp': 32,
    'threads_per_core_limit': 2048,
    'shared_memory_per_block': 49152,
    'registers_per_block_limit': 65536,
    'registers_per_core_limit': 65536,
    'block_dim_limit_x': 2147483647,
    'block_dim_limit_y': 65535,
    'block_dim_limit_z': 65535,
}


def card_description(kind: str) -> str:
    """Returns the description of a card in CHIPS, as XLA's compiler for GPUs reads it."""
    chip = CHIPS[kind]
    own = {'memory_bandwidth': int(chip.bandwidth), 'device_memory_size': int(chip.memory)}
    entries = '\n'.join(
        f'  {key}{"" if str(value)[0] == "{" else ":"} {value}' for key, value in {**BOTH, **CARDS[kind], **own}.items()
    )
    versions = 'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 8 patch: 0 }'
    return f'gpu_device_info {{\n{entries}\n}}\n{versions}\ndevice_description_str: "NVIDIA {kind.upper()} 80GB"\n'


def open_topology(name: str) -> tuple[Chip, Mesh]:
    """Returns the chip and the mesh of a topology such as `v5e:4x4`, for compiling only.

    Call it before jax looks for devices: it restricts jax to the CPU.

    Raises:
        InputError: an unknown chip or shape, or the compiler's package is missing.
    """
    kind, _, shape = name.partition(':')
    sides = shape.split('x')
    if kind not in CHIPS:
        examples = ', '.join(chip.example for chip in CHIPS.values())
        raise InputError(f'--topology={name}: unknown chip {kind!r}; give one like {examples}')
    chip = CHIPS[kind]
    if not all(side.isdigit() and int(side) for side in sides):
        raise InputError(f'--topology={name}: {shape!r} is no shape; give one like {chip.example}')
    module, requirement = PACKAGES[chip.platform]
    there = importlib.util.find_spec(module) or (chip.platform == 'tpu' and os.environ.get('TPU_LIBRARY_PATH'))
    if not there:
        raise InputError(f'--topology={name}: {module} is missing; pip install {requirement}')

    os.environ.update(QUIET)
    jax.config.update('jax_platforms', 'cpu')
    if chip.platform == 'cuda':
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {WITHOUT_CARD}'.strip()
        return chip, topology_mesh('cuda', kind, topology=shape, target_config=card_description(kind))
    options: dict[str, Any] = {}
    if kind == 'v4':  # the two cores of a chip as one device, as a v4 machine shows them
        options['chip_config_name'] = 'megacore'
    if all(side == '1' for side in sides):
        options['chips_per_host_bounds'] = [1, 1, 1]
    return chip, topology_mesh('tpu', name, **options)


def topology_mesh(platform: str, name: str, **options: Any) -> Mesh:
    """Returns the mesh of a machine that is not present, along the axis `data`, for compiling only.

    Args:
        platform: 'tpu' or 'cuda'.
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
