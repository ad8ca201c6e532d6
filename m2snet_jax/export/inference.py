"""The program that is exported: everything that `predict` does between reading an image and writing its map."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, UInt8

from m2snet_jax.data import augment
from m2snet_jax.export.pillow_resize import resize_floats, resize_levels
from m2snet_jax.prediction.predictor import Predictor

OUTPUTS = ('probability', 'levels')


def make_program(predictor: Predictor) -> Callable[[Any], tuple[Any, Any]]:
    """Returns a function of RGB images of any size that holds the model's weights.

    It returns `probability`, in [0, 1], resized in float, and `levels`, the map that `predict` writes: ⌊255·p⌋, then
    resized. Of several models of one size it computes the mean, in float32.
    """
    networks, size = [member.folded() for member in predictor.members], predictor.size

    def program(
        images: UInt8[Array, 'batch height width 3'],
    ) -> tuple[Float[Array, 'batch height width classes'], UInt8[Array, 'batch height width classes']]:
        height, width = images.shape[1:3]
        examples = (resize_levels(images, size, size) / 255 - augment.TEST_MEAN) / augment.TEST_STD
        probabilities = [jax.nn.sigmoid(network(examples)) for network in networks]
        probability = probabilities[0]
        if len(networks) > 1:
            probability = sum(probabilities[1:], start=probability) / len(networks)
        levels = resize_levels(jnp.floor(probability * 255), height, width).astype(jnp.uint8)
        return resize_floats(probability, height, width), levels

    return program


def any_images() -> jax.ShapeDtypeStruct:
    """Returns the shape of a batch of images with a symbolic number and size."""
    return jax.ShapeDtypeStruct((*export.symbolic_shape('B, H, W'), 3), np.uint8)
