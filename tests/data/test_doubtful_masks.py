"""What is said of masks that may be wrong: EXIF data, inversion; and what a set's reading leaves beside the records."""

import json

import numpy as np
import pytest
from data_trees import config_of, image_of, make_folder, mask_of, write
from PIL import Image

from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.inspection import inspect
from m2snet_jax.images.reading import from_json


def turn(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)


def test_an_image_that_exif_turns_beside_a_mask_that_it_does_not(tmp_path, caplog):
    root = tmp_path / 'data'
    make_folder(root, 6)
    turn(root / 'images/case1.png', 3)
    turn(root / 'images/case2.png', 3)
    turn(root / 'masks/case2.png', 3)
    report = inspect(config_of('folder', root))
    assert report['problems'] == []
    (line,) = [line for line in report['warnings'] if 'EXIF' in line]
    assert line.startswith('1 images or their masks are turned by EXIF data')
    assert line.endswith(': case1')
    open_dataset(config_of('folder', root))
    assert caplog.text.count('turned by EXIF data') == 2  # once for each opening
    turn(root / 'images/case3.png', 6)
    (problem,) = inspect(config_of('folder', root))['problems']
    assert 'masks/case3.png: 30x20 pixels, but its image' in problem
    assert problem.endswith('EXIF data turn one of them alone: store both upright')


@pytest.mark.parametrize('inverted', [2, 5])
def test_masks_that_look_inverted(tmp_path, inverted):
    root = tmp_path / 'data'
    make_folder(root, 6)
    for number in range(inverted):
        write(root / f'masks/case{number}.png', 255 - mask_of(number))
    lines = [line for line in inspect(config_of('folder', root))['warnings'] if 'inverted' in line]
    expected = '5 of 6 masks are lesion along the border and look inverted'
    assert [line[: len(expected)] for line in lines] == ([expected] if inverted == 5 else [])


def test_the_reading_of_a_set_lies_beside_its_records(tmp_path, prepared, caplog):
    root = tmp_path / 'data'
    make_folder(root, 6)
    for number in range(6):
        deep = np.round(image_of(number)[:, :, 0] / 255 * 4095).astype(np.uint16)
        deep[0, 0] = 4095
        write(root / f'images/case{number}.png', deep)
        write(root / f'masks/case{number}.png', mask_of(number) // 255 * np.uint8(128))
    report = inspect(config_of('folder', root))
    assert report['notes'] == [
        '6 images of more than 8 bits (integers) hold nothing above 4095, 12 bits: 4095 is white',
        'masks hold 0 and 128: read as 0 and 255',
    ]
    assert all(set(summary['masks']) == {'0/128'} for summary in report['splits'].values())
    dataset = open_dataset(config_of('folder', root))
    (path,) = prepared.glob('folder/*/1.0.0/reading.json')
    assert from_json(json.loads(path.read_text())) == dataset.reading
    assert (dataset.reading.integers, dataset.reading.level) == (4095, 128)
    assert dataset.train[0]['mask'].max() == 255
    number = int(dataset.train[1]['name'][4:])
    shown = dataset.train[1]['image'][1:, 1:]
    np.testing.assert_array_equal(shown, np.repeat(image_of(number)[1:, 1:, :1], 3, axis=2))
    windowed = open_dataset(config_of('folder', root, **{'data.window': '1000,2000'}))
    assert windowed.reading.integers is None
    assert not np.array_equal(windowed.train[1]['image'], dataset.train[1]['image'])
