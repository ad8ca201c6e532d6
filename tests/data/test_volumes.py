"""The dataset `folder` with volumes, and the commands of the page on clinics."""

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from clinic_files import (
    GEOMETRIES,
    RANDOM,
    SHAPE,
    levels,
    make_ct_series,
    make_volume,
    nibabel,
    pydicom,
)
from data_trees import assert_refused, config_of, names_of
from PIL import Image
from pydicom.data import get_testdata_file
from tiny_models import write_model

from m2snet_jax.__main__ import main
from m2snet_jax.data import splits
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.images.formats import read_image


@pytest.fixture
def volumes(tmp_path):
    """Eight volumes with masks, in all geometries, and two CTs in DICOM."""
    root = tmp_path / 'data'
    for kind in ('images', 'masks'):
        (root / kind).mkdir(parents=True)
    for number in range(8):
        anatomy = RANDOM.integers(0, 1000, SHAPE).astype(np.int16)
        geometry = list(GEOMETRIES)[number % 4]
        make_volume(root / f'images/ct{number}.nii.gz', geometry, anatomy)
        make_volume(root / f'masks/ct{number}.nii.gz', geometry, (anatomy > 700).astype(np.uint8))
    for path in make_ct_series(tmp_path / 'series', 2):
        shutil.copy(path, root / 'images')
        Image.fromarray(np.uint8(255) * (pydicom.dcmread(path).pixel_array > 900)).save(root / f'masks/{path.stem}.png')
    return root


def units_of(names):
    return {name.rpartition('_')[0] or name[:5] for name in names}


def test_a_folder_of_volumes(volumes, prepared):
    config = config_of('folder', volumes, **{'data.window': '500,1000'})
    dataset = open_dataset(config)
    train, test = names_of(dataset.train), names_of(dataset.tests['test'])
    assert len(train) + len(test) == 8 * SHAPE[2] + 2
    assert units_of(train).isdisjoint(units_of(test))
    assert units_of(train) | units_of(test) == {*(f'ct{number}' for number in range(8)), 'slice'}
    for example in (dataset.train[index] for index in range(len(train))):
        shown, marked = example['image'][:, :, 0], example['mask'] > 0
        if example['name'].startswith('ct'):
            file, number = example['name'].split('_')
            np.testing.assert_array_equal(
                shown, read_image(volumes / f'images/{file}.nii.gz' / number, '500,1000')[..., 0]
            )
            assert shown[marked].min() > levels(700, 500, 1000)
            assert shown[~marked].max() <= levels(700, 500, 1000)
    assert len({row['image_sha256'] for row in dataset.manifest}) == len(dataset.manifest)
    places = {name: splits.hash_fraction(name, 0) for name in units_of(train + test) if name != 'slice'}
    assert units_of(test) - {'slice'} == {name for name, place in places.items() if place < 0.2}
    other = open_dataset(config_of('folder', volumes, **{'data.window': '300,1000'}))
    assert not np.array_equal(other.train[0]['image'], dataset.train[0]['image'])


def test_volumes_stay_whole_in_lists_folds_and_validation(volumes, prepared):
    keys = {'data.window': '500,1000'}
    held_out = open_dataset(config_of('folder', volumes, **keys, **{'data.validation': 0.2}))
    assert units_of(names_of(held_out.validation)).isdisjoint(units_of(names_of(held_out.train)))
    tested = []
    for fold in range(3):
        dataset = open_dataset(config_of('folder', volumes, **keys, **{'data.fold': fold, 'data.folds': 3}))
        assert units_of(names_of(dataset.tests['test'])).isdisjoint(units_of(names_of(dataset.train)))
        tested += names_of(dataset.tests['test'])
    assert len(tested) == len(set(tested)) == 50
    (volumes / 'test.txt').write_text('ct3\nct4.nii.gz\n')
    listed = open_dataset(config_of('folder', volumes, **keys))
    assert units_of(names_of(listed.tests['test'])) == {'ct3', 'ct4'}
    (volumes / 'test.txt').write_text('ct3_001\n')
    assert_refused(config_of('folder', volumes, **keys), prepared / 'none', 'test.txt', "name 'ct3' once")


def move(root):
    image = nibabel.load(root / 'masks/ct1.nii.gz')
    affine = image.affine.copy()
    affine[2, 3] += 5
    nibabel.save(nibabel.Nifti1Image(image.get_fdata().astype(np.uint8), affine), root / 'masks/ct1.nii.gz')


def crop(root):
    image = nibabel.load(root / 'masks/ct1.nii.gz')
    nibabel.save(image.slicer[1:], root / 'masks/ct1.nii.gz')


def picture(root):
    (root / 'masks/ct1.nii.gz').unlink()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(root / 'masks/ct1.png')


def clip(root):
    shutil.copy(get_testdata_file('examples_ybr_color.dcm'), root / 'images/slice0.dcm')


def damage(root):
    (root / 'images/ct1.nii.gz').write_bytes(gzip.compress(b'no volume'))


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        (move, ['masks/ct1.nii.gz: lies elsewhere']),
        (crop, ['masks/ct1.nii.gz: ', 'give both the same grid']),
        (picture, ['ct1.png: a NIfTI volume has a NIfTI mask']),
        (clip, ['slice0.dcm: holds 30 frames']),
        (damage, ['ct1.nii.gz: cannot be read']),
    ],
)
def test_bad_volumes(volumes, prepared, fault, words):
    fault(volumes)
    assert_refused(config_of('folder', volumes, **{'data.window': '500,1000'}), prepared, *words)


def test_volumes_without_a_window_are_refused(volumes, prepared):
    assert_refused(config_of('folder', volumes), prepared, 'more than 8 bits', 'data.window')


def test_validate_looks_at_slices(volumes, prepared, tmp_path, capsys):
    command = ['', 'validate', f'--root={volumes}', f'--output={tmp_path}/look']
    shutil.copy(volumes / 'images/ct0.nii.gz', volumes / 'images/copy.nii.gz')
    shutil.copy(volumes / 'masks/ct0.nii.gz', volumes / 'masks/copy.nii.gz')
    assert main([*command, '--config.data.window=500,1000', '--config.data.seed=1']) in (0, 1)
    text = capsys.readouterr().out
    assert '6 pairs of near-duplicates' in text
    assert 'byte for byte the same' in text
    assert (tmp_path / 'look/duplicates.html').exists()


# The page about all this


@pytest.mark.parametrize('line', range(4))
def test_the_commands_of_the_page(tmp_path, volumes, prepared, monkeypatch, line):
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    page = (Path(__file__).parents[2] / 'docs/clinic.md').read_text(encoding='utf-8')
    commands = [found.split()[3:] for found in re.findall(r'^python -m m2snet_jax .*', page, re.MULTILINE)]
    assert len(commands) == 4
    shutil.copy(volumes / 'images/ct0.nii.gz', tmp_path / 'ct.nii.gz')
    monkeypatch.chdir(tmp_path)
    if commands[line][0] == 'predict':
        model = write_model(tmp_path / 'tiny.safetensors')
        commands[line] = [
            word.replace('runs/lung', str(model)).replace('runs/polyp', str(model)) for word in commands[line]
        ]
        window = [] if any('data.window' in word for word in commands[line]) else ['--config.data.window=lung']
        commands[line] += ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48', *window]
    assert main(['', *commands[line]]) == 0
