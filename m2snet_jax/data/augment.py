"""One example in, one example out: the released recipes for training and for testing.

Source: the released program's data loading. Training and testing normalise differently there, and here unless
`data.normalisation` is 'imagenet'.
"""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

# Training: per channel, in units of grey levels (released program).
TRAIN_MEAN = np.array([124.55, 118.90, 102.94])
TRAIN_STD = np.array([56.77, 55.97, 57.50])
# Testing: ImageNet's, per channel, in units of the full range (released program).
TEST_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
TEST_STD = np.array([0.229, 0.224, 0.225], np.float32)
FLIP_PROBABILITY = 0.5
LARGEST_ANGLE = 10.0  # degrees, either way

# By `data.normalisation`, the normalised value of each of the 256 levels of each channel in training, float64
# [1, 256, 3]: the same numbers as normalising every pixel, and several times faster to look up than to compute.
_LEVELS = np.arange(256)[:, None]
_NORMALISED_LEVELS = {
    'released': ((_LEVELS - TRAIN_MEAN) / TRAIN_STD)[None],
    'imagenet': ((_LEVELS / 255 - TEST_MEAN) / TEST_STD)[None],
}


def train_example(
    image: UInt8[np.ndarray, 'height width 3'],
    mask: UInt8[np.ndarray, 'height width'],
    size: int,
    classes: int,
    rng: np.random.Generator,
    normalisation: str = 'released',
) -> tuple[Float32[np.ndarray, 'size size 3'], Float32[np.ndarray, 'size size classes']]:
    """Normalises, resizes, flips and rotates one training example, in the released order.

    The image is float64 until the end because it is normalised before the resize; masks stay soft. Rotation is
    about the pixel index (size // 2, size // 2) and fills with zero, the mean colour.

    Args:
        image: RGB.
        mask: levels 0…255 when `classes` is 1, else class indices with 0 for background.
        size: side of the result.
        classes: foreground classes.
        rng: gives two numbers: whether to flip, and the angle.
        normalisation: 'released', or 'imagenet' for ImageNet's mean and deviation, as `test_example` has them.

    Returns:
        The normalised image, and the mask in [0, 1], one channel a foreground class.
    """
    flipped = rng.random() < FLIP_PROBABILITY
    angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    rotation = cv2.getRotationMatrix2D((size // 2, size // 2), angle, 1)

    def warp(pixels):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
        if flipped:
            pixels = cv2.flip(pixels, 1)
        return cv2.warpAffine(pixels, rotation, (size, size), flags=cv2.INTER_LINEAR).astype(np.float32)

    binary_masks = [mask] if classes == 1 else [np.uint8(255) * (mask == index) for index in range(1, classes + 1)]
    channels = [warp(binary.astype(np.float32) / np.float32(255)) for binary in binary_masks]
    return warp(cv2.LUT(image, _NORMALISED_LEVELS[normalisation])), np.stack(channels, axis=-1)


def test_example(image: UInt8[np.ndarray, 'height width 3'], size: int) -> Float32[np.ndarray, 'size size 3']:
    """Resizes and normalises one image for the network in evaluation mode.

    Args:
        image: RGB.
        size: side of the result.

    Returns:
        The normalised image: Pillow's antialiased bilinear resize in uint8, ÷255, ImageNet mean and deviation.
    """
    resized = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    return (resized.astype(np.float32) / np.float32(255) - TEST_MEAN) / TEST_STD
