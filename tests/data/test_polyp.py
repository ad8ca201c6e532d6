"""The polyp sets in the layouts that people have, and the levels of masks."""

import numpy as np
import pytest
from data_trees import assert_refused, config_of, image_of, make_pairs, mask_of, names_of, write

from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.source import Source, mask_levels
from m2snet_jax.errors import InputError

SETS = ('CVC-300', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB', 'Kvasir')


def make_polyps(top, images='images', masks='masks', doubled=False, ending='.png', sets=SETS):
    train, test = (top / half / half if doubled else top / half for half in ('TrainDataset', 'TestDataset'))
    make_pairs(train / images, train / masks, ['a', 'b', 'c'], ending, ending)
    for number, name in enumerate(sets):
        names = [f'{name}-{index}' for index in range(number + 1)]
        make_pairs(test / name / 'images', test / name / 'masks', names, ending, ending)


@pytest.mark.parametrize(
    'layout',
    [
        {},
        {'images': 'image', 'masks': 'mask'},
        {'doubled': True},
        {'doubled': True, 'images': 'image', 'masks': 'mask', 'ending': '.tif'},
        {'ending': '.bmp'},
    ],
)
@pytest.mark.parametrize('inside', [False, True])
def test_polyp_layouts(tmp_path, layout, inside):
    make_polyps(tmp_path / 'data/Polyp' if inside else tmp_path / 'data', **layout)
    dataset = open_dataset(config_of('polyp', tmp_path / 'data'))
    assert names_of(dataset.train) == ['a', 'b', 'c']
    np.testing.assert_array_equal(dataset.train[1]['image'], image_of(1))
    assert {name: len(examples) for name, examples in dataset.tests.items()} == dict(
        zip(SETS, range(1, 6), strict=True)
    )
    assert names_of(dataset.tests['CVC-ColonDB']) == ['CVC-ColonDB-0', 'CVC-ColonDB-1', 'CVC-ColonDB-2']
    np.testing.assert_array_equal(dataset.tests['Kvasir'][3]['mask'], mask_of(3))
    assert [row['split'] for row in dataset.manifest].count('Kvasir') == 5


def test_polyps_of_jpeg_masks_keep_their_levels(tmp_path):
    make_polyps(tmp_path / 'data', ending='.jpg', sets=['Kvasir'])
    dataset = open_dataset(config_of('polyp', tmp_path / 'data'))
    mask = dataset.train[0]['mask']
    assert len(np.unique(mask)) > 2
    np.testing.assert_array_equal(mask > 127, mask_of(0) > 127)


def test_polyp_sets_that_are_missing_are_logged_and_left_out(tmp_path, caplog):
    make_polyps(tmp_path / 'data', sets=['Kvasir', 'CVC-300'])
    dataset = open_dataset(config_of('polyp', tmp_path / 'data'))
    assert list(dataset.tests) == ['CVC-300', 'Kvasir']
    assert 'test set CVC-ColonDB (380 images) is missing' in caplog.text
    assert '3 images in train, 1450 are published' in caplog.text


def test_bad_polyps(tmp_path, prepared):
    assert_refused(config_of('polyp', tmp_path / 'none'), prepared, 'none: no such folder', '1lODorfB33jbd')
    make_polyps(tmp_path / 'tests', sets=[])
    assert_refused(config_of('polyp', tmp_path / 'tests'), prepared, 'none of the test sets', 'ETIS-LaribPolypDB')
    make_polyps(tmp_path / 'train')
    (tmp_path / 'train/TrainDataset').rename(tmp_path / 'train/Elsewhere')
    assert_refused(config_of('polyp', tmp_path / 'train'), prepared, 'TrainDataset is missing')
    make_polyps(tmp_path / 'mask')
    (tmp_path / 'mask/TestDataset/Kvasir/masks/Kvasir-1.png').unlink()
    assert_refused(config_of('polyp', tmp_path / 'mask'), prepared, 'Kvasir/images/Kvasir-1.png: no mask')
    make_polyps(tmp_path / 'folder')
    (tmp_path / 'folder/TrainDataset/masks').rename(tmp_path / 'folder/TrainDataset/truth')
    assert_refused(config_of('polyp', tmp_path / 'folder'), prepared, 'TrainDataset: no folder masks')
    make_polyps(tmp_path / 'size')
    write(tmp_path / 'size/TrainDataset/masks/b.png', mask_of(0, 21, 30))
    assert_refused(config_of('polyp', tmp_path / 'size'), prepared, 'masks/b.png: 30x21')
    assert_refused(config_of('polyp', tmp_path / 'size', **{'data.classes': 2}), prepared, 'data.classes=2')


# Masks


@pytest.mark.parametrize(
    ('values', 'classes', 'expected'),
    [
        ([0, 1], 1, [0, 255]),
        ([0, 255], 1, [0, 255]),
        ([0, 3, 250], 1, [0, 3, 250]),
        ([0, 0], 1, [0, 0]),
        ([1, 1], 1, [255, 255]),
        ([0, 1], 2, [0, 1]),
        ([0, 2], 2, [0, 2]),
    ],
)
def test_mask_levels(values, classes, expected):
    mask = mask_levels(np.array([values], np.uint8), 'a.png', Source('', '', {}, classes=classes))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [expected]


@pytest.mark.parametrize(('values', 'classes'), [([0, 1, 2], 1), ([0, 100], 1), ([0, 1, 3], 2), ([0, 255], 2)])
def test_mask_levels_refused(values, classes):
    with pytest.raises(InputError, match=r'^a\.png: .*data\.classes'):
        mask_levels(np.array([values], np.uint8), 'a.png', Source('', '', {}, classes=classes))
