"""What the subtraction pyramid makes of one image: its maps as arrays, and as a triangle of small pictures."""

import functools

import cv2
import jax
import numpy as np
from flax import nnx
from PIL import Image, ImageDraw, ImageFont

from m2snet_jax.data import augment
from m2snet_jax.images import read_image

GAP, LABEL = 12, 20  # pixels between two pictures, and for the name above each
PAPER, INK = (255, 255, 255), (40, 40, 40)


def pyramid_maps(predictor, image):
    """Returns what every unit of the subtraction pyramid puts out for one image.

    Args:
        predictor: a Predictor, as `load_model` returns it.
        image: uint8 [H, W, 3] or [H, W], or the path of an image file.

    Returns:
        {name: float32 [h, w, 64]} at the network's own scale: the five levels `x1` (fine) … `x5` (coarse), the ten
        units' outputs, as `x5_x4`, and `x5_dem_4`, which the last unit takes in place of `x5_x4_x3_x2`. None is
        negative.
    """
    graph, state = nnx.split(predictor.model)
    example = augment.test_example(_pixels(image), predictor.size)
    return {name: np.asarray(one[0], np.float32) for name, one in _maps(graph, state, example[None]).items()}


@functools.partial(jax.jit, static_argnums=0)
def _maps(graph, state, images):
    """All maps of the pyramid, as the model itself makes them on its way to the decoder."""
    model = nnx.merge(graph, state)
    x1, *deeper = model.encoder(images)
    return model.pyramid([x1, *(reduce(x) for reduce, x in zip(model.reduction, deeper, strict=True))])


def pyramid(predictor, image, side=150):
    """Draws what every subtraction unit sees in one image, as the triangle that the units form.

    The first row shows the five levels, fine to coarse; below, each unit stands under the two maps that it subtracts.
    A picture is the mean of the 64 channels, from dark blue (0) to yellow (the largest value of this picture: pictures
    cannot be compared in brightness). In the lower corners stand the image and the map that the model predicts,
    squeezed to the square in which the network sees them; of several classes the largest probability.

    Args:
        predictor, image: as in `pyramid_maps`.
        side: of one picture, in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    pixels = _pixels(image)
    probability = predictor.probabilities([pixels])[0].max(-1)
    pictures = {
        name: (*_place(name), _heat(one.mean(-1)))
        for name, one in pyramid_maps(predictor, pixels).items()
        if name != 'x5_dem_4'
    }
    pictures['image'] = 4, 0, pixels
    pictures['map'] = 4, 4, (255 * probability).astype(np.uint8)
    step = side + GAP
    sheet = Image.new('RGB', (5 * step + GAP, 5 * (step + LABEL) + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for name, (row, column, picture) in pictures.items():
        left, top = GAP + round(column * step), GAP + row * (step + LABEL)
        pen.text((left + side // 2, top), name, INK, font, anchor='mt')
        resized = Image.fromarray(picture).convert('RGB').resize((side, side), Image.Resampling.BILINEAR)
        sheet.paste(resized, (left, top + LABEL))
    return np.asarray(sheet)


def _place(name):
    """Row and column of a map: `x4_x3` stands in row 1, between the columns of x3 and x4."""
    levels = [int(level[1:]) for level in name.split('_')]
    return len(levels) - 1, sum(levels) / len(levels) - 1


def _heat(values):
    """Non-negative values [h, w] as colours, 0 to their largest."""
    shares = values / max(values.max(), np.finfo(np.float32).tiny)
    return cv2.applyColorMap((255 * shares).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def _pixels(image):
    """uint8 [H, W, 3] of an array or a file."""
    pixels = image if isinstance(image, np.ndarray) else read_image(image)
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
