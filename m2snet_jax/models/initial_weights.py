"""Initial weights of convolutions, drawn by few programs that are compiled quickly."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax.typing import Dtype
from jax.core import Tracer
from jaxtyping import Array


def _draw(distribution: Callable[..., Array], key: Array, shape: Sequence[int], dtype: Dtype, *bounds: float) -> Any:
    """Returns `distribution(key, shape, dtype, *bounds)`, by few programs that are compiled quickly.

    With jax's default generator each value depends on the key and its place alone: a longer draw begins with the same
    values. So all sizes up to the next power of 4 share one program.
    """
    if isinstance(jax.random.key_data(key), Tracer):  # only the shape is wanted
        return distribution(key, shape, dtype, *bounds)
    size, length = math.prod(shape), 64
    while length < size:
        length *= 4
    values = _quickly_compiled()(distribution, key, (length,), np.dtype(dtype), *bounds)
    return np.asarray(values)[:size].reshape(shape)


@functools.cache
def _quickly_compiled():
    """Returns a jitted call of a distribution; on a CPU with few optimisations, in a fifth of the time."""
    options = {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else None
    return jax.jit(
        lambda distribution, *arguments: distribution(*arguments), static_argnums=(0, 2, 3), compiler_options=options
    )


def torch_uniform(key: Array, shape: Sequence[int], dtype: Dtype, fan_in: int) -> Array:
    """PyTorch's default for weight and bias of a convolution: uniform within ±1/√fan_in."""
    bound = fan_in**-0.5
    return jax.device_put(_draw(jax.random.uniform, key, shape, dtype, -bound, bound))


def he_normal_fan_out(key: Array, shape: Sequence[int], dtype: Dtype, fan_in: int) -> Array:
    """The encoders' initialiser: normal with variance 2 / (height · width · output channels)."""
    del fan_in
    height, width, _, channels = shape
    return jax.device_put(_draw(jax.random.normal, key, shape, dtype) * (2 / (height * width * channels)) ** 0.5)


def he_normal_fan_in(key: Array, shape: Sequence[int], dtype: Dtype, fan_in: int) -> Array:
    """Normal with variance 2 / fan_in, which preserves the scale of activations through ReLU layers."""
    return jax.device_put(_draw(jax.random.normal, key, shape, dtype) * (2 / fan_in) ** 0.5)
