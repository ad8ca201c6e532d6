"""Parameters, arithmetic and time of the networks side by side."""

import math
import statistics
import time
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

from m2snet_jax.benchmark.steps import prediction
from m2snet_jax.build import build_model
from m2snet_jax.devices.mesh import Mesh
from m2snet_jax.models.model_weights import merge_model, split_model

FIRST = {'model.name': 'm2snet', 'model.encoder': 'res2net50'}
FAMILY = (  # what each network changes in the first
    {},
    {'model.name': 'msnet'},
    {'model.encoder': 'res2net101'},
    {'model.encoder': 'resnet50'},
    {'model.encoder': 'vgg16'},
    {'model.encoder': 'pvt_v2_b2'},
    {'model.columns': 3},
    {'model.columns': 1},
    {'model.filters': (3,)},
    {'model.filters': (3, 5, 7)},
    {'model.operation': 'add'},
    {'model.operation': 'concatenate'},
)


def multiply_adds(model: Any, size: int) -> int:
    """Counts the multiply-adds of convolutions and matrix products, but for resizing, in a prediction of one image."""
    graph, weights = split_model(model)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    jaxpr = jax.make_jaxpr(lambda weights, images: merge_model(graph, weights)(images))(weights, images)
    return _count(jaxpr.jaxpr)


def _count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if 'resize' in str(equation.source_info.name_stack):
            continue
        name, parameters, output = equation.primitive.name, equation.params, equation.outvars[0].aval
        if name == 'conv_general_dilated':
            kernel, axes = equation.invars[1].aval, parameters['dimension_numbers'].rhs_spec
            total += output.size * kernel.size // kernel.shape[axes[0]]
        elif name == 'dot_general':
            ((summed, _), _) = parameters['dimension_numbers']
            total += output.size * math.prod(equation.invars[0].aval.shape[axis] for axis in summed)
        else:  # of the forms for several platforms, the last is the plain one
            inner = parameters['branches'][-1:] if 'branches' in parameters else parameters.values()
            total += sum(
                _count(one.jaxpr if isinstance(one, ClosedJaxpr) else one)
                for one in inner
                if isinstance(one, ClosedJaxpr | Jaxpr)
            )
    return total


def time_family(config: Any, mesh: Mesh, repeats: int) -> list[dict[str, Any]]:
    """Times the prediction of one image at `data.size` by each network of `FAMILY`, all in turn.

    The rest of the config is that given.

    Returns:
        [{'changes', 'parameters', 'multiply_adds', 'milliseconds', 'ratio' to the first network's time}].
    """
    rows, steps = [], []
    images = np.random.default_rng(0).standard_normal((1, config.data.size, config.data.size, 3), np.float32)
    for changes in FAMILY:
        changed = config.copy_and_resolve_references()
        with changed.unlocked():
            changed.update_from_flattened_dict({**FIRST, **changes})
        model = build_model(changed)
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        rows.append(
            {'changes': changes, 'parameters': parameters, 'multiply_adds': multiply_adds(model, config.data.size)}
        )
        step, arguments = prediction(changed, mesh, {'image': images})
        steps.append((step.lower(*arguments).compile(), arguments))
    seconds = [[] for _ in steps]
    for index in range(repeats + 2):  # the first two warm up
        for times, (compiled, arguments) in zip(seconds, steps, strict=True):
            begun = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            if index >= 2:
                times.append(time.perf_counter() - begun)
    medians = [1e3 * statistics.median(times) for times in seconds]
    return [
        {**row, 'milliseconds': median, 'ratio': median / medians[0]} for row, median in zip(rows, medians, strict=True)
    ]


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Returns the rows of `time_family` as a table in Markdown."""
    lines = [f'| network | parameters | GMAC at {size}² | ms | ÷ first |', '|---|---|---|---|---|']
    for row in rows:
        changes = FIRST | row['changes']
        name = ', '.join(f'`{key.removeprefix("model.")}={value}`' for key, value in changes.items())
        lines.append(
            f'| {name} | {row["parameters"]:,} | {row["multiply_adds"] / 1e9:.1f} | {row["milliseconds"]:.0f} '
            f'| {row["ratio"]:.2f} |'
        )
    return '\n'.join(lines)
