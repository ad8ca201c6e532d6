"""Real pictures, where they lie beside the checkout."""

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from data_trees import names_of
from PIL import Image

from m2snet_jax.config import load_config
from m2snet_jax.data.datasets import busi, open_dataset
from m2snet_jax.data.duplicates import groups_of_files
from m2snet_jax.data.inspection import inspect
from m2snet_jax.data.pipeline import train_batches

DATA = Path(__file__).parents[3] / 'shared' / 'data'
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason='no real pictures beside the checkout')


def config_of(name, folder, **keys):
    return load_config(name, **{'data.root': str(DATA / folder), **keys})


def test_polyps_with_jpeg_masks():
    config = config_of('folder', 'kvasir_five', batch=2, **{'data.size': 128, 'data.sizes': (128,)})
    report = inspect(config)
    assert report['problems'] == []
    assert sum(summary['masks']['not clean'] for summary in report['splits'].values()) == 5
    assert len([line for line in report['warnings'] if 'masks are not clean' in line]) == len(report['splits'])
    dataset = open_dataset(config)
    assert dataset.manifest_hash == report['manifest_hash']
    assert len(dataset.train) + len(dataset.tests['test']) == 5
    example = dataset.train[0]
    path = DATA / 'kvasir_five/masks' / f'{example["name"]}.jpg'
    with Image.open(path) as mask:
        np.testing.assert_array_equal(example['mask'], np.asarray(mask.convert('L')))
    with contextlib.closing(train_batches(dataset.train, config)) as batches:
        batch = next(batches)
    assert batch['image'].shape == (2, 128, 128, 3)
    assert 0.02 < batch['mask'].mean() < 0.7


def test_slices_of_a_membrane():
    report = inspect(config_of('folder', 'membrane'))
    assert (report['problems'], report['warnings']) == ([], [])
    assert sum(summary['images'] for summary in report['splits'].values()) == 30


def test_the_whole_of_busi():
    report = inspect(config_of('busi:small', 'busi_small'))
    (line,) = report['problems']
    assert 'benign (433).png (test, benign)' in line
    assert 'malignant (145).png (train, malignant)' in line
    near = report['near_duplicates']
    assert (len(near['pairs']), near['groups'], near['images'], near['largest_group']) == (97, 69, 155, 4)
    assert {tuple(sorted(pair['names'])) for pair in near['pairs'] if pair['across_labels']} == {
        ('benign (131)', 'malignant (51)'),
        ('benign (42)', 'malignant (51)'),
        ('benign (399)', 'malignant (93)'),
        ('benign (433)', 'malignant (145)'),
        ('benign (269)', 'normal (1)'),
        ('benign (437)', 'normal (34)'),
    }
    assert (near['across_folds'], near['near_training']['test']) == (51, 25)
    counts = {split: summary['images'] for split, summary in report['splits'].items()}
    assert counts == {'train': 484, 'test': 163, 'normal': 133}
    assert len(report['splits']['normal']['empty']) == 133
    assert not report['splits']['train']['empty']
    for name, excluded in near['exclude'].items():  # what the study of BUSI leaves out
        shipped = Path(__file__).parents[2] / f'configs/studies/busi_{name}.txt'
        assert shipped.read_text().splitlines() == excluded
        assert len(excluded) == 26


def test_no_near_duplicates_across_folds_that_are_dealt_in_groups():
    source = busi.find(config_of('busi', 'busi_small', **{'data.group_duplicates': True}))
    pairs = [pair for split in ('train', 'test') for pair in source.splits[split]]
    group_of = groups_of_files([pair.image for pair in pairs])
    by_group = {}
    for pair, group in zip(pairs, group_of, strict=True):
        by_group.setdefault(group, set()).add(source.folds[pair.name])
    assert len(by_group) < 600
    assert all(len(folds) == 1 for folds in by_group.values())
    for label, count in (('benign', 437), ('malignant', 210)):
        sizes = [sum(pair.label == label and source.folds[pair.name] == fold for pair in pairs) for fold in range(4)]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == count


def test_original_files_of_busi_in_all_their_modes():
    dataset = open_dataset(config_of('busi', 'busi_originals', **{'data.fold': None}))
    names = names_of(dataset.train)
    assert len(names) == 9
    lesions = {'benign (195)': 3, 'benign (4)': 2, 'benign (54)': 2, 'malignant (53)': 2}
    for index, name in enumerate(names):
        label = name.split()[0]
        paths = [DATA / f'busi_originals/{label}/{name}_mask{end}.png' for end in ('', '_1', '_2')]
        paths = [path for path in paths if path.exists()]
        assert len(paths) == lesions.get(name, 1)
        masks = []
        for path in paths:
            with Image.open(path) as mask:
                masks.append(np.asarray(mask.convert('RGB'))[:, :, 0] > 127)
        mask = dataset.train[index]['mask']
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask > 0, np.logical_or.reduce(masks))
        for one, other in itertools.combinations(masks, 2):
            assert (one | other).sum() > max(one.sum(), other.sum())
    assert dataset.tests['normal'][0]['mask'].max() == 0
