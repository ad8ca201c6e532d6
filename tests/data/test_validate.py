import csv
import hashlib
import html.parser
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_trees import config_of, image_of, make_pairs, mask_of, write

from m2snet_jax.commands.validate import main
from m2snet_jax.data.datasets import open_dataset


@pytest.fixture
def root(tmp_path):
    """A folder of twelve pairs without fault, four of them the test."""
    root = tmp_path / 'data'
    make_pairs(root / 'images', root / 'masks', [f'case{number:02d}' for number in range(12)])
    (root / 'test.txt').write_text('case08\ncase09\ncase10\ncase11\n')
    return root


def validate(capsys, *arguments):
    """Runs the command and returns (exit status, report, lines of the problems)."""
    status = main(['validate', *map(str, arguments), '--json'])
    report = json.loads(capsys.readouterr().out)
    return status, report, report['problems']


def busi_tree(root):
    for number, label in enumerate(('benign', 'malignant', 'normal') * 4):
        name = f'{label} ({number // 3 + 1})'
        write(root / label / f'{name}.png', image_of(number))
        write(root / label / f'{name}_mask.png', mask_of(number) * np.uint8(label != 'normal'))
    return root


# Clean


def test_clean_data(root, capsys, prepared):
    status, report, problems = validate(capsys, '--root', root)
    assert (status, problems, report['warnings'], report['near_duplicates']['pairs']) == (0, [], [], [])
    assert (report['dataset'], report['root']) == ('folder', str(root))
    train, test = report['splits']['train'], report['splits']['test']
    assert (train['images'], test['images']) == (8, 4)
    assert (train['height'], train['width'], train['masks']) == ([20, 20], [30, 30], {'0/255': 8})
    shares = [np.mean(mask_of(number) > 0) for number in range(8)]
    assert train['foreground'] == pytest.approx(np.mean(shares))
    lesion = sum(int(np.sum(mask_of(number) > 0)) for number in range(8))
    assert train['levels'] == {'0': 8 * 600 - lesion, '255': lesion}
    dataset = open_dataset(config_of('folder', root))
    assert report['manifest_hash'] == dataset.manifest_hash
    assert Path(report['manifest']).is_relative_to(prepared)
    content = Path(report['manifest']).read_bytes()
    assert hashlib.sha256(content).hexdigest() == report['manifest_hash']
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert [(row['split'], row['name']) for row in rows] == [
        ('test' if number > 7 else 'train', f'case{number:02d}') for number in range(12)
    ]
    assert not [path for path in root.rglob('*') if path.suffix == '.csv']


def test_the_table(root, capsys):
    assert main(['validate', f'--root={root}']) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == f'folder: {root}'
    assert lines[2].split()[:6] == ['split', 'images', 'published', 'width', 'height', 'masks']
    assert lines[3].split()[:6] == ['train', '8', '30', '20', '8', '0/255']
    assert '0 problems' in lines
    assert lines[-1].startswith('manifest ')


def test_phantoms_and_a_config_by_name(capsys):
    keys = ['--config.data.count=6', '--config.data.test_count=3', '--config.data.validation=0.5']
    status, report, problems = validate(capsys, '--config=quickstart', *keys)
    assert (status, problems) == (0, [])
    assert {split: summary['images'] for split, summary in report['splits'].items()} == {
        'train': 3, 'validation': 3, 'test': 3,
    }  # fmt: skip


# Problems


def remove_masks(root):
    (root / 'masks/case02.png').unlink()
    (root / 'masks/case05.png').unlink()
    return ['images/case02.png: no mask', 'images/case05.png: no mask']


def remove_image(root):
    (root / 'images/case09.png').unlink()
    return ['masks/case09.png: no image', "test.txt: no image is named 'case09'"]


def break_files(root):
    for path, length in (('images/case01.png', 300), ('masks/case10.png', 0)):
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[:length])
    return ['images/case01.png: cannot be read', 'masks/case10.png: cannot be read']


def resize(root):
    write(root / 'masks/case03.png', mask_of(3, 21, 30))
    return ['masks/case03.png: 30x21 pixels, but its image']


def unknown_values(root):
    write(root / 'masks/case04.png', mask_of(4) // 255 * np.uint8(3))
    return ['masks/case04.png: values 0, 3 found']


def link_nowhere(root):
    (root / 'images/case06.png').unlink()
    (root / 'images/case06.png').symlink_to(root.parent / 'outside.png')
    return ['images/case06.png: is a link to']


def double(root):
    write(root / 'images/case07.jpg', image_of(7))
    return ['images/case07.png: case07.jpg has the same name']


def both_lists(root):
    (root / 'train.txt').write_text('case00\ncase11\n')
    return ["test.txt: 'case11' is in train.txt as well"]


def only_empty_masks(root):
    for number in range(8):
        write(root / f'masks/case{number:02d}.png', np.zeros((20, 30), np.uint8))
    return ['train: the masks of all 8 images are empty']


def copy_across(root):
    shutil.copy(root / 'images/case11.png', root / 'images/case00.png')
    return ['images/case11.png (test): byte for byte the same image as']


def everything(root):
    return [line for fault in (link_nowhere, remove_masks, break_files, resize, unknown_values) for line in fault(root)]


@pytest.mark.parametrize(
    'fault',
    [
        remove_masks,
        remove_image,
        break_files,
        resize,
        unknown_values,
        link_nowhere,
        double,
        both_lists,
        only_empty_masks,
        copy_across,
        everything,
    ],
)
def test_every_problem_is_listed_and_names_its_file(root, capsys, prepared, fault):
    expected = fault(root)
    status, report, problems = validate(capsys, '--root', root)
    assert status == 1
    assert len(problems) == len(expected), problems
    for words in expected:
        assert sum(words in line for line in problems) == 1, (words, problems)
    assert all('\n' not in line for line in problems)
    usable = fault in (only_empty_masks, copy_across)
    assert (report['manifest_hash'] is not None) == usable
    assert bool(list(prepared.glob('*/*/1.0.0'))) == usable
    assert main(['validate', f'--root={root}']) == 1
    out = capsys.readouterr().out
    assert all(f'  {line}\n' in out for line in problems)


def test_identical_images_under_two_classes(tmp_path, capsys):
    root = busi_tree(tmp_path / 'data')
    shutil.copy(root / 'benign/benign (1).png', root / 'malignant/malignant (2).png')
    status, report, problems = validate(capsys, '--config=busi', '--root', root)
    assert status == 1
    (line,) = problems
    assert 'malignant (2).png' in line
    assert 'benign (1).png' in line
    (pair,) = report['near_duplicates']['pairs']
    assert (pair['identical'], pair['across_labels'], pair['correlation']) == (True, True, 1)
    assert {split: summary['images'] for split, summary in report['splits'].items()} == {
        'train': 6, 'test': 2, 'normal': 4,
    }  # fmt: skip


def test_identical_images_within_training_are_no_problem(root, capsys):
    shutil.copy(root / 'images/case01.png', root / 'images/case00.png')
    status, report, problems = validate(capsys, '--root', root)
    assert (status, problems) == (0, [])
    (pair,) = report['near_duplicates']['pairs']
    assert (pair['identical'], pair['across_split']) == (True, False)


def test_a_wrong_grey_value(tmp_path, capsys):
    root = tmp_path / 'data'
    for number in range(8):
        write(root / f'Image/{number}.png', image_of(number))
        write(root / f'Layer_Masks/{number}.png', np.array([0, 80, 160, 255], np.uint8)[image_of(number)[:, :, 0] % 4])
    status, report, problems = validate(capsys, '--config=goals', '--root', root)
    assert (status, problems) == (0, [])
    shares = report['splits']['train']['levels']
    assert list(shares) == ['0', '1', '2', '3']
    assert sum(shares.values()) == 8 * 600
    assert report['warnings'] == [f'{root}: 8 images with masks, 100 are published']
    write(root / 'Layer_Masks/5.png', np.full((20, 30), 100, np.uint8))
    status, _, problems = validate(capsys, '--config=goals', '--root', root)
    assert status == 1
    assert len(problems) == 1
    assert 'Layer_Masks/5.png: value 100 found' in problems[0]


# Warnings


def test_masks_that_are_not_clean_empty_or_full(root, capsys):
    soft = mask_of(1)
    soft[0, :3], soft[1, :6], soft[19, :12] = 5, 100, 250
    write(root / 'masks/case01.png', soft)
    write(root / 'masks/case02.png', np.zeros((20, 30), np.uint8))
    write(root / 'masks/case03.png', np.full((20, 30), 255, np.uint8))
    write(root / 'masks/case04.png', mask_of(4) // 255)
    status, report, problems = validate(capsys, '--root', root)
    assert (status, problems) == (0, [])
    train = report['splits']['train']
    assert train['masks'] == {'0/255': 6, 'not clean': 1, '0/1': 1}
    assert train['not_clean'] == {'case01': pytest.approx(21 / 600)}
    assert (train['empty'], train['full']) == (['case02'], ['case03'])
    assert (train['levels']['5'], train['levels']['100'], train['levels']['250']) == (3, 6, 12)
    unclean, full, empty = report['warnings']
    assert '0.06% at 1 to 15, 0.12% at 16 to 239, 0.25% at 240 to 254' in unclean
    assert "above half of its mask's highest level" in unclean
    assert unclean.endswith(': case01')
    assert full == 'train: 1 masks are full: case03'
    assert empty == 'train: 1 masks are empty: case02'


def near(number):
    return image_of(number, 64, 64) // 2 + np.uint8(40)


def test_near_duplicates_are_warnings_pair_by_pair(tmp_path, capsys):
    root, output = tmp_path / 'data', tmp_path / 'out'
    sources = {'a': 0, 'b': 0, 'c': 1, 'd': 2, 'e': 2, 'f': 2, '<g>': 3}
    for index, (name, number) in enumerate(sources.items()):
        write(root / f'images/{name}.png', near(number) + np.uint8(index))
        write(root / f'masks/{name}.png', mask_of(index, 64, 64))
    (root / 'test.txt').write_text('b\nf\nc\n')
    arguments = ['--root', root, '--output', output]
    status, report, problems = validate(capsys, *arguments)
    assert (status, problems) == (0, [])
    found = report['near_duplicates']
    assert {frozenset(pair['names']): pair['across_split'] for pair in found['pairs']} == {
        frozenset('ab'): True, frozenset('de'): False, frozenset('df'): True, frozenset('ef'): True,
    }  # fmt: skip
    assert (found['groups'], found['images'], found['largest_group'], found['across_split']) == (2, 5, 3, 3)
    assert found['near_training'] == {'test': 2}
    assert found['counts'] == [
        {'splits': ['train', 'test'], 'identical': 0, 'near': 3},
        {'splits': ['train', 'train'], 'identical': 0, 'near': 1},
    ]
    assert json.loads((output / 'validate.json').read_text()) == report
    main(['validate', *map(str, arguments)])
    out = capsys.readouterr().out
    assert 'a (train) and b (test): correlation 1.000, across the split' in out
    assert 'd (train) and e (train): correlation 1.000\n' in out
    assert '4 pairs of near-duplicates in 2 groups (5 images, the largest group 3); 3 pairs across the split' in out

    page = (output / 'duplicates.html').read_text()
    assert len(page) < 200_000
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    pictures = [attributes['src'] for tag, attributes in tags if tag == 'img']
    assert len(pictures) == 8
    assert all(picture.startswith('data:image/jpeg;base64,') for picture in pictures)
    assert not [tag for tag, _ in tags if tag in ('script', 'link')]
    assert [attributes.get('class') for tag, attributes in tags if tag == 'section'] == ['across'] * 3 + [None]

    # a is like b of the test, d and e like f: to leave out; of the others only <g> is trained on
    assert (output / 'near_duplicates.txt').read_text() == 'a\nd\ne\n'
    assert (output / 'control.txt').read_text() == '<g>\n'
    report = validate(capsys, '--root', root, f'--config.data.exclude={output}/near_duplicates.txt')[1]
    assert report['near_duplicates']['across_split'] == 0
    assert report['splits']['excluded']['images'] == 3


def test_of_many_near_duplicates_a_table_and_the_worst_are_printed(tmp_path, capsys):
    """Eight training and three test images of one picture; two of each are the same file."""
    root = tmp_path / 'data'
    for index in range(11):
        write(root / f'images/case{index:02d}.png', near(0) + np.uint8(index))
        write(root / f'masks/case{index:02d}.png', mask_of(index, 64, 64))
    for index in (1, 8, 9):
        shutil.copy(root / 'images/case00.png', root / f'images/case{index:02d}.png')
    (root / 'test.txt').write_text('case08\ncase09\ncase10\n')
    status, report, problems = validate(capsys, '--root', root)
    assert (status, len(problems)) == (1, 4)
    assert report['near_duplicates']['counts'] == [
        {'splits': ['train', 'test'], 'identical': 4, 'near': 20},
        {'splits': ['train', 'train'], 'identical': 1, 'near': 27},
        {'splits': ['test', 'test'], 'identical': 1, 'near': 2},
    ]
    assert len(report['near_duplicates']['pairs']) == 55  # all of them
    assert main(['validate', f'--root={root}']) == 1
    lines = capsys.readouterr().out.splitlines()
    start = lines.index('55 pairs of near-duplicates')
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ['splits', 'identical', 'near'], ['train', 'and', 'test', '4', '20'], ['train', '1', '27'], ['test', '1', '2'],
    ]  # fmt: skip
    end = lines.index('all 55 pairs: --json, or --output=DIR for validate.json and duplicates.html')
    sections = '\n'.join(lines[start + 6 : end - 1]).split('\n\n')
    kinds = {title: pairs for title, *pairs in (section.splitlines() for section in sections)}
    assert {title: len(pairs) for title, pairs in kinds.items()} == {
        'identical, in two splits': 4,
        'near, in two splits: the first 5 of 20': 5,
        'in one split: the first 5 of 31': 5,
    }
    assert all('byte for byte' in line for line in kinds['identical, in two splits'])
    assert not any('byte for byte' in line for line in kinds['near, in two splits: the first 5 of 20'])


def test_counts_that_differ_from_the_published_ones(tmp_path, capsys):
    for index, folder in enumerate(('TrainDataset', 'TestDataset/Kvasir', 'TestDataset/CVC-300')):
        for number in range(2):
            write(tmp_path / folder / f'images/{number}.png', image_of(2 * index + number))
            write(tmp_path / folder / f'masks/{number}.png', mask_of(number))
    status, report, problems = validate(capsys, '--config=kvasir', '--root', tmp_path)
    assert (status, problems) == (0, [])
    assert report['splits']['train']['published'] == 1450
    assert f'{tmp_path}: 2 images in train, 1450 are published' in report['warnings']
    assert f'{tmp_path}: test set CVC-ClinicDB (62 images) is missing and left out' in report['warnings']


# Nothing to look at


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--root=/nowhere/at/all'], '/nowhere/at/all: no such folder'),
        (['--config=nothing'], '--config=nothing: no such file'),
        (['--root=.', '--config.data.clases=2'], 'did you mean data.classes'),
        (['--root=.', 'word'], 'word: not understood'),
    ],
)
def test_unusable(arguments, words, capsys):
    assert main(['validate', *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith('error: ')
    assert words in captured.err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['validate', '--help'])
    assert caught.value.code == 0
    assert '--output' in capsys.readouterr().out
