"""Layouts of published sets and of people's folders, by `data.root` and at most two keys."""

import itertools
import os
import re
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data_trees import assert_refused, config_of, image_of, make_folder, mask_of, names_of, write

from m2snet_jax.__main__ import main
from m2snet_jax.data.datasets import module_of, open_dataset
from m2snet_jax.data.inspection import inspect
from m2snet_jax.images.formats import read_mask

PAGE = Path(__file__).parents[2] / 'docs/data.md'


def put(root, image, mask, numbers, offset=0):
    """Writes pairs; `image` and `mask` are paths with a place for the number."""
    for number in numbers:
        write(root / image.format(number), image_of(number + offset))
        write(root / mask.format(number), mask_of(number + offset))


def drive(root):
    put(root, 'training/images/{}_training.tif', 'training/1st_manual/{}_manual1.gif', range(21, 26))
    put(root, 'test/images/{:02d}_test.tif', 'test/1st_manual/{:02d}_manual1.gif', range(1, 5))
    for number in range(1, 5):
        write(root / f'test/2nd_manual/{number:02d}_manual2.gif', mask_of(number + 1))
        write(root / f'test/mask/{number:02d}_test_mask.gif', np.full((20, 30), 255, np.uint8))
    for number in range(21, 26):
        write(root / f'training/mask/{number}_training_mask.gif', np.full((20, 30), 255, np.uint8))


def isic(root):
    for start, part, count in ((0, 'Training', 5), (10, 'Validation', 2), (20, 'Test', 3)):
        folders = f'ISIC2018_Task1-2_{part}_Input', f'ISIC2018_Task1_{part}_GroundTruth'
        names = f'{folders[0]}/ISIC_{{:07d}}.jpg', f'{folders[1]}/ISIC_{{:07d}}_segmentation.png'
        put(root, *names, range(start, start + count))
        for folder, name in ((folders[0], 'LICENSE.txt'), (folders[1], 'ATTRIBUTION.txt')):
            (root / folder / name).write_text('CC-0')


def isic_2017(root):
    images, masks = 'ISIC-2017_Training_Data', 'ISIC-2017_Training_Part1_GroundTruth'
    put(root, f'{images}/ISIC_{{:07d}}.jpg', f'{masks}/ISIC_{{:07d}}_segmentation.png', range(6))
    for number in range(6):
        write(root / images / f'ISIC_{number:07d}_superpixels.png', image_of(number))
    (root / images / 'ISIC-2017_Training_Data_metadata.csv').write_text('image_id')


def kvasir_seg(root):
    put(root, 'images/cju{}.jpg', 'masks/cju{}.jpg', range(6))
    (root / 'kavsir_bboxes.json').write_text('{}')


def clinic_db(root, above=''):
    put(root, above + 'Original/{}.tif', above + 'Ground Truth/{}.tif', range(1, 7))


def clinic_db_in_two_formats(root):
    clinic_db(root, 'TIF/')
    put(root, 'PNG/Original/{}.png', 'PNG/Ground Truth/{}.png', range(1, 7))
    (root / 'metadata.csv').write_text('frame_id')


def inf_net(root):
    train, test = 'TrainingSet/LungInfection-Train', 'TestingSet/LungInfection-Test'
    for folder, numbers in ((f'{train}/Doctor-label', range(5)), (test, range(10, 13))):
        put(root, folder + '/Imgs/{}.jpg', folder + '/GT/{}.png', numbers)
        put(root, folder + '/Imgs/{}.jpg', folder + '/Edge/{}.png', numbers)
    put(root, f'{train}/Pseudo-label/Imgs/{{}}.jpg', f'{train}/Pseudo-label/GT/{{}}.png', range(20, 24))
    put(root, 'TrainingSet/MultiClassInfection-Train/Imgs/{}.jpg', 'TrainingSet/x/{}.png', range(30, 32))


def patients(root, image='{}_{{}}.tif', mask='{}_{{}}_mask.tif'):
    for start in (1, 10, 20, 30, 40, 50):
        name = f'TCGA_CS_49{start:02d}'
        image_path, mask_path = image.format(name), mask.format(name)
        put(root, f'{name}/{image_path}', f'{name}/{mask_path}', range(start, start + 3))
    (root / 'data.csv').write_text('Patient')


def patients_with_folders(root):
    patients(root, 'images/img{{:03d}}.png', 'masks/img{{:03d}}.png')


def folder_an_image(root):
    put(root, 'p{}/shot.png', 'p{}/shot_outline.png', range(6))


# In the order of the table on the page: the tree, and the numbers of images in each split, None where it is by hash.
TREES = [
    (drive, {'train': 5, 'test': 4}),
    (drive, None),
    (isic, {'train': 5, 'test': 3, 'val': 2}),
    (isic_2017, None),
    (kvasir_seg, None),
    (clinic_db, None),
    (clinic_db_in_two_formats, None),
    (inf_net, {'train': 5, 'test': 3}),
    (patients, None),
    (patients_with_folders, None),
    (folder_an_image, None),
]
JPEG = (isic, isic_2017, kvasir_seg, inf_net)
SECTION = PAGE.read_text(encoding='utf-8').partition('## Layouts')[2].partition('\n## ')[0]
ROWS = [
    [cell.strip().strip('`') for cell in line.strip('|').split('|')]
    for line in re.findall(r'^\|.*\|$', SECTION, re.MULTILINE)
][2:]


def keys_of(row):
    """Returns the config's name and the keys of a row of the table."""
    keys = {f'data.{key}': shlex.split(cell)[0] for key, cell in zip(('images', 'masks'), row[2:], strict=True) if cell}
    return 'covid19' if 'covid19' in row[0] else 'folder', keys


def examples_of(dataset):
    return {
        (split, example['name']): example
        for split, examples in (('train', dataset.train), *dataset.tests.items())
        for example in (examples[index] for index in range(len(examples)))
    }


@pytest.mark.parametrize('number', range(len(TREES)), ids=[row[0] for row in ROWS])
def test_published_layouts(tmp_path, number):
    assert len(ROWS) == len(TREES)
    (make, counts), row = TREES[number], ROWS[number]
    top = row[1] if re.fullmatch(r'[\w/-]+', row[1]) else 'set'
    make(tmp_path / 'parent' / top.partition('/')[0])
    root = tmp_path / 'parent' / top
    name, keys = keys_of(row)
    dataset = open_dataset(config_of(name, root, **keys))
    found = examples_of(dataset)
    if '/' not in top:
        find = module_of(config_of(name)).find
        parent = find(config_of(name, root.parent, **keys))
        assert parent.splits == find(config_of(name, root, **keys)).splits
    if counts is None:
        assert set(dataset.tests) == {'test'}
        assert len(dataset.train)
        assert len(dataset.tests['test'])
    else:
        assert {'train': len(dataset.train), **{name: len(one) for name, one in dataset.tests.items()}} == counts
    for (_, example_name), example in found.items():
        # The image says which mask is its own.
        digits = int(re.findall(r'\d+', example_name)[-1])
        if make not in JPEG:
            np.testing.assert_array_equal(example['image'], image_of(digits), err_msg=example_name)
        assert ((example['mask'] > 127) == (mask_of(digits) > 127)).mean() > 0.98, example_name


def test_patients_are_never_divided(tmp_path):
    patients(tmp_path / 'data')
    keys = {'data.images': '*/*.tif', 'data.masks': '*/*_mask.tif'}
    split_of = {}
    for seed in range(4):
        dataset = open_dataset(
            config_of('folder', tmp_path / 'data', **keys, **{'data.seed': seed, 'data.validation': 0.3})
        )
        parts = (('train', dataset.train), ('validation', dataset.validation), ('test', dataset.tests['test']))
        for split, examples in parts:
            for name in names_of(examples):
                assert split_of.setdefault((seed, name.split('/')[0]), split) == split
        assert len(split_of) == 6 * (seed + 1)
    tested = []
    for fold in range(3):
        config = config_of('folder', tmp_path / 'data', **keys, **{'data.fold': fold, 'data.folds': 3})
        tested.append({name.split('/')[0] for name in names_of(open_dataset(config).tests['test'])})
    assert sorted(map(len, tested)) == [2, 2, 2]
    assert len(set.union(*tested)) == 6


def test_lists_name_images_and_subfolders(tmp_path, prepared):
    root = tmp_path / 'data'
    put(root, 'images/p1/{}.png', 'masks/p1/{}.png', range(3))
    put(root, 'images/p2/{}.png', 'masks/p2/{}.png', range(3, 6))
    put(root, 'images/{}.png', 'masks/{}.png', range(6, 9))
    (root / 'test.txt').write_text('p2\n7.png\n')
    dataset = open_dataset(config_of('folder', root))
    assert names_of(dataset.tests['test']) == ['7', 'p2/3', 'p2/4', 'p2/5']
    (root / 'test.txt').write_text('p2/3.png\np2/4\np2/5\n')
    assert len(open_dataset(config_of('folder', root)).tests['test']) == 3
    (root / 'test.txt').write_text('p2/3\n')
    assert_refused(config_of('folder', root), prepared / 'none', 'test.txt', "name 'p2' once")


def test_a_split_of_folders_is_kept_and_no_other_beside_it(tmp_path, prepared):
    root = tmp_path / 'data'
    put(root, 'images/train/{}.png', 'masks/train/{}.png', range(6))
    put(root, 'images/test/p1/{}.png', 'masks/test/p1/{}.png', range(6, 9))
    dataset = open_dataset(config_of('folder', root, **{'data.validation': 2.0}))
    assert (len(dataset.train), len(dataset.validation), names_of(dataset.tests['test'])) == (4, 2, ['6', '7', '8'])
    assert_refused(config_of('folder', root, **{'data.fold': 0}), prepared / 'none', 'data.fold=0', 'train, test')
    (root / 'test.txt').write_text('6\n')
    assert_refused(config_of('folder', root), prepared / 'none', 'test.txt: lists a split')


def test_a_patient_named_test_is_no_split(tmp_path):
    root = tmp_path / 'data'
    for name in ('test1', 'train', 'x'):
        put(root, f'images/{name}/{{}}.png', f'masks/{name}/{{}}.png', range(3))
    assert len(open_dataset(config_of('folder', root)).manifest) == 9


def test_a_folder_that_all_images_share_is_no_group_and_it_is_said(tmp_path):
    put(tmp_path / 'data', 'images/patient1/{:02d}.png', 'masks/patient1/{:02d}.png', range(12))
    report = inspect(config_of('folder', tmp_path / 'data'))
    assert report['problems'] == []
    (line,) = report['warnings']
    assert 'all 12 images are in patient1' in line
    dataset = open_dataset(config_of('folder', tmp_path / 'data'))
    assert sorted(row['name'] for row in dataset.manifest) == [f'patient1/{number:02d}' for number in range(12)]


def test_subfolders_are_said(tmp_path):
    root = tmp_path / 'data'
    put(root, 'images/{:02d}.png', 'masks/{:02d}.png', range(6))
    put(root, 'images/patient2/{:02d}.png', 'masks/patient2/{:02d}.png', range(10, 14))
    report = inspect(config_of('folder', root))
    assert sum(split['images'] for split in report['splits'].values()) == 10
    assert any('4 of 10 images are in subfolders' in line and 'patient2 (4)' in line for line in report['warnings'])


@pytest.mark.parametrize('mask', ['{:02d}_segmentation', '{:02d}-label', 'mask_{:02d}'])
def test_a_suffix_that_all_masks_share_is_left_out_and_said_once(tmp_path, mask):
    put(tmp_path / 'data', 'images/{:02d}.png', f'masks/{mask}.png', range(6))
    report = inspect(config_of('folder', tmp_path / 'data'))
    assert report['problems'] == []
    (line,) = report['warnings']
    assert mask.replace('{:02d}', '*') in line
    (tmp_path / 'data/masks' / f'{mask.format(3)}.png').unlink()
    (line,) = inspect(config_of('folder', tmp_path / 'data'))['problems']
    assert 'images/03.png: no mask' in line


def test_hidden_files_are_none_of_the_set(tmp_path):
    root = tmp_path / '.cache' / 'data'
    make_folder(root)
    before = open_dataset(config_of('folder', root)).manifest_hash
    for kind in ('images', 'masks'):
        write(root / kind / '.ipynb_checkpoints/case1-checkpoint.png', image_of(1))
        (root / kind / '._case2.png').write_bytes(b'Mac')
    assert open_dataset(config_of('folder', root)).manifest_hash == before


def test_a_partner_of_a_kind_that_is_not_read_is_named(tmp_path, prepared):
    root = tmp_path / 'data'
    make_folder(root)
    (root / 'masks/case2.png').rename(root / 'masks/case2.psd')
    words = ['images/case2.png: no mask', 'masks/case2.psd has its name', 'not read']
    assert '\n' not in assert_refused(config_of('folder', root), prepared, *words)
    for path in (root / 'masks').glob('*.png'):
        path.rename(path.with_suffix('.mat'))
    report = inspect(config_of('folder', root))
    (line,) = report['problems']
    assert 'masks: no images found' in line
    assert '10 others, as case0.mat, are not read' in line


def test_gif_masks_are_read(tmp_path):
    put(tmp_path / 'data', 'images/{:02d}_training.tif', 'masks/{:02d}_training.gif', range(6))
    assert inspect(config_of('folder', tmp_path / 'data'))['problems'] == []
    for _, example in examples_of(open_dataset(config_of('folder', tmp_path / 'data'))).items():
        np.testing.assert_array_equal(example['mask'], mask_of(int(example['name'][:2])))


def test_links_are_followed(tmp_path):
    make_folder(tmp_path / 'store')
    (tmp_path / 'data').mkdir()
    for kind in ('images', 'masks'):
        (tmp_path / 'data' / kind).symlink_to(tmp_path / 'store' / kind)
    (tmp_path / 'store/images/again').symlink_to(tmp_path / 'store/images')
    report = inspect(config_of('folder', tmp_path / 'data'))
    assert report['problems'] == []
    (line,) = report['warnings']
    assert 'images/again: is a link to' in line
    direct = open_dataset(config_of('folder', tmp_path / 'store'))
    assert report['manifest_hash'] == direct.manifest_hash
    (tmp_path / 'store/masks/case2.png').unlink()
    (tmp_path / 'store/masks/case2.png').symlink_to('/nowhere/07.png')
    (line,) = inspect(config_of('folder', tmp_path / 'data'))['problems']
    assert 'masks/case2.png: is a link to /nowhere/07.png, which is not there' in line


def test_names_in_any_bytes_and_either_form_of_unicode(tmp_path):
    root, other = tmp_path / 'data', os.fsdecode(b'\xe9tude{}.png')
    put(root, unicodedata.normalize('NFD', 'images/Müller{}.png'), 'masks/Müller{}.png', range(3))
    try:
        put(root, f'images/{other}', f'masks/{other}', range(3, 6))
    except OSError:
        pytest.skip('this file system takes UTF-8 only')
    (root / 'test.txt').write_text(unicodedata.normalize('NFD', 'Müller1\n%E9tude4\n'))
    assert main(['', 'validate', f'--root={root}', f'--output={tmp_path / "look"}']) == 0
    dataset = open_dataset(config_of('folder', root))
    assert names_of(dataset.tests['test']) == ['Müller1', '%E9tude4']


def test_keys_where_the_dataset_has_a_layout_of_its_own(tmp_path, prepared):
    config = config_of('polyp', tmp_path, **{'data.images': 'x'})
    assert_refused(config, prepared, '--config.data.images=x: polyp has a layout of its own')


def test_patterns_without_a_root(tmp_path, monkeypatch):
    folder_an_image(tmp_path)
    monkeypatch.chdir(tmp_path)
    keys = {'data.images': '*/shot.png', 'data.masks': '*/shot_outline.png'}
    relative = open_dataset(config_of('folder', **keys))
    elsewhere = {key: f'{tmp_path}/{pattern}' for key, pattern in keys.items()}
    monkeypatch.chdir('/')
    assert open_dataset(config_of('folder', **elsewhere)).manifest_hash == relative.manifest_hash


# What is said where nothing pairs


def proposed(message):
    """Returns the keys that a message proposes."""
    found = re.search(r"--config\.data\.images=.*'", message)
    assert found, message
    return {word.removeprefix('--config.').partition('=')[0]: word.partition('=')[2] for word in shlex.split(found[0])}


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (drive, {'train': 5, 'test': 4}),
        (isic, None),
        (isic_2017, None),
        (clinic_db, None),
        (patients, None),
        (patients_with_folders, None),
        (folder_an_image, None),
        (lambda root: put(root, 'scans/s{}.png', 'scans/s{}_truth.png', range(6)), None),
        (lambda root: put(root, 'photos/a{}.jpg', 'labels/b{}.png', range(6)), None),
        (lambda root: put(root, 'a/images/{}.png', 'a/labels/{}.png', range(6)), None),
    ],
)
def test_a_pattern_is_proposed_that_works(tmp_path, prepared, make, expected):
    make(tmp_path / 'data')
    message = assert_refused(config_of('folder', tmp_path / 'data'), prepared, 'images and masks pair with')
    assert '\n' not in message
    config = config_of('folder', tmp_path / 'data', **proposed(message))
    source = module_of(config).find(config)
    assert source.problems == []
    for pair in itertools.chain(*source.splits.values()):
        assert set(np.unique(read_mask(pair.masks[0]))) == {0, 255}  # images are no masks
    if expected:
        assert {split: len(pairs) for split, pairs in source.splits.items()} == expected


def test_fields_of_view_are_no_truths(tmp_path, prepared):
    drive(tmp_path)
    message = assert_refused(config_of('folder', tmp_path / 'training'), prepared, 'holds both mask and 1st_manual')
    assert "--config.data.masks='1st_manual'" in message
    dataset = open_dataset(config_of('folder', tmp_path / 'training', **{'data.masks': '1st_manual'}))
    for _, example in examples_of(dataset).items():
        np.testing.assert_array_equal(example['mask'], mask_of(int(example['name'][:2])))


def test_names_that_nobody_can_pair_are_shown(tmp_path, prepared):
    put(tmp_path / 'data', 'images/day1_{}.png', 'masks/day2_{}.png', range(6))
    words = ['no image has the name of a mask', '6 images found (day1_0, day1_1, day1_2, …)', '6 masks (day2_0, ']
    message = assert_refused(config_of('folder', tmp_path / 'data'), prepared, *words)
    assert '\n' not in message
    (line,) = inspect(config_of('folder', tmp_path / 'data'))['problems']
    assert proposed(line) == {'data.images': 'images/day1_*.png', 'data.masks': 'masks/day2_*.png'}


def test_a_pattern_that_nothing_matches_shows_what_is_there(tmp_path, prepared):
    make_folder(tmp_path / 'data')
    config = config_of('folder', tmp_path / 'data', **{'data.masks': 'truth/*.png'})
    message = assert_refused(config, prepared, '--config.data.masks=truth/*.png: no image files', 'images/case0.png')
    assert proposed(message) == {'data.images': 'images/*.png', 'data.masks': 'masks/*.png'}


def test_one_pattern_for_both_is_refused(tmp_path, prepared):
    make_folder(tmp_path / 'data')
    keys = {'data.images': 'images/*.png', 'data.masks': 'images/*.png'}
    assert_refused(
        config_of('folder', tmp_path / 'data', **keys), prepared, 'images/*.png: named for the images and for the masks'
    )


def test_maps_of_a_split_of_folders_are_found_by_name(tmp_path, capsys):
    drive(tmp_path / 'DRIVE')
    for number in range(1, 5):
        write(tmp_path / f'maps/{number:02d}_test.png', mask_of(number))
    patterns = ['--config.data.images=*/images/*.tif', '--config.data.masks=*/1st_manual/*.gif']
    command = [
        '',
        'evaluate',
        f'--maps={tmp_path / "maps"}',
        '--config=folder',
        f'--root={tmp_path / "DRIVE"}',
        *patterns,
    ]
    assert main([*command, f'--output={tmp_path / "out"}', '--config.evaluate.bootstrap=10']) == 0
    assert re.search(r'Dice +1\.0000', capsys.readouterr().out)
