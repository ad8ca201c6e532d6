"""Masks in colours: `data.colors`, and what is said without it."""

import numpy as np
import pytest
from data_trees import config_of, image_of, names_of, write
from PIL import Image

from m2snet_jax.commands.validate import main
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.inspection import inspect
from m2snet_jax.errors import InputError
from m2snet_jax.images.colors import parse_colors

COLORS = ('000000', 'ff0000', '0080ff')
RGB = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))


def indices_of(number):
    indices = np.zeros((20, 30), np.uint8)
    indices[2 + number : 8], indices[8:12, 5:25] = 1, 2
    return indices


@pytest.fixture
def root(tmp_path):
    """Masks in a colour a class, as RGB, RGBA with a transparent background, palettes and TIFF."""
    for number in range(6):
        write(tmp_path / f'data/images/{number}.png', image_of(number))
        colour = RGB[indices_of(number)]
        if number % 3 == 0:
            write(tmp_path / f'data/masks/{number}.png', colour)
        elif number % 3 == 1:
            transparent = np.dstack([colour, np.uint8(255) * (indices_of(number) > 0)])
            transparent[..., :3][indices_of(number) == 0] = 77
            write(tmp_path / f'data/masks/{number}.png', transparent)
        else:
            image = Image.fromarray(2 - indices_of(number), 'P')  # of the palette, not the class
            image.putpalette(RGB[::-1].tobytes())
            image.save(tmp_path / f'data/masks/{number}.png')
    return tmp_path / 'data'


def test_colours_are_class_indices(root):
    dataset = open_dataset(config_of('folder', root, **{'data.colors': COLORS, 'data.classes': 2}))
    for examples in (dataset.train, dataset.tests['test']):
        for index, name in enumerate(names_of(examples)):
            np.testing.assert_array_equal(examples[index]['mask'], indices_of(int(name)))
    assert dataset.reading.colors == COLORS


def test_a_colour_of_one_class(root):
    for path in (root / 'masks').iterdir():
        write(path, RGB[np.minimum(indices_of(int(path.stem)), 1)] ^ np.uint8(255))  # white and cyan
    dataset = open_dataset(config_of('folder', root, **{'data.colors': ('#FFFFFF', '00ffff')}))
    index = names_of(dataset.train).index('0') if '0' in names_of(dataset.train) else 0
    number = int(names_of(dataset.train)[index])
    np.testing.assert_array_equal(dataset.train[index]['mask'], np.uint8(255) * (indices_of(number) > 0))


def test_without_the_key_the_colours_are_listed_once_ready_to_paste(root, capsys):
    for number in (1, 4):
        write(root / f'masks/{number}.png', RGB[indices_of(number)])
    config = config_of('folder', root)
    (problem,) = inspect(config)['problems']
    assert '000000 (' in problem
    (given,) = [word for word in problem.split() if word.startswith('--config.data.colors=')]
    assert given == """--config.data.colors="('000000','ff0000','0080ff')\""""
    assert problem.endswith('--config.data.classes=2')
    with pytest.raises(InputError, match='name background and classes'):
        open_dataset(config)
    flags = [given.replace('"', ''), problem.split()[-1]]
    assert main(['validate', f'--root={root}', *flags]) == 0
    assert 'manifest' in capsys.readouterr().out


def test_a_colour_that_is_not_named_is_refused_with_its_pixels(root):
    keys = {'data.colors': ('000000', 'ff0000', '00ff00'), 'data.classes': 2}
    problems = inspect(config_of('folder', root, **keys))['problems']
    assert len(problems) == 6
    assert 'masks/0.png: colour 0080ff in 80 pixels found, none of data.colors (000000, ff0000, 00ff00)' in problems[0]


def test_smooth_edges_are_no_colours(root):
    for path in (root / 'masks').iterdir():
        image = Image.fromarray(RGB[indices_of(0)]).resize((90, 60), Image.Resampling.BICUBIC)
        image.resize((30, 20), Image.Resampling.BICUBIC).save(path)
    (problem,) = inspect(config_of('folder', root))['problems']
    assert 'more than 16 colours found' in problem


def test_grey_levels_of_classes_are_proposed_as_colours(root):
    for path in (root / 'masks').iterdir():
        write(path, np.array([0, 100, 200], np.uint8)[indices_of(int(path.stem))])
    problems = inspect(config_of('folder', root, **{'data.classes': 2}))['problems']
    assert all(
        "--config.data.colors=\"('000000','646464','c8c8c8')\" --config.data.classes=2" in one for one in problems
    )


@pytest.mark.parametrize(
    ('colors', 'classes', 'words'),
    [
        (('red', '000000'), 1, "'red' is no colour"),
        (('000000', 'ff00'), 1, "'ff00' is no colour"),
        (('000000', '000000'), 1, 'names a colour twice'),
        (('000000', 'ff0000', '00ff00'), 1, r'--config\.data\.classes=2'),
        (('ff0000',), 1, '1 colours for data.classes=1'),
    ],
)
def test_colors_that_cannot_be_used(colors, classes, words):
    with pytest.raises(InputError, match=words):
        parse_colors(colors, classes)


def test_colors_of_masks_whose_levels_are_known(tmp_path):
    with pytest.raises(InputError, match=r'data\.name=phantoms has levels of its own'):
        open_dataset(config_of('phantoms', **{'data.colors': ('000000', 'ff0000')}))
