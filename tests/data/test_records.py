"""Phantoms, and the records that every dataset is prepared into."""

import hashlib
import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_trees import assert_refused, config_of, make_folder, mask_of, write

from m2snet_jax.data.datasets import open_dataset, phantoms
from m2snet_jax.errors import InputError


def test_phantoms():
    keys = {'data.count': 6, 'data.test_count': 3}
    dataset = open_dataset(config_of('phantoms', **keys))
    assert (len(dataset.train), list(dataset.tests), len(dataset.tests['test'])) == (6, ['test'], 3)
    example = dataset.train[4]
    assert example['name'] == 'train_0004'
    assert example['image'].dtype == example['mask'].dtype == np.uint8
    assert example['image'].shape == (*example['mask'].shape, 3)
    assert len(dataset.manifest) == 9
    row = dataset.manifest[4]
    assert (row['split'], row['name']) == ('train', 'train_0004')
    assert (int(row['height']), int(row['width'])) == example['mask'].shape
    assert row['image_sha256'] == hashlib.sha256(example['image'].tobytes()).hexdigest()
    assert float(row['foreground']) == pytest.approx(np.mean(example['mask'] > 0), abs=1e-6)
    assert 'tensorflow' not in sys.modules


def test_phantoms_depend_on_the_data_seed_alone():
    keys = {'data.count': 2, 'data.test_count': 2}
    first = open_dataset(config_of('phantoms', **keys))
    assert open_dataset(config_of('phantoms', seed=7, **keys)).manifest_hash == first.manifest_hash
    other = open_dataset(config_of('phantoms', **keys, **{'data.seed': 1}))
    more = open_dataset(config_of('phantoms', **{'data.count': 3, 'data.test_count': 2}))
    hashes = [{row['name']: row['image_sha256'] for row in dataset.manifest} for dataset in (first, other, more)]
    assert len(set(hashes[0].values()) | set(hashes[1].values())) == 8
    assert hashes[2].items() > hashes[0].items()


def test_phantoms_are_varied():
    masks = [phantoms.phantom(np.random.default_rng((9, index)))[1] for index in range(40)]
    shares = np.array([np.mean(mask > 0) for mask in masks])
    assert 1 <= np.sum(shares == 0) <= 13  # one in eight, within four standard deviations
    assert shares.max() > 0.15
    assert 0 < shares[shares > 0].min() < 0.06
    assert len({mask.shape for mask in masks}) > 10
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks]))) == {0, 255}


def test_bad_phantoms(prepared):
    assert_refused(config_of('phantoms', **{'data.test_count': 0}), prepared, 'data.test_count=0')
    assert_refused(config_of('phantoms', **{'data.classes': 2}), prepared, 'data.classes=2')


# Preparing


def test_a_half_finished_preparation_never_passes_for_a_whole_one(prepared, monkeypatch):
    config = config_of('phantoms', **{'data.count': 3, 'data.test_count': 1})
    whole, drawn = phantoms.phantom, []

    def broken(rng):
        drawn.append(rng)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return whole(rng)

    monkeypatch.setattr(phantoms, 'phantom', broken)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(config)
    monkeypatch.setattr(phantoms, 'phantom', whole)
    dataset = open_dataset(config)
    assert (len(dataset.train), len(dataset.tests['test'])) == (3, 1)


def test_two_processes_may_prepare_at_once(monkeypatch):
    config = config_of('phantoms', **{'data.count': 3, 'data.test_count': 1})
    whole, others = phantoms.phantom, []

    def overtaken(rng):
        if not others:
            others.append(None)
            others[0] = open_dataset(config)  # begins after and ends before
        return whole(rng)

    monkeypatch.setattr(phantoms, 'phantom', overtaken)
    dataset = open_dataset(config)
    assert dataset.manifest_hash == others[0].manifest_hash
    np.testing.assert_array_equal(dataset.train[2]['image'], others[0].train[2]['image'])


def test_records_are_read_by_tfds_itself_and_written_once(tmp_path, prepared):
    make_folder(tmp_path / 'data')
    dataset = open_dataset(config_of('folder', tmp_path / 'data'))
    (directory,) = prepared.glob('folder/*/1.0.0')
    times = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    open_dataset(config_of('folder', tmp_path / 'data'))
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == times
    source = tfds.builder_from_directory(directory).as_data_source('train')
    np.testing.assert_array_equal(source[0]['image'], dataset.train[0]['image'])


def test_a_changed_file_is_prepared_again(tmp_path):
    names = make_folder(tmp_path / 'data')
    first = open_dataset(config_of('folder', tmp_path / 'data'))
    write(tmp_path / 'data' / 'masks' / f'{names[0]}.png', 255 - mask_of(0))
    second = open_dataset(config_of('folder', tmp_path / 'data'))
    assert second.manifest_hash != first.manifest_hash
    changed = [new['name'] for old, new in zip(first.manifest, second.manifest, strict=True) if old != new]
    assert changed == [names[0]]


def test_a_file_with_a_new_time_is_prepared_again(tmp_path, prepared):
    names = make_folder(tmp_path / 'data')
    first = open_dataset(config_of('folder', tmp_path / 'data'))
    os.utime(tmp_path / 'data' / 'masks' / f'{names[0]}.png', (1, 1))  # size and name are the old ones
    assert open_dataset(config_of('folder', tmp_path / 'data')).manifest_hash == first.manifest_hash
    assert len(list(prepared.glob('folder/*/1.0.0'))) == 2


def test_nothing_is_printed(tmp_path, capsys):
    make_folder(tmp_path / 'data')
    open_dataset(config_of('folder', tmp_path / 'data'))
    assert capsys.readouterr().out == ''


def test_an_unknown_dataset_is_refused(prepared):
    assert_refused(
        config_of('polyps'), prepared, 'data.name=polyps', 'busi, covid19, folder, goals, phantoms, polyp, video_polyp'
    )


def test_records_that_cannot_be_written(tmp_path, monkeypatch):
    make_folder(tmp_path / 'data')
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'file'))
    with pytest.raises(InputError, match='TFDS_DATA_DIR'):
        open_dataset(config_of('folder', tmp_path / 'data'))


# Folder
