"""From an image to a map: the prediction step, and the released way of writing what it gives."""

import jax
import numpy as np
from flax import nnx
from PIL import Image


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
