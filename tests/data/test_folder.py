"""The dataset `folder`: formats, masks, splits, lists, and what is refused."""

import hashlib

import numpy as np
import pytest
from data_trees import assert_refused, config_of, image_of, make_folder, make_pairs, mask_of, names_of, write

from m2snet_jax.data.datasets import open_dataset


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


def link_nowhere(root):
    (root / 'images/case2.png').unlink()
    (root / 'images/case2.png').symlink_to(root.parent / 'outside.png')


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
        (link_nowhere, 1, ['images/case2.png', 'outside']),
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
