"""From an image to a map: loads any trained model, runs it, and turns probabilities into maps."""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from absl import logging
from flax import nnx
from jaxtyping import Bool, Float, Float32, Shaped, UInt8, UInt16
from ml_collections import ConfigDict
from PIL import Image

from m2snet_jax.build import empty_model
from m2snet_jax.config import load_config
from m2snet_jax.data import augment
from m2snet_jax.devices.mesh import Mesh, replicate
from m2snet_jax.devices.programs import compiler_options, one_by_one
from m2snet_jax.errors import InputError
from m2snet_jax.images.decisions import image_reading
from m2snet_jax.images.formats import read_image
from m2snet_jax.images.reading import UNDECIDED, from_json
from m2snet_jax.models.folding import fold_batch_norms
from m2snet_jax.models.model_weights import merge_model, split_model
from m2snet_jax.storage import local_path
from m2snet_jax.weights import load_weights, recorded_config, recorded_reading
from m2snet_jax.weights.names import model_hash

LARGEST_BATCH = 8  # a longer list runs in pieces of this many images
Probabilities = Float[np.ndarray, 'size size classes']  # in [0, 1], at the network's size


def load_model(path: str | Path, *, config: Any = None) -> 'Predictor':
    """Loads a trained model for prediction.

    Args:
        path: the folder of a run or of a converted model (its newest checkpoint is taken), the folder `checkpoints` in
            it or one step's folder in that, or a PyTorch or safetensors file.
        config: model and size of a bare file, as a ConfigDict or a name for `load_config`; by default M2SNet with a
            Res2Net-50 at 352 pixels. A run has recorded its own.

    Raises:
        InputError: nothing there, or weights that do not fit.
    """
    path = local_path(path)
    bare = not path.is_dir()
    if not bare:
        config = cast(Any, ConfigDict(recorded_config(path)))
    elif config is None or isinstance(config, str):
        config = load_config(config or 'default')
    model = empty_model(config)
    try:
        load_weights(model, path, config.model.get('weights_average') if bare else None)
    except InputError as error:
        if bare and 'do not fit' in str(error):
            expected = f'{config.model.name} with {config.model.encoder} and {config.data.classes} output map(s)'
            raise InputError(f'{error} (expected {expected}; another config names another model)') from None
        raise
    predictor = Predictor(model, config.data.size, config)
    if not bare:
        predictor.reading = from_json(recorded_reading(path)).of_images()
    return predictor


class Predictor:
    """Probability maps of images: `predictor(image)`.

    It runs on the first device that jax finds, and may be called from several threads at once. The batch norms of its
    model, an MSNet or M2SNet, are folded into the convolutions.

    Attributes:
        size: side in pixels at which the network runs.
        classes: maps that it predicts.
        config: the ConfigDict that named the model, None without.
        window: as `data.window`, for files of more than 8 bits; the config's, and may be set.
        reading: how the images that the model was trained on were read, as its run recorded it; may be set.
    """

    def __init__(self, model: Any, size: int, config: Any = None):
        self._model = model
        graph, self._weights = split_model(fold_batch_norms(model))
        self._step, self._compiled, self._lock = make_predict_step(graph), {}, threading.Lock()
        self.size, self.classes, self.config = size, model.output1.kernel.shape[-1], config
        self.window = None if config is None else config.data.get('window')  # runs from before the key have none
        self.reading = UNDECIDED

    @property
    def model(self) -> Any:
        """The model itself, in evaluation mode; a new object each time, which shares the arrays."""
        model = nnx.merge(*nnx.split(self._model))
        model.eval()
        return model

    @functools.cached_property
    def model_hash(self) -> str:
        """SHA-256 of the weights, the same for every kind of file; see `weights.names.model_hash`."""
        return model_hash(self._model)

    def __call__(self, image: Any) -> Any:
        """Returns float32 `[H, W]`, or `[H, W, classes]` for several classes, in [0, 1], at the image's own size.

        The map is resized in float; only the command line writes the released program's bytes.

        Args:
            image: uint8 `[H, W, 3]` or `[H, W]`, or the path of an image file; or a list of these, for a list of maps.

        Raises:
            InputError: an array of another kind, or a file that cannot be read.
        """
        if not isinstance(image, (list, tuple)):
            return self([image])[0]
        images = [pixels if isinstance(pixels, np.ndarray) else self._read(pixels) for pixels in image]
        maps = [
            resized_map(probability, *pixels.shape[:2])
            for probability, pixels in zip(self.probabilities(images), images, strict=True)
        ]
        return [one[..., 0] if self.classes == 1 else one for one in maps]

    def _read(self, path):
        """Returns the pixels of a file; logs how one of more than 8 bits is read where no run decides it."""
        reading = image_reading([path], self.window, self.reading)
        for note in reading.notes:
            logging.warning('%s: %s', path, note)
        return read_image(path, self.window, reading)

    def probabilities(self, images: Sequence[UInt8[np.ndarray, 'height width *rgb']]) -> list[Probabilities]:
        """Returns the float32 probabilities of each image; images may have any sizes, in grey or RGB.

        Images run in batches of 1, 2, 4 or 8, padded where needed, so that at most four programs are compiled, each on
        first use.

        Raises:
            InputError: an array of another kind.
        """
        images, results = [_colour(pixels) for pixels in images], []
        for start in range(0, len(images), LARGEST_BATCH):
            examples = [augment.test_example(pixels, self.size) for pixels in images[start : start + LARGEST_BATCH]]
            bucket = 1 << (len(examples) - 1).bit_length()
            batch = np.stack(examples + [examples[-1]] * (bucket - len(examples)))
            results.extend(np.asarray(self._program(batch)(self._weights, batch))[: len(examples)])
        return results

    def over(self, mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
        """Returns the network as a function of batches that are split over a mesh: images → probabilities.

        Images are `[B, S, S, 3]`, normalised for the test path; probabilities `[B, S, S, C]`.
        """
        return functools.partial(self._step, replicate(self._weights, mesh))

    def _program(self, batch):
        """Returns the step compiled for the shape of `batch`; other threads wait meanwhile."""
        with self._lock:
            if batch.shape not in self._compiled:
                self._compiled[batch.shape] = self._step.lower(self._weights, batch).compile()
            return self._compiled[batch.shape]


def _colour(pixels):
    """Returns an image as RGB, or raises InputError."""
    if (
        pixels.dtype != np.uint8
        or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3))
        or 0 in pixels.shape
    ):
        shape = ', '.join(map(str, pixels.shape))
        raise InputError(f'an image is {pixels.dtype} [{shape}]: give uint8 [H, W, 3] or [H, W]')
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels


@functools.cache
def make_predict_step(graph: Any) -> Any:
    """Returns the jitted `predict_step(weights, images)`, in evaluation mode; equal graphs share one, compiled once.

    Images `[B, S, S, 3]`, normalised for the test path, give probabilities `[B, S, S, C]`, at least float32.
    """

    def predict_step(weights, images):
        return one_by_one(lambda images: jax.nn.sigmoid(merge_model(graph, weights)(images)), images)

    return jax.jit(predict_step, compiler_options=compiler_options())


def resized_map(probability: Probabilities, height: int, width: int) -> Float32[np.ndarray, 'height width classes']:
    """Resizes probabilities in float."""
    return _resize(probability, height, width)


def released_map(probability: Probabilities, height: int, width: int) -> UInt8[np.ndarray, 'height width classes']:
    """Returns probabilities as levels, as the released program writes them.

    ⌊255·p⌋ first, then Pillow's bilinear resize of the bytes. NaN, from a network that has diverged, becomes 0.
    """
    return _resize((np.nan_to_num(probability) * 255).astype(np.uint8), height, width)


def sixteen_bit_map(probability: Probabilities, height: int, width: int) -> UInt16[np.ndarray, 'height width classes']:
    """Returns probabilities resized in float as ⌊65535·p + ½⌋."""
    levels = np.floor(resized_map(probability, height, width) * 65535.0 + 0.5)
    return np.clip(levels, 0, 65535).astype(np.uint16)


def is_lesion(maps: Shaped[np.ndarray, '*shape'], threshold: float) -> Bool[np.ndarray, '*shape']:
    """Returns where maps, uint8 levels or floats, are at the probability `threshold` or above."""
    return maps >= threshold * (255 if maps.dtype == np.uint8 else 1)


def _resize(maps, height, width):
    channels = [Image.fromarray(channel) for channel in np.moveaxis(maps, -1, 0)]
    resized = [channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], -1)
