import itertools

import numpy as np
import pytest
from PIL import Image

from m2snet_jax.data import duplicates
from m2snet_jax.data.duplicates import near_duplicates, thumbnail

RANDOM = np.random.default_rng(0)


def smooth(seed, height=128, width=192):
    """A grey picture of a few soft blobs, uint8 [H, W, 3]."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 5), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(grid).resize((width, height), Image.BICUBIC))
    return np.repeat(grey[:, :, None], 3, axis=2)


def grey_averages(image):
    """Averages of blocks, [64, 64], of a grey picture whose sides are multiples of 64."""
    height, width = image.shape[0] // 64, image.shape[1] // 64
    return image[:, :, 0].astype(float).reshape(64, height, 64, width).mean((1, 3))


def test_correlation_is_pearsons_of_averages():
    images = [smooth(seed) for seed in range(6)]
    images += [np.clip(smooth(0) * 0.5 + 90 + RANDOM.normal(0, noise, (128, 192, 1)), 0, 255).astype(np.uint8)
               for noise in (1, 20, 90)]  # fmt: skip
    products = np.stack([thumbnail(image) for image in images])
    products = products @ products.T
    expected = np.corrcoef([grey_averages(image).ravel() for image in images])
    np.testing.assert_allclose(products, expected, rtol=0, atol=1e-5)
    pairs = [(i, j) for i, j in itertools.combinations(range(len(images)), 2) if expected[i, j] >= 0.98]
    assert sorted(pair[:2] for pair in near_duplicates(np.stack([thumbnail(image) for image in images]))) == pairs
    assert (0, 6) in pairs
    assert (0, 8) not in pairs


def test_size_brightness_and_contrast_do_not_matter():
    small = np.asarray(Image.fromarray(smooth(3)).resize((97, 70), Image.BOX))
    pairs = near_duplicates(np.stack([thumbnail(image) for image in (smooth(3), small // 2 + 40, 255 - smooth(3))]))
    assert [pair[:2] for pair in pairs] == [(0, 1)]


def test_colours_are_compared_by_luma():
    red, green = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0], green[:, :, 1] = smooth(1, 64, 64)[:, :, 0], smooth(2, 64, 64)[:, :, 0]
    grey = np.asarray(Image.fromarray(red + green).convert('L'), float).ravel()
    expected = np.corrcoef(grey, np.asarray(Image.fromarray(red).convert('L'), float).ravel())[0, 1]
    assert thumbnail(red + green) @ thumbnail(red) == pytest.approx(expected, abs=1e-5)


def test_uniform_images_are_near_nothing():
    uniform = np.full((70, 80, 3), 9, np.uint8)
    assert near_duplicates(np.stack([thumbnail(image) for image in (uniform, uniform, smooth(0))])) == []


def test_more_images_than_are_compared_at_once(monkeypatch):
    thumbnails = np.stack([thumbnail(smooth(seed % 7, 64, 64)) for seed in range(20)])
    expected = near_duplicates(thumbnails)
    monkeypatch.setattr(duplicates, '_ROWS', 3)
    assert near_duplicates(thumbnails) == expected
    assert {pair[:2] for pair in expected} == {
        (i, j) for i, j in itertools.combinations(range(20), 2) if (j - i) % 7 == 0
    }


def test_groups_are_connected_components():
    groups = duplicates.groups(8, [(0, 3, 0.99), (3, 5, 0.98), (1, 7, 1.0)])
    components = {frozenset(np.flatnonzero(groups == group).tolist()) for group in groups}
    assert components == {frozenset(members) for members in ((0, 3, 5), (1, 7), (2,), (4,), (6,))}


def test_a_file_that_cannot_be_read_is_alone(tmp_path):
    for name in 'ab':
        Image.fromarray(smooth(0)).save(tmp_path / f'{name}.png')
    (tmp_path / 'c.png').write_text('no image')
    groups = duplicates.groups_of_files([tmp_path / f'{name}.png' for name in 'acb'])
    assert groups[0] == groups[2] != groups[1]
