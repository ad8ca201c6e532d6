"""The maps of the subtraction pyramid for one image: as arrays, and as a triangle of small pictures."""

import functools
from pathlib import Path

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from m2snet_jax.data import augment
from m2snet_jax.images.formats import read_image
from m2snet_jax.models.model_weights import merge_model, split_model
from m2snet_jax.prediction.predictor import Predictor, released_map

Pixels = UInt8[np.ndarray, 'height width 3'] | UInt8[np.ndarray, 'height width']
GAP, LABEL = 12, 20  # pixels between two pictures, and for the name above each
BACKGROUND, TEXT = (255, 255, 255), (40, 40, 40)


def pyramid_maps(predictor: Predictor, image: Pixels | str | Path) -> dict[str, Float[np.ndarray, 'height width 64']]:
    """Returns the output of every unit of the subtraction pyramid for one image.

    Args:
        predictor: a Predictor, as `load_model` returns it.
        image: an RGB or grey image, or the path of an image file.

    Returns:
        {name: map} at the scale of the network: the levels `x1` (fine) … `x5` (coarse), the
        outputs of the units, as `x5_x4`, and `x5_dem_4`, which the last unit takes in place of `x5_x4_x3_x2`. A
        network of fewer columns has fewer units, and of one column no `x5`. All values are at least 0.
    """
    graph, weights = split_model(predictor.model)
    example = augment.test_example(_pixels(image), predictor.size)
    return {name: np.asarray(one[0], np.float32) for name, one in _maps(graph, weights, example[None]).items()}


@functools.partial(jax.jit, static_argnums=0)
def _maps(graph, weights, images):
    """Returns all maps of the pyramid, as the model computes them before the decoder."""
    model = merge_model(graph, weights)
    return model.pyramid(model.levels(model.encoder(images)))


def pyramid(predictor: Predictor, image: Pixels | str | Path, side: int = 150) -> UInt8[np.ndarray, 'height width 3']:
    """Draws the output of every subtraction unit for one image, as the triangle that the units form.

    The first row shows the levels, fine to coarse; below, each unit is under the two maps that it combines. A
    picture is the mean of the 64 channels, from dark blue (0) to yellow (the largest value of this picture: brightness
    cannot be compared between pictures). The lower corners show the image and the predicted map, resized to the square
    input of the network; of several classes the largest probability.

    Args:
        predictor, image: as in `pyramid_maps`.
        side: of one picture, in pixels.
    """
    pixels = _pixels(image)
    levels = released_map(predictor.probabilities([pixels])[0], predictor.size, predictor.size)
    pictures = {
        name: (*_position(name), _heat_map(one.mean(-1)))
        for name, one in pyramid_maps(predictor, pixels).items()
        if name != 'x5_dem_4'
    }
    pictures['image'] = 4, 0, pixels
    pictures['map'] = 4, 4, levels.max(-1)
    step = side + GAP
    drawing = Image.new('RGB', (5 * step + GAP, 5 * (step + LABEL) + GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(drawing), ImageFont.load_default(14)
    for name, (row, column, picture) in pictures.items():
        left, top = GAP + round(column * step), GAP + row * (step + LABEL)
        pen.text((left + side // 2, top), name, TEXT, font, anchor='mt')
        resized = Image.fromarray(picture).convert('RGB').resize((side, side), Image.Resampling.BILINEAR)
        drawing.paste(resized, (left, top + LABEL))
    return np.asarray(drawing)


def _position(name):
    """Returns row and column of a map: `x4_x3` is in row 1, between the columns of x3 and x4."""
    levels = [int(level[1:]) for level in name.split('_')]
    return len(levels) - 1, sum(levels) / len(levels) - 1


def _heat_map(values):
    """Returns non-negative values [h, w] as colours, from 0 to the largest."""
    shares = values / max(values.max(), np.finfo(np.float32).tiny)
    return cv2.applyColorMap((255 * shares).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def _pixels(image):
    """Returns the image, uint8 [H, W, 3], of an array or a file."""
    pixels = image if isinstance(image, np.ndarray) else read_image(image)
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
