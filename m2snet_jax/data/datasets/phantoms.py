"""Phantoms: generated pictures of a smooth organ's inside with lesions, to try everything without any download.

Textured folds of tissue, thin vessels, specular highlights, and one to three soft-edged lesions of varied size and
tint; about one image in eight has none. Sides vary from 112 to 176 pixels. They contain no real
picture and show no organ; scores on them say that the program works, nothing about medicine.

Counts: `data.count` for training and `data.test_count` for the test, drawn from `data.seed` alone.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from m2snet_jax.data.source import Source
from m2snet_jax.errors import InputError

LESION_COUNTS = (0, 1, 2, 3)
LESION_COUNT_PROBABILITIES = (0.12, 0.5, 0.25, 0.13)


class Phantom(NamedTuple):
    """A phantom that is not drawn yet."""

    name: str
    seed: tuple[int, ...]

    def generate(self) -> tuple[UInt8[np.ndarray, 'height width 3'], UInt8[np.ndarray, 'height width']]:
        """Returns its image and its mask of 0 and 255."""
        return phantom(np.random.default_rng(self.seed))


def find(config: Any) -> Source:
    """Returns the source of a config's phantoms.

    Raises:
        InputError: naming the key that cannot be used.
    """
    data = config.data
    if data.classes != 1:
        raise InputError(f'--config.data.classes={data.classes}: phantoms have one class')
    for key, count in (('count', data.count), ('test_count', data.test_count)):
        if count < 1:
            raise InputError(f'--config.data.{key}={count}: must be at least 1')
    # Training and test images come from two series of seeds, so neither changes with the other's length.
    splits = {
        split: [Phantom(f'{split}_{index:04d}', (data.seed, series, index)) for index in range(count)]
        for series, (split, count) in enumerate((('train', data.count), ('test', data.test_count)))
    }
    key = f'seed{data.seed}_{data.count}_{data.test_count}'
    return Source(key, 'generated', splits)


def phantom(rng: np.random.Generator) -> tuple[UInt8[np.ndarray, 'height width 3'], UInt8[np.ndarray, 'height width']]:
    """Returns one picture and its mask of 0 and 255."""
    height, width = int(rng.integers(112, 145)), int(rng.integers(128, 177))
    shape = (height, width)
    image, relief, grain = _tissue(shape, rng)
    mask = np.zeros(shape, bool)
    for _ in range(rng.choice(LESION_COUNTS, p=LESION_COUNT_PROBABILITIES)):
        image, relief = _with_lesion(image, relief, grain, mask, rng)
    image = image * _shading(relief, rng)[:, :, None]
    image = _with_highlights(image, relief, rng)
    image = cv2.GaussianBlur(image, (0, 0), 0.6) + rng.normal(0, 0.012, image.shape)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8), np.uint8(255) * mask


def _tissue(shape, rng):
    """Returns colours [H, W, 3], relief [H, W] and grain [H, W] of healthy folded tissue."""
    height, width = shape
    y, x = np.mgrid[:height, :width] / min(shape)
    direction, folds = rng.uniform(0, np.pi), rng.uniform(1.2, 2.8)
    phase = 2 * np.pi * folds * (x * np.cos(direction) + y * np.sin(direction)) + 2.2 * _noise(shape, 3, rng)
    relief = 0.05 * np.abs(np.sin(phase / 2)) ** 0.6 * (1 + 0.5 * _noise(shape, 4, rng)) + 0.03 * _noise(shape, 5, rng)
    grain = _noise(shape, 28, rng)
    colour = np.array([rng.uniform(0.66, 0.86), rng.uniform(0.38, 0.54), rng.uniform(0.30, 0.44)])
    vessels = np.exp(-((_noise(shape, 6, rng) / 0.06) ** 2)) * np.clip(_noise(shape, 4, rng), 0, 1)
    strength = 1 + 0.08 * _noise(shape, 7, rng) + 0.035 * grain - 0.25 * vessels
    blush = 1 + 0.08 * _noise(shape, 4, rng)
    return (
        np.stack([colour[0] * strength, colour[1] * strength * blush, colour[2] * strength * blush], -1),
        relief,
        grain,
    )


def _with_lesion(image, relief, grain, mask, rng):
    """Returns colours and relief with one lesion more, and marks it in `mask`."""
    shape = mask.shape
    side = min(shape)
    radius = side * rng.uniform(0.12, 0.28)
    centre = [rng.uniform(0.6 * radius, length - 0.6 * radius) for length in shape]
    y, x = np.mgrid[: shape[0], : shape[1]]
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.65, 1)
    along = (x - centre[1]) * np.cos(turn) + (y - centre[0]) * np.sin(turn)
    across = ((y - centre[0]) * np.cos(turn) - (x - centre[1]) * np.sin(turn)) / squeeze
    angle = np.arctan2(across, along)
    outline = 1 + sum(
        rng.uniform(0, 0.12 / order**0.5) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in (2, 3, 5)
    )
    distance = np.hypot(along, across) / (radius * outline)  # 1 on the outline
    inside = 1 / (1 + np.exp((distance - 1) * radius / rng.uniform(0.8, 2.0)))  # soft over one to a few pixels
    mask |= distance < 1

    pale = rng.random() < 0.3
    low, high = ((1.08, 1.35, 1.25), (1.25, 1.65, 1.6)) if pale else ((0.8, 0.4, 0.45), (1.05, 0.65, 0.72))
    tint = rng.uniform(low, high)
    bumps = _noise(shape, 16, rng)
    smooth = cv2.GaussianBlur(image, (0, 0), 3)  # folds and vessels do not run on through it
    lesion = smooth * tint * (1 + 0.10 * bumps + 0.03 * grain)[:, :, None]
    dome = rng.uniform(0.05, 0.22) * radius / side * np.sqrt(np.clip(1 - distance**2, 0, 1)) * 2 + 0.008 * bumps
    image = image * (1 - inside[:, :, None]) + lesion * inside[:, :, None]
    return image, relief * (1 - 0.7 * inside) + dome * inside


def _shading(relief, rng):
    """Returns the light [H, W] that falls on the relief from a lamp near the camera."""
    height, width = relief.shape
    side = min(relief.shape)
    dy, dx = np.gradient(cv2.GaussianBlur(relief, (0, 0), 1.2) * side)
    direction = rng.uniform(0, 2 * np.pi)
    gradient = dx * np.cos(direction) + dy * np.sin(direction)  # of the relief, towards the light
    y, x = np.mgrid[:height, :width] / side
    lamp_y, lamp_x = rng.uniform(0.3, 0.7) * height / side, rng.uniform(0.3, 0.7) * width / side
    falloff = 1.12 - rng.uniform(0.35, 0.75) * ((x - lamp_x) ** 2 + (y - lamp_y) ** 2)
    return np.clip(falloff, 0.3, None) * np.clip(1 + 0.45 * gradient, 0.45, 1.5)


def _with_highlights(image, relief, rng):
    """Returns the colours with a few small mirror-like reflections, mostly on raised places."""
    shape = relief.shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    raised = np.clip(relief - np.quantile(relief, 0.6), 1e-6, None).ravel()
    glare = np.zeros(shape)
    for index in rng.choice(raised.size, rng.integers(2, 9), p=raised / raised.sum()):
        row, column = divmod(index, shape[1])
        turn, long, short = rng.uniform(0, np.pi), rng.uniform(1.5, 5), rng.uniform(0.8, 1.8)
        along = (x - column) * np.cos(turn) + (y - row) * np.sin(turn)
        across = (y - row) * np.cos(turn) - (x - column) * np.sin(turn)
        glare = np.maximum(glare, np.exp(-((along / long) ** 2) - (across / short) ** 2))
    glare = (rng.uniform(0.7, 1) * glare)[:, :, None]
    return image * (1 - glare) + glare


def _noise(shape, cells, rng):
    """Returns smooth noise [H, W] of about unit deviation, with `cells` cells along the shorter side."""
    grid = [max(2, round(cells * length / min(shape))) for length in shape]
    return cv2.resize(rng.standard_normal(grid), shape[::-1], interpolation=cv2.INTER_CUBIC)
