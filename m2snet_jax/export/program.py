"""The program that is exported: all that `predict` does between reading an image and writing its map."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from m2snet_jax.data import augment
from m2snet_jax.model.folding import fold
from m2snet_jax.model.pixels import resize_floats, resize_levels

OUTPUTS = ('probability', 'levels')


def make_program(predictor):
    """Returns a function of images uint8 `[B, H, W, 3]`, RGB, of any size, with the model's weights in it.

    It gives `probability`, float32 `[B, H, W, C]` in [0, 1], resized in float, and `levels`, uint8 `[B, H, W, C]`, the
    map that `predict` writes: ⌊255·p⌋, then resized.
    """
    network, size = fold(predictor.model), predictor.size

    def program(images):
        height, width = images.shape[1:3]
        examples = (resize_levels(images, size, size) / 255 - augment.TEST_MEAN) / augment.TEST_STD
        probability = jax.nn.sigmoid(network(examples))
        levels = resize_levels(jnp.floor(probability * 255), height, width).astype(jnp.uint8)
        return resize_floats(probability, height, width), levels

    return program


def any_images():
    """Returns the shape of a batch of images whose number and size are open."""
    return jax.ShapeDtypeStruct((*export.symbolic_shape('B, H, W'), 3), np.uint8)
