import itertools
from collections import Counter

import numpy as np
import pytest
from data_trees import assert_refused, config_of, image_of, make_folder, make_pairs, mask_of, names_of, write

from m2snet_jax.data import splits
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.pairs import Pair
from m2snet_jax.errors import InputError


def make_near_duplicates(root, groups=12, count=30):
    """Makes `count` pictures; the first 2 · `groups` are two by two the same but for brightness."""
    for number in range(count):
        source = number // 2 if number < 2 * groups else number
        image = image_of(source, 64, 64) // 2
        image += np.uint8(number % 2) * 3
        write(root / f'images/case{number:02d}.png', image)
        write(root / f'masks/case{number:02d}.png', mask_of(number, 64, 64))
    return [{f'case{2 * group:02d}', f'case{2 * group + 1:02d}'} for group in range(groups)]


# Folds


@pytest.mark.parametrize('folds', [2, 4, 5])
def test_deal_gives_equal_folds_with_equal_shares(folds):
    pairs = [Pair(f'a{number}', None, (), 'a') for number in range(43)]
    pairs += [Pair(f'b{number}', None, (), 'b') for number in range(22)]
    data = config_of('busi', **{'data.folds': folds}).data
    dealt = splits.deal_folds(pairs, data)
    assert list(dealt) != [pair.name for pair in pairs]
    assert set(dealt) == {pair.name for pair in pairs}
    for label, count in (('a', 43), ('b', 22)):
        sizes = Counter(fold for name, fold in dealt.items() if name.startswith(label))
        assert set(sizes) == set(range(folds))
        assert all(count // folds <= size <= -(-count // folds) for size in sizes.values())
    assert splits.deal_folds(list(reversed(pairs)), data) == dealt


def test_groups_of_near_duplicates_are_dealt_whole(tmp_path):
    groups = make_near_duplicates(tmp_path / 'data')
    tested = []
    for fold in range(4):
        keys = {'data.fold': fold, 'data.group_duplicates': True}
        test = set(names_of(open_dataset(config_of('folder', tmp_path / 'data', **keys)).tests['test']))
        assert all(len(group & test) in (0, 2) for group in groups)
        assert 6 <= len(test) <= 9
        tested += test
    assert len(tested) == len(set(tested)) == 30
    plain = open_dataset(config_of('folder', tmp_path / 'data', **{'data.fold': 0}))
    assert any(len(group & set(names_of(plain.tests['test']))) == 1 for group in groups)


def test_the_hash_split_keeps_groups_whole(tmp_path):
    groups = make_near_duplicates(tmp_path / 'data')
    dataset = open_dataset(config_of('folder', tmp_path / 'data', **{'data.group_duplicates': True}))
    test = set(names_of(dataset.tests['test']))
    assert test
    assert all(len(group & test) in (0, 2) for group in groups)
    plain = set(names_of(open_dataset(config_of('folder', tmp_path / 'data')).tests['test']))
    assert any(len(group & plain) == 1 for group in groups)
    alone = {f'case{number}' for number in range(24, 30)}
    assert plain & alone == test & alone  # an image without near-duplicates stays where it is


def test_folder_in_folds(tmp_path, prepared):
    names = make_folder(tmp_path / 'data')
    tests = [
        names_of(open_dataset(config_of('folder', tmp_path / 'data', **{'data.fold': fold})).tests['test'])
        for fold in range(4)
    ]
    assert sorted(itertools.chain(*tests)) == names
    assert sorted(map(len, tests)) == [2, 2, 3, 3]
    (tmp_path / 'other').mkdir()
    make_folder(tmp_path / 'other', 3)
    (tmp_path / 'other/test.txt').write_text('case1\n')
    for path in prepared.glob('folder/*'):
        path.rename(tmp_path / path.name)
    assert_refused(config_of('folder', tmp_path / 'other', **{'data.fold': 0}), prepared, 'test.txt', 'data.fold=0')
    (tmp_path / 'other/test.txt').unlink()
    assert_refused(
        config_of('folder', tmp_path / 'other', **{'data.fold': 3}), prepared, 'no image is left for test; 3 found'
    )


@pytest.mark.parametrize('name', ['phantoms', 'polyp', 'covid19', 'video_polyp'])
@pytest.mark.parametrize('key', ['data.fold', 'data.folds_file'])
def test_folds_are_refused_where_there_are_none(name, key, tmp_path, prepared):
    value = 0 if key == 'data.fold' else 'folds.csv'
    words = f'--config.{key}={value}: {name} has a split of its own', f'set --config.{key}=none'
    assert_refused(config_of(name, tmp_path, **{key: value}), prepared, *words)


# Left out of training


def test_excluded_names_leave_training_and_never_the_test(tmp_path):
    root = tmp_path / 'data'
    names = make_folder(root)
    (root / 'test.txt').write_text('case3\ncase7\n')
    (tmp_path / 'out.txt').write_text('case0\n\ncase3\ncase9\n')
    whole = open_dataset(config_of('folder', root))
    dataset = open_dataset(config_of('folder', root, **{'data.exclude': str(tmp_path / 'out.txt')}))
    assert names_of(dataset.train) == [name for name in names if name not in ('case0', 'case3', 'case7', 'case9')]
    assert names_of(dataset.tests['test']) == ['case3', 'case7']
    assert [row['name'] for row in dataset.manifest] == [*names_of(dataset.train), 'case3', 'case7']
    assert dataset.manifest_hash != whole.manifest_hash
    for index, name in enumerate(names_of(dataset.train)):
        np.testing.assert_array_equal(dataset.train[index]['image'], image_of(int(name[4:])))


def test_bad_lists_of_excluded_names(tmp_path, prepared):
    names = make_folder(tmp_path / 'data')
    path = tmp_path / 'out.txt'
    config = config_of('folder', tmp_path / 'data', **{'data.exclude': str(path)})
    assert_refused(config, prepared, f'data.exclude={path}: cannot be read')
    path.write_text('case77')
    assert_refused(config, prepared, "out.txt: no image is named 'case77'")
    path.write_text('\n'.join(names))
    assert_refused(config, prepared, 'data.exclude', 'none is left')


@pytest.mark.parametrize(('validation', 'count'), [(0.25, 6), (5, 5), (0.001, 1)])
def test_validation_is_held_out_of_training(tmp_path, validation, count):
    root = tmp_path / 'data'
    make_folder(root, 26)
    (root / 'test.txt').write_text('case3\ncase7\n')
    dataset = open_dataset(config_of('folder', root, **{'data.validation': float(validation)}))
    train, held_out, test = map(names_of, (dataset.train, dataset.validation, dataset.tests['test']))
    assert test == ['case3', 'case7']
    assert len(held_out) == count
    assert len(set(train) | set(held_out) | set(test)) == len(train) + len(held_out) + len(test) == 26
    counted = Counter(row['split'] for row in dataset.manifest)
    assert counted == {'train': 24 - count, 'validation': count, 'test': 2}
    again = open_dataset(config_of('folder', root, seed=9, **{'data.validation': float(validation)}))
    assert names_of(again.validation) == held_out


def test_validation_of_phantoms_and_none(tmp_path):
    keys = {'data.count': 8, 'data.test_count': 2}
    assert open_dataset(config_of('phantoms', **keys)).validation is None
    dataset = open_dataset(config_of('phantoms', **keys, **{'data.validation': 0.25}))
    assert (len(dataset.train), len(dataset.validation), len(dataset.tests['test'])) == (6, 2, 2)


def test_validation_keeps_near_duplicates_together(tmp_path):
    groups = make_near_duplicates(tmp_path / 'data')
    (tmp_path / 'data/test.txt').write_text('case29\n')
    keys = {'data.validation': 0.4, 'data.group_duplicates': True}
    held_out = set(names_of(open_dataset(config_of('folder', tmp_path / 'data', **keys)).validation))
    assert 12 <= len(held_out) <= 13
    assert all(len(group & held_out) in (0, 2) for group in groups)


@pytest.mark.parametrize('validation', [0.0, -1.0, 10.0])
def test_bad_validation(tmp_path, prepared, validation):
    make_pairs(tmp_path / 'images', tmp_path / 'masks', 'abcdef')
    with pytest.raises(InputError, match=r'data\.validation'):
        open_dataset(config_of('folder', tmp_path, **{'data.validation': validation}))
