"""Small trees of images and masks in the layouts of the datasets."""

import numpy as np
import pytest
from PIL import Image

from m2snet_jax.config import load_config
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.errors import InputError


def config_of(name, root=None, **keys):
    return load_config('default', **{'data.name': name, 'data.root': root and str(root), **keys})


def image_of(number, height=20, width=30):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(number, height=20, width=30):
    mask = np.zeros((height, width), np.uint8)
    mask[2 + number % 5 : 12, 5:25] = 255
    return mask


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_pairs(images, masks, names, ending='.png', mask_ending='.png'):
    for number, name in enumerate(names):
        write(images / f'{name}{ending}', image_of(number))
        write(masks / f'{name}{mask_ending}', mask_of(number))


def make_folder(root, count=10, **endings):
    names = [f'case{number}' for number in range(count)]
    make_pairs(root / 'images', root / 'masks', names, **endings)
    return names


def names_of(examples):
    return [examples[index]['name'] for index in range(len(examples))]


def assert_refused(config, prepared, *words):
    with pytest.raises(InputError) as caught:
        open_dataset(config)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert not list(prepared.glob('*/*/1.0.0'))
    return message
