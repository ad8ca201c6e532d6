"""From an image to a map: load any model, run it, and write maps in the released way."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from m2snet_jax.config import load_config
from m2snet_jax.data import augment
from m2snet_jax.images import read_image
from m2snet_jax.model.m2snet import M2SNet, MSNet
from m2snet_jax.weights import load_weights, recorded_config

MODELS = {'m2snet': M2SNet, 'msnet': MSNet}


def create_model(name, encoder='res2net50', classes=1, dtype='float32', seed=0):
    """Returns the model that a config names, in training mode, with initial weights from `seed`."""
    return MODELS[name](encoder, classes, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(params=seed))


def load_model(path, *, config=None):
    """Loads a trained model for prediction.

    Args:
        path: the folder of a run, or a PyTorch or safetensors file.
        config: gives model and size to a bare file, as a ConfigDict or a name for `load_config`; by default M2SNet
            with a Res2Net-50 at 352 pixels. A run knows its own.

    Returns:
        A Predictor.

    Raises:
        InputError: nothing there, or weights that do not fit.
    """
    if Path(path).is_dir():
        config = ConfigDict(recorded_config(Path(path)))
    elif not isinstance(config, ConfigDict):
        config = load_config(config or 'default')
    model = create_model(config.model.name, config.model.encoder, config.data.classes)
    return Predictor(load_weights(model, path), config.data.size)


class Predictor:
    """Probability maps of single images: `predictor(image)`.

    Args:
        model: an MSNet or M2SNet.
        size: side in pixels at which the network runs.
    """

    def __init__(self, model, size):
        graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._step, self._state, self._size = make_predict_step(graph), (params, batch_stats), size

    def __call__(self, image):
        """Returns float32 `[H, W]`, or `[H, W, classes]` for several classes, in [0, 1], at the image's own size.

        The map is resized in float; only the command line writes the released program's bytes.

        Args:
            image: uint8 `[H, W, 3]` or `[H, W]`, or the path of an image file.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        pixels = np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
        height, width = pixels.shape[:2]
        probability = np.asarray(self._step(*self._state, augment.test_example(pixels, self._size)[None]))[0]
        maps = [
            np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
            for channel in np.moveaxis(probability, -1, 0)
        ]
        return maps[0] if len(maps) == 1 else np.stack(maps, -1)


def make_predict_step(graph):
    """Returns the jitted `predict_step(params, batch_stats, images)`.

    Images `[B, S, S, 3]`, normalised for the test path → probabilities `[B, S, S, C]`, at least float32, in evaluation
    mode.
    """

    def predict_step(params, batch_stats, images):
        model = nnx.merge(graph, params, batch_stats, copy=True)
        model.eval()
        return jax.nn.sigmoid(model(images))

    return jax.jit(predict_step)


def released_map(probability, height, width):
    """Turns one probability map `[S, S]` into uint8 `[height, width]` as the released program writes it.

    ⌊255·p⌋ first, then Pillow's bilinear resize of the bytes.
    """
    levels = Image.fromarray((probability * 255).astype(np.uint8))
    return np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR))
