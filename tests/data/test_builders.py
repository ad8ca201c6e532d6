import hashlib
import shutil

import numpy as np
import pytest
from data_trees import assert_refused, config_of, image_of, make_pairs, mask_of, names_of, write
from PIL import Image

from m2snet_jax.config import load_config
from m2snet_jax.data.augment import train_example
from m2snet_jax.data.datasets import open_dataset

# Video polyps

FRAMES = ['1', '2', '3']
CLIPS = {'CVC-ColonDB-300': ['2', '5'], 'CVC-ClinicDB-612-Valid': ['4'], 'CVC-ClinicDB-612-Test': ['0', '6', '7']}


def make_videos(top, doubled=False, stills=False, ending='.jpg'):
    train, test = (top / half / half if doubled else top / half for half in ('VPS-TrainSet', 'VPS-TestSet'))
    for video_set, clips in (('CVC-ClinicDB-612', ['1', '10']), ('CVC-ColonDB-300', ['1']), ('ASU-Mayo_Clinic', ['9'])):
        for clip in clips:
            folder = train / video_set / 'Train' / clip
            make_pairs(folder / 'Frame', folder / 'GT', FRAMES, ending)
    for video_set, clips in CLIPS.items():
        for clip in clips:
            make_pairs(test / video_set / 'Frame' / clip, test / video_set / 'GT' / clip, FRAMES, ending)
    if stills:
        make_pairs(top / 'IVPS-TrainSet/Frame', top / 'IVPS-TrainSet/GT', ['K1', 'K2'], ending)


@pytest.mark.parametrize('layout', [{}, {'doubled': True}, {'stills': True, 'ending': '.png'}])
@pytest.mark.parametrize('inside', [False, True])
def test_video_layouts(tmp_path, layout, inside, caplog):
    make_videos(tmp_path / 'data/VPS' if inside else tmp_path / 'data', **layout)
    dataset = open_dataset(config_of('video_polyp', tmp_path / 'data'))
    assert names_of(dataset.train) == [
        f'{clip}/{frame}'
        for clip in ('CVC-ClinicDB-612/1', 'CVC-ClinicDB-612/10', 'CVC-ColonDB-300/1')
        for frame in FRAMES
    ]
    assert {name: names_of(examples) for name, examples in dataset.tests.items()} == {
        'CVC-300-TV': [f'{clip}/{frame}' for clip in ('2', '5') for frame in FRAMES],
        'CVC-612-V': [f'4/{frame}' for frame in FRAMES],
        'CVC-612-T': [f'{clip}/{frame}' for clip in ('0', '6', '7') for frame in FRAMES],
    }
    np.testing.assert_array_equal(dataset.train[4]['mask'], mask_of(1))
    assert 'ASU-Mayo_Clinic: left out' in caplog.text
    assert ('IVPS-TrainSet: left out' in caplog.text) == ('stills' in layout)


def test_videos_of_stills_alone(tmp_path):
    make_videos(tmp_path / 'data', stills=True)
    shutil.rmtree(tmp_path / 'data/VPS-TrainSet')
    assert names_of(open_dataset(config_of('video_polyp', tmp_path / 'data')).train) == ['K1', 'K2']


def test_validation_keeps_clips_together(tmp_path):
    make_videos(tmp_path / 'data')
    dataset = open_dataset(config_of('video_polyp', tmp_path / 'data', **{'data.validation': 0.3}))
    (clip,) = {name.rpartition('/')[0] for name in names_of(dataset.validation)}
    assert (len(dataset.validation), len(dataset.train)) == (3, 6)
    assert not any(name.startswith(f'{clip}/') for name in names_of(dataset.train))
    assert [row['split'] for row in dataset.manifest].count('validation') == 3


def remove_video_mask(root):
    (root / 'VPS-TestSet/CVC-ClinicDB-612-Test/GT/6/2.png').unlink()


def remove_video_clip(root):
    shutil.rmtree(root / 'VPS-TestSet/CVC-ClinicDB-612-Test/GT/6')


def remove_video_frames(root):
    shutil.rmtree(root / 'VPS-TrainSet/CVC-ColonDB-300/Train/1/Frame')


def remove_video_tests(root):
    shutil.rmtree(root / 'VPS-TestSet')


def remove_video_training(root):
    shutil.rmtree(root / 'VPS-TrainSet')


def truncate_frame(root):
    path = root / 'VPS-TrainSet/CVC-ColonDB-300/Train/1/Frame/3.jpg'
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        (remove_video_mask, ["6/2.jpg: no mask named '2'"]),
        (remove_video_clip, ["Frame/6: no clip '6'"]),
        (remove_video_frames, ['Train/1: no folder Frame', '1GjYKjyIrQciyii09GEwyLbck2DauV_rw']),
        (remove_video_tests, ['none of the test sets']),
        (remove_video_training, ['VPS-TrainSet is missing']),
        (truncate_frame, ['Frame/3.jpg: cannot be read']),
    ],
)
def test_bad_videos(tmp_path, prepared, fault, words):
    make_videos(tmp_path / 'data')
    fault(tmp_path / 'data')
    assert_refused(config_of('video_polyp', tmp_path / 'data'), prepared, *words)


# COVID-19


def make_slices(top, doubled=False, images='images', masks='masks', halves=('train', 'test')):
    for half, names in zip(halves, (['a', 'b', 'c'], ['d', 'e']), strict=True):
        folder = top / half / half if doubled else top / half
        make_pairs(folder / images, folder / masks, names, '.jpg')


@pytest.mark.parametrize(
    'layout', [{}, {'doubled': True}, {'images': 'image', 'masks': 'mask'}, {'halves': ('Train', 'Test')}]
)
@pytest.mark.parametrize('inside', ['', 'COVID', 'COVID/COVID'])
def test_covid_layouts(tmp_path, layout, inside, caplog):
    make_slices(tmp_path / 'data' / inside, **layout)
    dataset = open_dataset(config_of('covid19', tmp_path / 'data'))
    assert names_of(dataset.train) == ['a', 'b', 'c']
    assert {name: names_of(examples) for name, examples in dataset.tests.items()} == {'test': ['d', 'e']}
    np.testing.assert_array_equal(dataset.tests['test'][1]['mask'], mask_of(1))
    assert '3 images in train, 894 are published' in caplog.text
    assert '2 images in test, 383 are published' in caplog.text


def test_covid_with_empty_masks(tmp_path):
    make_slices(tmp_path)
    write(tmp_path / 'train/masks/b.png', np.zeros((20, 30), np.uint8))
    dataset = open_dataset(config_of('covid19', tmp_path))
    assert dataset.train[1]['mask'].max() == 0
    assert float(dataset.manifest[1]['foreground']) == 0


def test_bad_covid(tmp_path, prepared):
    make_slices(tmp_path / 'half')
    shutil.rmtree(tmp_path / 'half/test')
    assert_refused(config_of('covid19', tmp_path / 'half'), prepared, 'not the expected tree', '1FHx0Cqkq9iYjE')
    make_slices(tmp_path / 'pair')
    (tmp_path / 'pair/train/images/b.jpg').unlink()
    assert_refused(config_of('covid19', tmp_path / 'pair'), prepared, 'masks/b.png: no image')
    make_slices(tmp_path / 'size')
    write(tmp_path / 'size/test/masks/e.png', mask_of(1, 20, 31))
    assert_refused(config_of('covid19', tmp_path / 'size'), prepared, 'masks/e.png: 31x20', '30x20')
    make_slices(tmp_path / 'empty')
    for path in (tmp_path / 'empty/test').glob('*/*'):
        path.unlink()
    assert_refused(config_of('covid19', tmp_path / 'empty'), prepared, 'test/images: no images found')
    assert_refused(config_of('covid19', tmp_path / 'size', **{'data.classes': 2}), prepared, 'data.classes=2')


# BUSI


def make_busi(top, benign=9, malignant=5, normal=3):
    start = 0
    for label, count in (('benign', benign), ('malignant', malignant), ('normal', normal)):
        for number in range(1, count + 1):
            name = f'{label} ({number})'
            write(top / label / f'{name}.png', image_of(start + number))
            mask = np.zeros((20, 30), np.uint8) if label == 'normal' else mask_of(number)
            Image.fromarray(mask).convert('RGB' if label == 'normal' else '1').save(top / label / f'{name}_mask.png')
        start += 100
    second = np.zeros((20, 30), np.uint8)
    second[15:18, 3:9] = 255
    write(top / 'benign/benign (2)_mask_1.png', np.dstack([second] * 3 + [np.full_like(second, 255)]))
    return second


def busi_config(root, **keys):
    return load_config('busi', **{'data.root': str(root), **keys})


@pytest.mark.parametrize('inside', ['', 'Dataset_BUSI_with_GT', 'Dataset_BUSI_with_GT/Dataset_BUSI_with_GT'])
def test_busi_in_folds(tmp_path, inside, caplog):
    top = tmp_path / 'data' / inside
    second = make_busi(top)
    tested, hashes = [], set()
    for fold in range(4):
        dataset = open_dataset(busi_config(tmp_path / 'data', **{'data.fold': fold}))
        train, test = set(names_of(dataset.train)), set(names_of(dataset.tests['test']))
        assert list(dataset.tests) == ['test', 'normal']
        assert names_of(dataset.tests['normal']) == ['normal (1)', 'normal (2)', 'normal (3)']
        assert not train & test
        assert len(train | test) == 14
        assert not any(name.startswith('normal') for name in train | test)
        assert sum(name.startswith('benign') for name in test) in (2, 3)
        assert sum(name.startswith('malignant') for name in test) in (1, 2)
        tested += test
        hashes.add(dataset.manifest_hash)
        for examples in (dataset.train, dataset.tests['test']):
            for index in range(len(examples)):
                number = int(examples[index]['name'].partition('(')[2][:-1])
                expected = mask_of(number)
                if examples[index]['name'] == 'benign (2)':
                    expected = np.maximum(expected, second)
                np.testing.assert_array_equal(examples[index]['mask'], expected)
    assert len(tested) == len(set(tested)) == 14  # every image is tested once
    assert len(hashes) == 4
    assert '9 benign images, 437 are published' in caplog.text
    row = next(row for row in dataset.manifest if row['name'] == 'benign (2)')
    paths = [top / 'benign' / f'benign (2)_mask{end}.png' for end in ('', '_1')]
    content = b''.join(path.read_bytes() for path in paths)
    assert row['mask_sha256'] == hashlib.sha256(content).hexdigest()


def test_busi_folds_depend_on_the_data_seed_alone(tmp_path):
    make_busi(tmp_path, 40, 20)

    def test_names(**keys):
        return names_of(open_dataset(busi_config(tmp_path, **keys)).tests['test'])

    assert test_names(seed=5) == test_names()
    assert test_names(**{'data.seed': 1}) != test_names()
    assert len(test_names(**{'data.folds': 3})) == 20


def test_busi_with_a_table_of_folds(tmp_path):
    root = tmp_path / 'data'
    make_busi(root, 4, 4)
    names = [f'{label} ({number})' for label in ('benign', 'malignant') for number in range(1, 5)]
    table = 'name,fold\n' + ''.join(f'{name},{index % 4}\n' for index, name in enumerate(names))
    (tmp_path / 'own.csv').write_text(table)
    given = busi_config(root, **{'data.folds_file': str(tmp_path / 'own.csv'), 'data.fold': 1})
    assert names_of(open_dataset(given).tests['test']) == ['benign (2)', 'malignant (2)']
    (root / 'folds.csv').write_text(table.replace('benign (1),0', 'benign (1),1'))
    beside = open_dataset(busi_config(root, **{'data.fold': 1}))
    assert names_of(beside.tests['test']) == ['benign (1)', 'benign (2)', 'malignant (2)']
    assert names_of(open_dataset(given).tests['test']) == ['benign (2)', 'malignant (2)']


def test_busi_without_a_fold_trains_on_all(tmp_path):
    make_busi(tmp_path)
    dataset = open_dataset(busi_config(tmp_path, **{'data.fold': None}))
    assert (len(dataset.train), list(dataset.tests)) == (14, ['normal'])
    shutil.rmtree(tmp_path / 'normal')
    assert open_dataset(busi_config(tmp_path, **{'data.fold': None})).tests == {}


def remove_busi_mask(root):
    (root / 'malignant/malignant (3)_mask.png').unlink()


def remove_busi_image(root):
    (root / 'benign/benign (2).png').unlink()


def resize_second_mask(root):
    write(root / 'benign/benign (2)_mask_1.png', mask_of(1, 21, 30))


def grey_mask(root):
    write(root / 'benign/benign (3)_mask.png', mask_of(1) // 255 * np.uint8(7))


def truncate_normal(root):
    path = root / 'normal/normal (1).png'
    path.write_bytes(path.read_bytes()[:300])


def fold_of_unknown(root):
    (root / 'folds.csv').write_text('name,fold\nbenign (77),0\n')


def fold_of_few(root):
    (root / 'folds.csv').write_text('name,fold\nbenign (1),0\n')


def fold_of_no_number(root):
    names = [
        f'{label} ({number})' for label, count in (('benign', 9), ('malignant', 5)) for number in range(1, count + 1)
    ]
    (root / 'folds.csv').write_text('name,fold\n' + ''.join(f'{name},{len(name) % 4}\n' for name in names))
    text = (root / 'folds.csv').read_text()
    (root / 'folds.csv').write_text(text.replace('benign (5),2', 'benign (5),4'))


def folds_without_columns(root):
    (root / 'folds.csv').write_text('benign (1),0\n')


@pytest.mark.parametrize(
    ('fault', 'keys', 'words'),
    [
        (remove_busi_mask, {}, ["malignant (3).png: no mask named 'malignant (3)_mask'"]),
        (remove_busi_image, {}, ["benign (2)_mask.png: no image named 'benign (2)'", '1 more']),
        (resize_second_mask, {}, ['benign (2)_mask_1.png: 30x21', '30x20']),
        (grey_mask, {}, ['benign (3)_mask.png: values 0, 7']),
        (truncate_normal, {}, ['normal (1).png: cannot be read']),
        (fold_of_unknown, {}, ["folds.csv: no image is named 'benign (77)'"]),
        (fold_of_few, {}, ["folds.csv: 'benign (2)' is missing"]),
        (fold_of_no_number, {}, ["folds.csv: 'benign (5)' has fold '4'"]),
        (folds_without_columns, {}, ['folds.csv: the first line must name']),
        (None, {'data.fold': 4}, ['data.fold=4', 'folds 0 to 3']),
        (None, {'data.folds': 1}, ['data.folds=1', 'at least 2']),
        (None, {'data.folds_file': 'no.csv'}, ['no.csv: cannot be read']),
        (None, {'data.folds_file': 'no.csv', 'data.group_duplicates': True}, ['data.folds_file=no.csv', 'unset one']),
        (None, {'data.classes': 2}, ['data.classes=2']),
    ],
)
def test_bad_busi(tmp_path, prepared, fault, keys, words):
    make_busi(tmp_path / 'data')
    if fault:
        fault(tmp_path / 'data')
    assert_refused(busi_config(tmp_path / 'data', **keys), prepared, *words)


# GOALS

GREYS = {0: 1, 80: 2, 160: 3, 255: 0}


def goals_mask(number):
    return np.array([0, 80, 160, 255], np.uint8)[image_of(number)[:, :, 0] % 4]


def make_goals(top, count=8):
    for number in range(count):
        write(top / f'Image/{number:04d}.png', image_of(number))
        write(top / f'Layer_Masks/{number:04d}.png', goals_mask(number))


def goals_config(root, **keys):
    return load_config('goals', **{'data.root': str(root), **keys})


@pytest.mark.parametrize('inside', ['', 'Train', 'Train/Train'])
def test_goals(tmp_path, inside, caplog):
    make_goals(tmp_path / 'data' / inside)
    (tmp_path / 'data/Validation/Image').mkdir(parents=True)
    dataset = open_dataset(goals_config(tmp_path / 'data'))
    assert dataset.tests == {}
    assert names_of(dataset.train) == [f'{number:04d}' for number in range(8)]
    for number in range(8):
        example = dataset.train[number]
        for grey, index in GREYS.items():
            np.testing.assert_array_equal(example['mask'] == index, goals_mask(number) == grey)
    masks = train_example(example['image'], example['mask'], 20, 3, np.random.default_rng(0))[1]
    assert masks.shape == (20, 20, 3)
    assert float(dataset.manifest[0]['foreground']) == pytest.approx(np.mean(goals_mask(0) < 255), abs=1e-6)
    assert '8 images with masks, 100 are published' in caplog.text


def test_goals_in_folds(tmp_path):
    make_goals(tmp_path)
    dataset = open_dataset(goals_config(tmp_path, **{'data.fold': 2}))
    assert (len(dataset.train), len(dataset.tests['test'])) == (6, 2)


def test_bad_goals(tmp_path, prepared):
    assert_refused(load_config('goals'), prepared, 'data.root is not set', 'registration needed')
    make_goals(tmp_path / 'data')
    assert_refused(goals_config(tmp_path / 'data', **{'data.classes': 1}), prepared, 'data.classes=1', 'three classes')
    wrong = goals_mask(3)
    wrong[4, 5] = 81
    write(tmp_path / 'data/Layer_Masks/0003.png', wrong)
    message = assert_refused(goals_config(tmp_path / 'data'), prepared, '0003.png: value 81', '0, 80, 160, 255')
    assert '\n' not in message


# Configs


@pytest.mark.parametrize(
    ('name', 'epochs', 'small_epochs'),
    [('video_polyp', 50, 12), ('covid19', 200, 8), ('busi', 100, 14), ('goals', 100, 70)],
)
def test_configs(name, epochs, small_epochs):
    released, paper, small = (load_config(f'{name}{variant}') for variant in ('', ':paper', ':small'))
    assert {config.data.name for config in (released, paper, small)} == {name}
    assert (released.epochs, paper.epochs, small.epochs) == (epochs, epochs, small_epochs)
    assert (released.loss.bce, paper.loss.bce, small.loss.bce) == ('mean', 'weighted', 'mean')
    assert (small.data.size, small.data.sizes, small.batch, small.loss.lossnet) == (128, (96, 112, 128), 8, 0)
    assert small.optimizer.peak_lr == (0.02 if name == 'busi' else 0.05)
    assert {config.data.classes for config in (released, paper, small)} == {3 if name == 'goals' else 1}
