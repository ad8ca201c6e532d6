import cv2
import numpy as np
import pytest
from PIL import Image

from m2snet_jax.data import augment

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (67, 90, 3), dtype=np.uint8)
MASK = RANDOM.integers(0, 256, (67, 90), dtype=np.uint8)


def released_train_example(image, mask, size, flipped, angle):
    """The released recipe, word for word: normalise, resize, flip, rotate; the image in float64."""
    image = (image - np.array([[[124.55, 118.90, 102.94]]])) / np.array([[[56.77, 55.97, 57.50]]])
    mask = mask.astype(np.float32) / 255
    assert image.dtype == np.float64
    image = cv2.resize(image, dsize=(size, size), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, dsize=(size, size), interpolation=cv2.INTER_LINEAR)
    if flipped:
        image, mask = np.ascontiguousarray(image[:, ::-1, :]), np.ascontiguousarray(mask[:, ::-1])
    matrix = cv2.getRotationMatrix2D((size // 2, size // 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, (size, size)).astype(np.float32), cv2.warpAffine(mask, matrix, (size, size))


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('size', [352, 96, 45])
def test_train_example_is_the_released_recipe(seed, size):
    image, mask = augment.train_example(IMAGE, MASK, size, 1, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    flipped, angle = rng.random() < 0.5, rng.uniform(-10, 10)
    expected_image, expected_mask = released_train_example(IMAGE, MASK, size, flipped, angle)
    assert image.dtype == mask.dtype == np.float32
    np.testing.assert_array_equal(image, expected_image)
    np.testing.assert_array_equal(mask, expected_mask[:, :, None])


def test_flips_and_angles_are_drawn_as_published():
    column = np.zeros((101, 101), np.uint8)
    column[:, :50] = 255
    line = np.zeros((101, 101), np.uint8)
    line[50] = 255
    flips, angles = 0, []
    for seed in range(400):
        _, mask = augment.train_example(np.dstack([line] * 3), column, 101, 1, np.random.default_rng(seed))
        flips += mask[50, 75, 0] > 0.5
        image, _ = augment.train_example(np.dstack([line] * 3), column, 101, 1, np.random.default_rng(seed))
        rise = image[:, 90, 0].argmax() - image[:, 10, 0].argmax()
        angles.append(np.degrees(np.arctan2(rise, 80)))
    assert 160 < flips < 240  # 200 ± 4 standard deviations
    assert -10.5 < min(angles) < -9
    assert 9 < max(angles) < 10.5
    assert abs(np.mean(angles)) < 1.2


def test_image_and_mask_stay_aligned():
    across, down = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = np.dstack([across, down, across])
    for seed in range(8):
        normalised, x = augment.train_example(image, across, 128, 1, np.random.default_rng(seed))
        _, y = augment.train_example(image, down, 128, 1, np.random.default_rng(seed))
        _, inside = augment.train_example(image, np.full_like(across, 255), 128, 1, np.random.default_rng(seed))
        inside = inside[:, :, 0] == 1
        assert inside.mean() > 0.8
        levels = normalised * augment.TRAIN_STD + augment.TRAIN_MEAN
        # Two levels are one pixel here; OpenCV rounds coordinates to 1/32 pixel in one of the two depths.
        assert np.abs(levels[:, :, 0] - 255 * x[:, :, 0])[inside].max() < 0.15
        assert np.abs(levels[:, :, 1] - 255 * y[:, :, 0])[inside].max() < 0.15


def test_each_class_is_augmented_as_a_binary_mask():
    indices = MASK % 4
    image, masks = augment.train_example(IMAGE, indices, 64, 3, np.random.default_rng(5))
    assert masks.shape == (64, 64, 3)
    for index in (1, 2, 3):
        binary = np.where(indices == index, 255, 0).astype(np.uint8)
        expected_image, expected = augment.train_example(IMAGE, binary, 64, 1, np.random.default_rng(5))
        np.testing.assert_array_equal(masks[:, :, index - 1], expected[:, :, 0])
        np.testing.assert_array_equal(image, expected_image)


def test_outside_is_the_mean_colour_and_no_lesion():
    white = np.full((50, 50, 3), 255, np.uint8)
    seed = next(seed for seed in range(99) if _angle(seed) > 8)
    image, mask = augment.train_example(white, white[:, :, 0], 50, 1, np.random.default_rng(seed))
    assert (image[0, 0] == 0).all()
    assert mask[0, 0, 0] == 0


def _angle(seed):
    rng = np.random.default_rng(seed)
    rng.random()
    return rng.uniform(-10, 10)


@pytest.mark.parametrize('size', [352, 33])
def test_test_example_is_pillow_in_uint8(size):
    pixels = np.asarray(Image.fromarray(IMAGE).resize((size, size), Image.BILINEAR))
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    image = augment.test_example(IMAGE, size)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=0, atol=5e-7)


def test_imagenet_normalisation_makes_training_as_testing_and_draws_the_same():
    flat = np.full((80, 80, 3), (12, 140, 251), np.uint8)
    for normalisation, same in (('imagenet', True), ('released', False)):
        image, _ = augment.train_example(flat, flat[:, :, 0], 64, 1, np.random.default_rng(3), normalisation)
        assert np.allclose(image[20:44, 20:44], augment.test_example(flat, 64)[20:44, 20:44], atol=1e-6) == same
    # The same geometry: only the values differ, by one affine map for each channel.
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # ImageNet's × 255
    released, mask = augment.train_example(IMAGE, MASK, 64, 1, np.random.default_rng(4))
    imagenet, same_mask = augment.train_example(IMAGE, MASK, 64, 1, np.random.default_rng(4), 'imagenet')
    np.testing.assert_array_equal(mask, same_mask)
    inside = np.s_[20:44, 20:44]
    levels = released[inside] * augment.TRAIN_STD + augment.TRAIN_MEAN
    np.testing.assert_allclose(imagenet[inside], (levels - mean) / std, rtol=0, atol=1e-4)
