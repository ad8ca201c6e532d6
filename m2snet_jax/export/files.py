"""Exported files: how each kind is written, loaded back and checked.

A file is loaded back and run beside `predict`'s own path before it gets its name. FILE.json beside it says what goes
in, what comes out, and how far the two were apart.
"""

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

import jax
import numpy as np
from jax import export

from m2snet_jax.data import augment
from m2snet_jax.data.datasets.phantoms import phantom
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.sheet import versions
from m2snet_jax.export.onnx_graph import make_graph
from m2snet_jax.export.program import OUTPUTS, any_images, make_program
from m2snet_jax.predictor import load_model, released_map, resized_map
from m2snet_jax.weights import state_dict, write_safetensors

PLATFORMS = ('cpu', 'cuda', 'tpu')
CONVERTER = 'jax2onnx==0.17.1'  # by itself, since it names an orbax too old for ours and does without it
TOLERANCE = 1e-5  # the largest difference of a probability in a file that is kept


class Refused(Exception):
    """A file that does not compute what the model computes; it was not kept."""


def _write_stablehlo(path, predictor):
    program = jax.jit(make_program(predictor))
    path.write_bytes(export.export(program, platforms=PLATFORMS)(any_images()).serialize())


def _load_stablehlo(path, predictor):
    return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


def _write_onnx(path, predictor):
    path.write_bytes(make_graph(predictor).SerializeToString())


def _load_onnx(path, predictor):
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: session.run(OUTPUTS, {'images': images})


def _write_safetensors(path, predictor):
    write_safetensors(path, state_dict(predictor.model))


def _load_safetensors(path, predictor):
    loaded = load_model(path, config=predictor.config)
    return lambda images: predicted(loaded, images)


# How each is written, how it is loaded back, and the packages whose versions matter beside ours.
FORMATS = {
    'stablehlo': (_write_stablehlo, _load_stablehlo, ()),
    'onnx': (_write_onnx, _load_onnx, ('jax2onnx', 'onnx', 'onnxruntime')),
    'safetensors': (_write_safetensors, _load_safetensors, ('safetensors',)),
}


def export_model(predictor, path, kind, batches, tolerance=TOLERANCE):
    """Writes a model for other programs, and FILE.json beside it, both whole or not at all.

    Args:
        predictor: from `load_model`.
        path: of the file.
        kind: of `FORMATS`.
        batches: [(what they are, images uint8 [B, H, W, 3])] on which the file is run beside the predictor.
        tolerance: largest difference of a probability.

    Returns:
        What FILE.json holds, a dict; under `checked` one entry a batch, see `compare`.

    Raises:
        Refused: the file's maps are not the predictor's.
        InputError: the file cannot be written, or a package is missing that this kind needs.
    """
    write, load, packages = FORMATS[kind]
    path = Path(path)
    temporary, beside = (path.with_name(f'.{os.getpid()}.{path.name}{ending}') for ending in ('', '.json'))
    try:
        write(temporary, predictor)
        run = load(temporary, predictor)
        checked = [{'images': name, **compare(run(images), predicted(predictor, images))} for name, images in batches]
        levels = 1 + 255 * tolerance  # a difference however small may take a probability across the step to the next
        bad = [one for one in checked if not (one['probability'] <= tolerance and one['levels'] <= levels)]
        if bad:
            raise Refused(f'{path}: not kept, its maps are not those of the model: {"; ".join(map(in_words, bad))}')
        about = describe(predictor, kind) | {'sha256': hashlib.sha256(temporary.read_bytes()).hexdigest()}
        about |= {'versions': versions() | {name: importlib.metadata.version(name) for name in packages}}
        about |= {'checked_on': jax.default_backend(), 'tolerance': tolerance, 'checked': checked}
        beside.write_text(json.dumps(about, indent=1) + '\n')
        os.replace(beside, path.with_name(f'{path.name}.json'))
        os.replace(temporary, path)
    except ImportError as error:
        how = f'pip install ".[export]" && pip install --no-deps {CONVERTER}'
        raise InputError(f'--format={kind} needs {error.name or error}, which is not installed: {how}') from None
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None
    finally:
        temporary.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    return about


def example_batches(size):
    """Returns two batches to check a model with that runs at `size`: five of noise, and one generated picture.

    The noise is larger than the network's size along one axis and smaller along the other.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, size // 2 + 1, 2 * size + 3, 3), np.uint8)
    return [('noise', noise), ('phantom', phantom(rng)[0][None])]


def predicted(predictor, images):
    """Returns what `predict` makes of a batch, as `make_program` returns it."""
    sizes, maps = images.shape[1:3], predictor.probabilities(list(images))
    floats = [resized_map(one, *sizes).reshape(*sizes, -1) for one in maps]
    levels = [[released_map(channel, *sizes) for channel in np.moveaxis(one, -1, 0)] for one in maps]
    return np.stack(floats), np.moveaxis(np.stack(levels), 1, -1)


def compare(found, expected):
    """Returns the largest differences of (probability, levels) from those expected, and how many levels differ."""
    shapes = [tuple(array.shape) for array in expected]
    if [tuple(array.shape) for array in found] != shapes:
        return {'shape': shapes[0], 'probability': float('inf'), 'levels': 255, 'differing': expected[1].size}
    probability, levels = (np.abs(np.float64(a) - np.float64(b)) for a, b in zip(found, expected, strict=True))
    largest = {'probability': float(probability.max()), 'levels': int(levels.max())}
    return {'shape': shapes[0], **largest, 'differing': int(np.count_nonzero(levels))}


def in_words(one):
    """Returns an entry of `checked` as a line."""
    batch, height, width, classes = one['shape']
    count = batch * height * width * classes
    return (
        f'{one["images"]} ({batch} × {height} × {width}): largest difference of a probability '
        f'{one["probability"]:.1e}, of a level {one["levels"]}; {one["differing"]} of {count} levels differ'
    )


def describe(predictor, kind):
    """Returns what a user of an exported file must know."""
    size = predictor.size
    about = {
        'format': kind,
        'model': predictor.config.model.name,
        'encoder': predictor.config.model.encoder,
        'classes': predictor.classes,
        'size': size,
        'mean': augment.TEST_MEAN.tolist(),
        'std': augment.TEST_STD.tolist(),
        'window': predictor.window,
        'model_hash': predictor.model_hash,
    }
    steps = f"Pillow's bilinear resize to {size} × {size}, ÷255, − mean, ÷std, network, sigmoid"
    if kind == 'safetensors':
        return {**about, 'holds': "weights by PyTorch's names, batch norms as trained", 'to_be_done_outside': steps}
    if kind == 'stablehlo':
        about['platforms'] = PLATFORMS
    output = {
        'probability': 'float32 [B, H, W, C] in [0, 1], one map a class',
        'levels': 'uint8 [B, H, W, C]: probability × 255 rounded down, then resized; the PNG of predict',
    }
    inside = f'{steps}, resize to H × W; batch norms folded into the convolutions'
    return {**about, 'input': 'images: uint8 [B, H, W, 3], RGB, upright', 'output': output, 'inside': inside}
