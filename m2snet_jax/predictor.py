"""From an image to a map: load any model, run it, and write maps in the released way."""

import functools
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from m2snet_jax.config import load_config
from m2snet_jax.data import augment
from m2snet_jax.errors import InputError
from m2snet_jax.images import read_image
from m2snet_jax.mesh import compiler_options, one_by_one
from m2snet_jax.model.folding import fold
from m2snet_jax.model.m2snet import M2SNet, MSNet
from m2snet_jax.weights import load_weights, recorded_config
from m2snet_jax.weights.names import model_hash

MODELS = {'m2snet': M2SNet, 'msnet': MSNet}
LARGEST_BATCH = 8  # a longer list is run in pieces of this many images


def create_model(name, encoder='res2net50', classes=1, dtype='float32', seed=0):
    """Returns the model that a config names, in training mode, with initial weights from `seed`."""
    return MODELS[name](encoder, classes, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(params=seed))


def empty_model(name, encoder='res2net50', classes=1):
    """Returns the same model without values, for `load_weights` to fill: drawing initial ones takes longer."""

    def build():
        key = jax.random.key(0)
        # No value is ever computed, so one key does for all; nnx.Rngs would take half a second to count them.
        return MODELS[name](encoder, classes, rngs=types.SimpleNamespace(params=lambda: key))

    return nnx.eval_shape(build)


def load_model(path, *, config=None):
    """Loads a trained model for prediction.

    Args:
        path: the folder of a run or of a converted model (its newest checkpoint is taken), the folder `checkpoints` in
            it or one step's folder in that, or a PyTorch or safetensors file.
        config: gives model and size to a bare file, as a ConfigDict or a name for `load_config`; by default M2SNet
            with a Res2Net-50 at 352 pixels. A run knows its own.

    Returns:
        A Predictor.

    Raises:
        InputError: nothing there, or weights that do not fit.
    """
    path, bare = Path(path), not Path(path).is_dir()
    if not bare:
        config = ConfigDict(recorded_config(path))
    elif not isinstance(config, ConfigDict):
        config = load_config(config or 'default')
    about = config.model.name, config.model.encoder, config.data.classes
    model = empty_model(*about)
    try:
        load_weights(model, path)
    except InputError as error:
        if bare and 'do not fit' in str(error):
            hint = 'expected {} with {} and {} output map(s); another config names another model'.format(*about)
            raise InputError(f'{error} ({hint})') from None
        raise
    return Predictor(model, config.data.size, config)


class Predictor:
    """Probability maps of images: `predictor(image)`.

    It runs on the first device that jax finds, and may be called from several threads at once.

    Attributes:
        size: side S in pixels at which the network runs.
        classes: maps that it predicts, C.
        step, state: the jitted step and what it takes before the images, for callers with batches of their own.
        config: the ConfigDict that named the model, None if there was none.
        window: through which DICOM and NIfTI files are read, see `data.window`; the config's, and may be set.

    Args:
        model: an MSNet or M2SNet; it is run with its batch norms folded into the convolutions.
        size: see above.
        config: see above.
    """

    def __init__(self, model, size, config=None):
        self._model = model
        graph, *self.state = nnx.split(fold(model), nnx.Param, nnx.BatchStat)
        self.step, self._compiled, self._lock = make_predict_step(graph), {}, threading.Lock()
        self.size, self.classes, self.config = size, model.output1.kernel.shape[-1], config
        self.window = None if config is None else config.data.get('window')  # runs from before the key have none

    @property
    def model(self):
        """The model itself, in evaluation mode; a new object each time, which shares the arrays."""
        model = nnx.merge(*nnx.split(self._model))
        model.eval()
        return model

    @functools.cached_property
    def model_hash(self):
        """SHA-256 of the weights, see `weights.names.model_hash`; the same from whatever kind of file they come."""
        return model_hash(self._model)

    def __call__(self, image):
        """Returns float32 `[H, W]`, or `[H, W, classes]` for several classes, in [0, 1], at the image's own size.

        The map is resized in float; only the command line writes the released program's bytes.

        Args:
            image: uint8 `[H, W, 3]` or `[H, W]`, or the path of an image file; or a list of those, of any sizes, for a
                list of maps.

        Raises:
            InputError: an array of another kind, or a file that cannot be read.
        """
        if not isinstance(image, (list, tuple)):
            return self([image])[0]
        images = [pixels if isinstance(pixels, np.ndarray) else read_image(pixels, self.window) for pixels in image]
        return [
            resized_map(probability, *pixels.shape[:2])
            for probability, pixels in zip(self.probabilities(images), images, strict=True)
        ]

    def probabilities(self, images):
        """Returns a float32 array `[S, S, C]` in [0, 1] for each image, at the network's own size S.

        Images run in batches of 1, 2, 4 or 8, filled up where needed, so that at most four programs are compiled,
        each when it is first needed.

        Args:
            images: a list of uint8 arrays `[H, W, 3]` or `[H, W]`, of any sizes.

        Raises:
            InputError: an array of another kind.
        """
        images, results = [_colour(pixels) for pixels in images], []
        for start in range(0, len(images), LARGEST_BATCH):
            examples = [augment.test_example(pixels, self.size) for pixels in images[start : start + LARGEST_BATCH]]
            bucket = 1 << (len(examples) - 1).bit_length()
            batch = np.stack(examples + [examples[-1]] * (bucket - len(examples)))
            results.extend(np.asarray(self._program(batch)(*self.state, batch))[: len(examples)])
        return results

    def _program(self, batch):
        """Returns the step compiled for the shape of `batch`; threads that need it meanwhile wait."""
        with self._lock:
            if batch.shape not in self._compiled:
                self._compiled[batch.shape] = self.step.lower(*self.state, batch).compile()
            return self._compiled[batch.shape]


def _colour(pixels):
    """Returns uint8 `[H, W, 3]`."""
    if (
        pixels.dtype != np.uint8
        or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3))
        or 0 in pixels.shape
    ):
        shape = ', '.join(map(str, pixels.shape))
        raise InputError(f'an image is {pixels.dtype} [{shape}]: give uint8 [H, W, 3] or [H, W]')
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels


def resized_map(probability, height, width):
    """Resizes `[S, S, C]` in float: `[height, width]`, or `[height, width, C]` for several classes."""
    maps = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(probability, -1, 0)
    ]
    return maps[0] if len(maps) == 1 else np.stack(maps, -1)


@functools.cache
def make_predict_step(graph):
    """Returns the jitted `predict_step(params, batch_stats, images)`, one for equal graphs: it is compiled once.

    Images `[B, S, S, 3]`, normalised for the test path → probabilities `[B, S, S, C]`, at least float32, in evaluation
    mode.
    """

    def predict_step(params, batch_stats, images):
        def probabilities(images):
            model = nnx.merge(graph, params, batch_stats, copy=True)
            model.eval()
            return jax.nn.sigmoid(model(images))

        return one_by_one(probabilities, images)

    return jax.jit(predict_step, compiler_options=compiler_options())


def released_map(probability, height, width):
    """Turns one probability map `[S, S]` into uint8 `[height, width]` as the released program writes it.

    ⌊255·p⌋ first, then Pillow's bilinear resize of the bytes. NaN, which a network that has diverged gives, becomes 0.
    """
    levels = Image.fromarray((np.nan_to_num(probability) * 255).astype(np.uint8))
    return np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR))
