"""ONNX by jax2onnx, with the changes that its graph needs for ONNX Runtime."""

from typing import Any

from m2snet_jax.export.inference import OUTPUTS, any_images, make_program
from m2snet_jax.prediction.predictor import Predictor

OPSET = 18  # supported by runtimes from 2023 on


def make_graph(predictor: Predictor) -> Any:
    """Returns the program of a Predictor as an `onnx.ModelProto`: `images` → `probability`, `levels`."""
    from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports] (optional)

    names = {'input_names': ['images'], 'output_names': list(OUTPUTS)}
    model = to_onnx(make_program(predictor), [any_images()], opset=OPSET, **names)
    _pool_over_two_axes(model.graph)
    _drop_unused(model.graph)
    return model


def _pool_over_two_axes(graph):
    """Rewrites each MaxPool to one over height and width only.

    jax2onnx pools `[1, 1, B, H, W, C]` over four axes, two of them with windows of one: Unsqueeze, Unsqueeze, MaxPool,
    Squeeze. ONNX Runtime pools over three axes at most.
    """
    from onnx import helper  # pyright: ignore[reportMissingImports] (optional)

    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}

    def transpose(node, given, axes):
        node.CopyFrom(helper.make_node('Transpose', [given], node.output, node.name, perm=axes))

    for pool in [node for node in graph.node if node.op_type == 'MaxPool']:
        settings = {attribute.name: list(attribute.ints) for attribute in pool.attribute}
        second = makers[pool.input[0]]
        first, last = makers[second.input[0]], users[pool.output[0]]
        transpose(first, first.input[0], [0, 3, 1, 2])
        window: dict[str, Any] = {'kernel_shape': settings['kernel_shape'][1:3], 'strides': settings['strides'][1:3]}
        low, high = settings['pads'][1:3], settings['pads'][5:7]
        pool.CopyFrom(helper.make_node('MaxPool', first.output, pool.output, pool.name, **window, pads=low + high))
        transpose(last, pool.output[0], [0, 2, 3, 1])
        graph.node.remove(second)
        stale = {*first.output, *second.output, *pool.output}  # their recorded shapes are now wrong
        for value in [value for value in graph.value_info if value.name in stale]:
            graph.value_info.remove(value)


def _drop_unused(graph):
    """Removes constants that no node uses: ONNX Runtime warns about each when the file is loaded.

    Returns the names that the nodes of the graph and of its branches use.
    """
    used = {name for node in graph.node for name in node.input}
    for attribute in (attribute for node in graph.node for attribute in node.attribute if attribute.HasField('g')):
        used |= _drop_unused(attribute.g)
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return used
