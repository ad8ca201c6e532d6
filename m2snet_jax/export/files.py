"""Exported files: how each kind is written, loaded back and checked.

A file is loaded back and its maps compared with those of `predict` before it gets its name. FILE.json beside it
describes its input and output and lists the differences found.
"""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import UInt8

from m2snet_jax.data import augment
from m2snet_jax.data.datasets.phantoms import phantom
from m2snet_jax.devices.programs import EXPORT_PLATFORMS
from m2snet_jax.errors import InputError
from m2snet_jax.export.inference import OUTPUTS, any_images, make_program
from m2snet_jax.export.onnx_graph import make_graph
from m2snet_jax.prediction.predictor import Predictor, load_model, released_map, resized_map
from m2snet_jax.storage import versions, whole, write_json
from m2snet_jax.weights import about_network, state_dict, write_safetensors

CONVERTER = 'jax2onnx==0.17.1'  # installed without its dependencies: it requires an older orbax and does not use it
Images = UInt8[np.ndarray, 'batch height width 3']
TOLERANCE = 1e-5  # the largest difference of a probability in a file that is kept


class Refused(Exception):
    """A file that does not compute what the model computes; it was not kept."""


def _write_stablehlo(path, predictor):
    program = jax.jit(make_program(predictor))
    path.write_bytes(export.export(program, platforms=EXPORT_PLATFORMS)(any_images()).serialize())


def _load_stablehlo(path, predictor):
    return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


def _write_onnx(path, predictor):
    path.write_bytes(make_graph(predictor).SerializeToString())


def _load_onnx(path, predictor):
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports] (optional)

    session = InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: session.run(OUTPUTS, {'images': images})


def _write_safetensors(path, predictor):
    model = predictor.model
    write_safetensors(path, state_dict(model), about_network(model))


def _load_safetensors(path, predictor):
    loaded = load_model(path, config=predictor.config)
    return lambda images: predicted(loaded, images)


# For each format: how it is written, how it is loaded back, and the packages whose versions are recorded.
FORMATS = {
    'stablehlo': (_write_stablehlo, _load_stablehlo, ()),
    'onnx': (_write_onnx, _load_onnx, ('jax2onnx', 'onnx', 'onnxruntime')),
    'safetensors': (_write_safetensors, _load_safetensors, ('safetensors',)),
}


def export_model(
    predictor: Predictor, path: str | Path, kind: str, batches: list[tuple[str, Images]], tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Writes a model for other programs, and FILE.json beside it, both whole or not at all.

    Args:
        kind: of `FORMATS`.
        batches: (what they are, images), on which the file is compared with the predictor.
        tolerance: largest difference of a probability.

    Returns:
        The content of FILE.json; under `checked` one entry per batch, see `compare`.

    Raises:
        Refused: the file's maps are not the predictor's.
        InputError: the file cannot be written, or a package that the format needs is missing.
    """
    write_file, load, packages = FORMATS[kind]
    path = Path(path)
    try:
        with whole(path) as temporary:
            write_file(temporary, predictor)
            about = _check(path, temporary, load(temporary, predictor), predictor, kind, batches, tolerance)
            about['versions'] |= {name: importlib.metadata.version(name) for name in packages}
            write_json(path.with_name(f'{path.name}.json'), about)
    except ImportError as error:
        how = f'pip install ".[export]" && pip install --no-deps {CONVERTER}'
        raise InputError(f'--format={kind} needs {error.name or error}, which is not installed: {how}') from None
    return about


def _check(path, temporary, run, predictor, kind, batches, tolerance):
    """Compares a written file with the predictor; returns the content of FILE.json, or raises Refused."""
    checked = [{'images': name, **compare(run(images), predicted(predictor, images))} for name, images in batches]
    levels = 1 + 255 * tolerance  # a tiny difference can move a probability to the next level
    bad = [one for one in checked if not (one['probability'] <= tolerance and one['levels'] <= levels)]
    if bad:
        raise Refused(f'{path}: not kept, its maps are not those of the model: {"; ".join(map(in_words, bad))}')
    return describe(predictor, kind) | {
        'sha256': hashlib.sha256(temporary.read_bytes()).hexdigest(),
        'versions': versions(),
        'checked_on': jax.devices()[0].platform,
        'tolerance': tolerance,
        'checked': checked,
    }


def example_batches(size: int) -> list[tuple[str, Images]]:
    """Returns two batches to check a model that runs at `size`: five images of noise, and one phantom.

    The noise is larger than the network's size along one axis and smaller along the other.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, size // 2 + 1, 2 * size + 3, 3), np.uint8)
    return [('noise', noise), ('phantom', phantom(rng)[0][None])]


def predicted(predictor: Predictor, images: Images) -> tuple[np.ndarray, ...]:
    """Returns the maps of `predict` for a batch, as `make_program` returns them."""
    sizes, maps = images.shape[1:3], predictor.probabilities(list(images))
    return tuple(np.stack([function(one, *sizes) for one in maps]) for function in (resized_map, released_map))


def compare(found: Sequence[Any], expected: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns the largest differences of (probability, levels) from those expected, and how many levels differ."""
    shapes = [tuple(array.shape) for array in expected]
    if [tuple(array.shape) for array in found] != shapes:
        return {'shape': shapes[0], 'probability': float('inf'), 'levels': 255, 'differing': expected[1].size}
    probability, levels = (np.abs(np.float64(a) - np.float64(b)) for a, b in zip(found, expected, strict=True))
    largest = {'probability': float(probability.max()), 'levels': int(levels.max())}
    return {'shape': shapes[0], **largest, 'differing': int(np.count_nonzero(levels))}


def in_words(one: dict[str, Any]) -> str:
    """Returns an entry of `checked` as a line."""
    batch, height, width, classes = one['shape']
    count = batch * height * width * classes
    return (
        f'{one["images"]} ({batch} × {height} × {width}): largest difference of a probability '
        f'{one["probability"]:.1e}, of a level {one["levels"]}; {one["differing"]} of {count} levels differ'
    )


def describe(predictor: Predictor, kind: str) -> dict[str, Any]:
    """Returns what a user of an exported file needs: model, input, output and normalisation."""
    size = predictor.size
    config: Any = predictor.config  # a file too has one: the default's
    about: dict[str, Any] = {
        'format': kind,
        'model': config.model.name,
        'encoder': config.model.encoder,
        **predictor.model.switches,
        'classes': predictor.classes,
        'size': size,
        'mean': augment.TEST_MEAN.tolist(),
        'std': augment.TEST_STD.tolist(),
        'window': predictor.window,
        'model_hash': predictor.model_hash,
        **predictor.variant,
    }
    steps = f"Pillow's bilinear resize to {size} × {size}, ÷255, − mean, ÷std, network, sigmoid"
    if kind == 'safetensors':
        return {**about, 'holds': "weights by PyTorch's names, batch norms as trained", 'to_be_done_outside': steps}
    if kind == 'stablehlo':
        about['platforms'] = EXPORT_PLATFORMS
    output = {
        'probability': 'float32 [B, H, W, C] in [0, 1], one map a class',
        'levels': 'uint8 [B, H, W, C]: probability × 255 rounded down, then resized; the PNG of predict',
    }
    inside = f'{steps}, resize to H × W; batch norms folded into the convolutions'
    return {**about, 'input': 'images: uint8 [B, H, W, 3], RGB, upright', 'output': output, 'inside': inside}
