"""Resizes inside a program against Pillow itself."""

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

from m2snet_jax.export.pillow_resize import resize_floats, resize_levels

# (height, width) → (height, width): smaller, larger, both, equal, odd, a single row, many-fold
SIZES = [
    ((57, 91), (48, 48)),
    ((300, 411), (64, 64)),
    ((31, 47), (96, 65)),
    ((20, 400), (64, 64)),
    ((48, 48), (48, 48)),
    ((48, 7), (48, 48)),
    ((1, 9), (5, 1)),
    ((640, 33), (40, 40)),
    ((352, 352), (511, 620)),
]


def pillow(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(('source', 'target'), SIZES)
def test_levels_are_pillows_bit_for_bit(source, target):
    images = np.random.default_rng(0).integers(0, 256, (2, *source, 3), np.uint8)
    images[1] = 255 * (images[1] > 127)  # the largest steps, and the largest sums
    resized = np.asarray(jax.jit(resize_levels, static_argnums=(1, 2))(images, *target))
    np.testing.assert_array_equal(resized, np.stack([pillow(image, *target) for image in images]))


@pytest.mark.parametrize(('source', 'target'), SIZES)
def test_floats_are_pillows_to_rounding(source, target):
    image = np.random.default_rng(0).random(source, np.float32)
    resized = np.asarray(resize_floats(image[None, :, :, None], *target))[0, :, :, 0]
    np.testing.assert_allclose(resized, pillow(image, *target), rtol=0, atol=5e-7)


def test_one_exported_program_takes_any_size():
    images = jax.ShapeDtypeStruct((*export.symbolic_shape('B, H, W'), 3), np.uint8)
    exported = export.export(jax.jit(lambda images: resize_levels(images, 40, 56)))(images)
    for shape in ((1, 33, 90, 3), (5, 171, 20, 3)):
        batch = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(exported.call(batch), np.stack([pillow(image, 40, 56) for image in batch]))


def test_a_side_of_many_thousand_pixels_does_not_overflow():
    row = np.random.default_rng(2).integers(0, 256, (1, 1, 70_000, 1), np.uint8)
    resized = np.asarray(resize_levels(row, 1, 352))[0, :, :, 0].astype(int)
    assert np.abs(resized - pillow(row[0, :, :, 0], 1, 352)).max() <= 1
