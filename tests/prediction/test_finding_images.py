"""Which files `predict` takes, and the names of their maps."""

import os
import unicodedata

import pytest
from data_trees import image_of, write
from tiny_models import write_model

from m2snet_jax.__main__ import main
from m2snet_jax.errors import InputError
from m2snet_jax.prediction.folders import find_images

pytestmark = pytest.mark.usefixtures('compiled_quickly')

CONFIG = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48']


def names(tmp_path, *given):
    return [name for name, _ in find_images([tmp_path / one for one in given], tmp_path / 'output')]


def test_patterns_folders_and_files(tmp_path):
    for name in ('01_scan.tif', '02_scan.tif', '02_mask.gif', 'deep/03_scan.tif'):
        write(tmp_path / 'shots' / name, image_of(0)[:, :, 0])
    assert names(tmp_path, 'shots/*_scan.tif') == ['01', '02']
    assert names(tmp_path, 'shots/**/*_scan.tif') == ['01', '02', 'deep/03']
    assert names(tmp_path, 'shots') == ['01_scan', '02_mask', '02_scan', 'deep/03_scan']
    assert names(tmp_path, 'shots/01_scan.tif', 'shots/deep') == ['01_scan', '03_scan']


def test_hidden_files_and_the_output_are_left_out(tmp_path):
    top = tmp_path / '.cache/images'
    for name in (
        'a.png',
        '.ipynb_checkpoints/a-checkpoint.png',
        'p/.b/c.png',
        '._a.png',
        'output/a.png',
        'output/a.gif',
    ):
        write(top / name, image_of(0)[:, :, 0])
    assert [name for name, _ in find_images([top], top / 'output')] == ['a']
    assert names(tmp_path, '.cache/images/._a.png') == ['._a']


def test_images_that_all_lie_in_the_output_are_named(tmp_path):
    write(tmp_path / 'v/images/a.png', image_of(0))
    with pytest.raises(InputError, match=r'--output=.*v: holds .*v/images/a\.png and all other images'):
        find_images([tmp_path / 'v/images'], tmp_path / 'v')


def test_names_in_any_bytes_and_either_form_of_unicode(tmp_path):
    write(tmp_path / unicodedata.normalize('NFD', 'images/Müller.png'), image_of(0))
    try:
        write(tmp_path / 'images' / os.fsdecode(b'caf\xe9.png'), image_of(0))
    except OSError:
        pytest.skip('this file system takes UTF-8 only')
    assert sorted(names(tmp_path, 'images')) == ['Müller', 'caf%E9']


def test_links_are_followed_and_bad_ones_named(tmp_path, capsys):
    for number in range(2):
        write(tmp_path / f'store/{number}.png', image_of(number))
    top = tmp_path / 'top'
    top.mkdir()
    (top / 'day').symlink_to(tmp_path / 'store')
    (top / '07.png').symlink_to('/nowhere/07.png')
    (tmp_path / 'store/again').symlink_to(top)
    model = write_model(tmp_path / 'tiny.safetensors')
    arguments = [f'--model={model}', f'--images={top}', f'--output={tmp_path / "maps"}', *CONFIG]
    assert main(['', 'predict', *arguments]) == 1
    error = capsys.readouterr().err
    assert f'{top}/07.png: is a link to /nowhere/07.png, which is not there' in error
    assert f'{top}/day/again: is a link to {top}, a folder above it; not followed' in error
    assert '2 of 3 images predicted' in error
    found = sorted(path.relative_to(tmp_path / 'maps').as_posix() for path in (tmp_path / 'maps').rglob('*.png'))
    assert found == ['day/0.png', 'day/1.png']
