"""How programs are compiled, and where they are kept between runs."""

import os
from collections.abc import Callable

import jax
from jaxtyping import Array, Shaped

from m2snet_jax.storage import cache_folder

EXPORT_PLATFORMS = ('cpu', 'cuda', 'tpu')  # for which a program is exported
# jax's own variables override ours.
CACHE, SHORTEST = 'JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, by default in the user's cache folder: five sizes take minutes.

    The smallest ones too: initial weights take about a hundred of them, together 15 s.
    """
    if not os.environ.get(SHORTEST):
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    if not os.environ.get(CACHE):
        jax.config.update('jax_compilation_cache_dir', str(cache_folder() / 'compiled'))


def compiler_options() -> dict[str, bool | str] | None:
    """Returns the options for compiling steps: on a CPU without the library YNN, which leaves cores idle; else None.

    Where float64 is enabled YNN stays: without it, convolutions in float64 take at least 20 times as long.
    """
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # jax defines it at run time
    without = jax.default_backend() == 'cpu' and not x64
    return {'xla_cpu_experimental_ynn_fusion_type': ''} if without else None


def one_by_one(function: Callable[[Array], Array], images: Shaped[Array, 'batch ...']) -> Shaped[Array, 'batch ...']:
    """Applies a function that treats each image separately to a batch that is split over all devices.

    On a CPU each device takes its images one after the other, which is 10 % faster, since the maps of one image fit
    into its caches. Any other device takes them all at once.
    """
    images_each, rest = divmod(len(images), jax.device_count())
    if rest or images_each == 1:
        return function(images)

    def in_turn(images):
        turns = images.reshape(-1, images_each, *images.shape[1:]).swapaxes(0, 1)
        outputs = jax.lax.map(function, turns).swapaxes(0, 1)
        return outputs.reshape(-1, *outputs.shape[2:])

    return jax.lax.platform_dependent(images, cpu=in_turn, default=function)
