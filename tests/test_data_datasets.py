import hashlib
import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_trees import assert_refused, config_of, image_of, make_folder, make_pairs, mask_of, names_of, write

from m2snet_jax.data.datasets import open_dataset, phantoms
from m2snet_jax.data.source import Source, mask_levels
from m2snet_jax.errors import InputError


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """The folder of prepared records."""
    folder = tmp_path / 'prepared'
    monkeypatch.setenv('TFDS_DATA_DIR', str(folder))
    return folder


# Phantoms


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


@pytest.mark.parametrize(
    ('ending', 'mask_ending'),
    [('.png', '.png'), ('.JPG', '.PNG'), ('.jpeg', '.bmp'), ('.tif', '.tiff'), ('.bmp', '.TIF')],
)
def test_folder_reads_every_format(tmp_path, ending, mask_ending):
    root = tmp_path / 'data'
    names = make_folder(root, ending=ending, mask_ending=mask_ending)
    (root / 'images' / 'notes.txt').write_text('no image')
    (root / 'images' / '.hidden.png').write_text('no image')
    dataset = open_dataset(config_of('folder', root))
    train, test = names_of(dataset.train), names_of(dataset.tests['test'])
    assert sorted(train + test) == names
    assert train == sorted(train)
    for examples in (dataset.train, dataset.tests['test']):
        for index in range(len(examples)):
            example, number = examples[index], int(examples[index]['name'][4:])
            np.testing.assert_array_equal(example['mask'], mask_of(number))
            if ending.lower() not in ('.jpg', '.jpeg'):
                np.testing.assert_array_equal(example['image'], image_of(number))
    for row in dataset.manifest:
        content = (root / 'images' / f'{row["name"]}{ending}').read_bytes()
        assert row['image_sha256'] == hashlib.sha256(content).hexdigest()
        content = (root / 'masks' / f'{row["name"]}{mask_ending}').read_bytes()
        assert row['mask_sha256'] == hashlib.sha256(content).hexdigest()
        assert (row['height'], row['width']) == ('20', '30')


def test_folder_found_from_its_parent_and_under_other_names(tmp_path):
    make_pairs(tmp_path / 'parent/data/Image', tmp_path / 'parent/data/mask', 'abcdef')
    (tmp_path / 'parent/__MACOSX/images').mkdir(parents=True)
    direct = open_dataset(config_of('folder', tmp_path / 'parent/data'))
    assert open_dataset(config_of('folder', tmp_path / 'parent')).manifest_hash == direct.manifest_hash


def test_folder_splits_by_hash_of_the_name(tmp_path):
    make_folder(tmp_path / 'few', 60)
    make_folder(tmp_path / 'more', 120)
    few = open_dataset(config_of('folder', tmp_path / 'few'))
    more = open_dataset(config_of('folder', tmp_path / 'more'))
    assert 3 <= len(few.tests['test']) <= 24  # 12 ± 3 standard deviations
    assert set(names_of(few.tests['test'])) < set(names_of(more.tests['test']))
    assert set(names_of(few.train)) < set(names_of(more.train))
    again = open_dataset(config_of('folder', tmp_path / 'few', seed=5))
    assert again.manifest_hash == few.manifest_hash
    other = open_dataset(config_of('folder', tmp_path / 'few', **{'data.seed': 1}))
    assert set(names_of(other.tests['test'])) != set(names_of(few.tests['test']))


@pytest.mark.parametrize('seed', range(12))
def test_no_half_is_empty(tmp_path, seed):
    make_folder(tmp_path / 'data', 2)
    dataset = open_dataset(config_of('folder', tmp_path / 'data', **{'data.seed': seed}))
    assert (len(dataset.train), len(dataset.tests['test'])) == (1, 1)


def test_folder_lists(tmp_path):
    root = tmp_path / 'data'
    names = make_folder(root)
    (root / 'test.txt').write_text('case3\n\ncase1.png\n')
    dataset = open_dataset(config_of('folder', root))
    assert names_of(dataset.tests['test']) == ['case1', 'case3']
    assert names_of(dataset.train) == [name for name in names if name not in ('case1', 'case3')]
    (root / 'train.txt').write_text('case0\r\ncase2')
    dataset = open_dataset(config_of('folder', root))
    assert names_of(dataset.train) == ['case0', 'case2']
    assert names_of(dataset.tests['test']) == ['case1', 'case3']


def test_folder_masks_of_many_kinds(tmp_path):
    root = tmp_path / 'data'
    make_folder(root, 6)
    soft = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    write(root / 'masks/case0.png', mask_of(0) // 255)  # 0 and 1
    write(root / 'masks/case1.png', soft)
    write(root / 'masks/case2.png', mask_of(2) > 0)  # one bit
    write(root / 'masks/case3.png', np.zeros((20, 30), np.uint8))
    write(root / 'masks/case4.png', mask_of(4).astype(np.uint16) * 257)
    dataset = open_dataset(config_of('folder', root))
    masks = {}
    for examples in (dataset.train, dataset.tests['test']):
        masks.update({examples[index]['name']: examples[index]['mask'] for index in range(len(examples))})
    np.testing.assert_array_equal(masks['case0'], mask_of(0))
    np.testing.assert_array_equal(masks['case1'], soft)
    np.testing.assert_array_equal(masks['case2'], mask_of(2))
    assert masks['case3'].max() == 0
    np.testing.assert_array_equal(masks['case4'], mask_of(4))


def test_folder_with_class_indices(tmp_path):
    root = tmp_path / 'data'
    make_folder(root)
    for number in range(10):
        write(root / f'masks/case{number}.png', image_of(number)[:, :, 0] % 4)
    dataset = open_dataset(config_of('folder', root, **{'data.classes': 3}))
    for index in range(len(dataset.train)):
        number = int(dataset.train[index]['name'][4:])
        np.testing.assert_array_equal(dataset.train[index]['mask'], image_of(number)[:, :, 0] % 4)
    row = next(row for row in dataset.manifest if row['name'] == 'case0')
    assert float(row['foreground']) == pytest.approx(np.mean(image_of(0)[:, :, 0] % 4 > 0), abs=1e-6)


def break_nothing(root):
    pass


def remove_mask(root):
    (root / 'masks/case2.png').unlink()


def remove_image(root):
    (root / 'images/case2.png').unlink()


def remove_all(root):
    for path in root.glob('*/*.png'):
        path.unlink()


def double_image(root):
    write(root / 'images/case2.jpg', image_of(2))


def truncate_image(root):
    content = (root / 'images/case2.png').read_bytes()
    (root / 'images/case2.png').write_bytes(content[: len(content) // 2])


def resize_mask(root):
    write(root / 'masks/case2.png', mask_of(2, 20, 31))


def add_class(root):
    write(root / 'masks/case2.png', mask_of(2) // 255 * np.uint8(2))


def link_outside(root):
    outside = root.parent / 'outside.png'
    (root / 'images/case2.png').rename(outside)
    (root / 'images/case2.png').symlink_to(outside)


def list_unknown(root):
    (root / 'test.txt').write_text('case1\ncase77\n')


def list_twice(root):
    (root / 'test.txt').write_text('case1\n')
    (root / 'train.txt').write_text('case0\ncase1\n')


def list_all(root):
    (root / 'test.txt').write_text('\n'.join(f'case{number}' for number in range(10)))


def list_nothing(root):
    (root / 'train.txt').write_text('\n')


def truncate_image_and_list_unknown(root):
    truncate_image(root)
    list_unknown(root)


def remove_mask_and_truncate_image(root):
    (root / 'masks/case4.png').unlink()
    truncate_image(root)


@pytest.mark.parametrize(
    ('fault', 'classes', 'words'),
    [
        (remove_mask, 1, ['images/case2.png: no mask', "'case2'"]),
        (remove_image, 1, ['masks/case2.png: no image', "'case2'"]),
        (remove_all, 1, ['images: no images found']),
        (double_image, 1, ['case2.png: case2.jpg']),
        (truncate_image, 1, ['images/case2.png: cannot be read']),
        (resize_mask, 1, ['masks/case2.png: 31x20', '30x20']),
        (add_class, 1, ['masks/case2.png: values 0, 2', 'data.classes=2']),
        (break_nothing, 2, ['masks/case0.png: value 255', 'data.classes=2']),
        (link_outside, 1, ['images/case2.png', 'outside']),
        (list_unknown, 1, ['test.txt', "'case77'"]),
        (list_twice, 1, ['test.txt', "'case1'"]),
        (list_all, 1, ['no image is left for train']),
        (list_nothing, 1, ['train.txt: names no image']),
        (truncate_image_and_list_unknown, 1, ['images/case2.png: cannot be read']),
        (remove_mask_and_truncate_image, 1, ['images/case4.png: no mask']),
    ],
)
def test_bad_folders(tmp_path, prepared, fault, classes, words):
    make_folder(tmp_path / 'data')
    fault(tmp_path / 'data')
    message = assert_refused(config_of('folder', tmp_path / 'data', **{'data.classes': classes}), prepared, *words)
    assert '\n' not in message


def test_folder_missing(tmp_path, prepared):
    tree = 'masks/    a.png  b.png'
    assert_refused(config_of('folder'), prepared, 'config.data.root is not set', tree)
    assert_refused(config_of('folder', tmp_path / 'none'), prepared, f'data.root={tmp_path}/none: no such folder', tree)
    (tmp_path / 'data/pictures').mkdir(parents=True)
    assert_refused(config_of('folder', tmp_path / 'data'), prepared, f'data.root={tmp_path}/data', 'pictures', tree)
    make_folder(tmp_path / 'several/one')
    make_folder(tmp_path / 'several/two')
    assert_refused(config_of('folder', tmp_path / 'several'), prepared, 'one, two')
    make_folder(tmp_path / 'single', 1)
    assert_refused(config_of('folder', tmp_path / 'single'), prepared, 'at least two')


# Polyps

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
