"""The command `measure`: masks of any origin, and their comparison with a reference."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from m2snet_jax.__main__ import main
from m2snet_jax.measurement.agreement import bland_altman, compare_findings
from m2snet_jax.measurement.findings import find_lesions


def save(folder, name, *boxes):
    """Writes a mask of 40x60 with boxes (top, left, height, width)."""
    folder.mkdir(exist_ok=True)
    mask = np.zeros((40, 60), np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    Image.fromarray(mask).save(folder / name)


def rows_of(path):
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith('#')))


@pytest.fixture
def folders(tmp_path):
    masks, reference = tmp_path / 'masks', tmp_path / 'reference'
    save(masks, 'a.png', (2, 2, 10, 10), (30, 40, 5, 5))
    save(reference, 'a.png', (2, 2, 10, 12), (20, 5, 4, 4))
    save(masks, 'b.png', (5, 5, 10, 10))
    save(reference, 'b.png', (5, 5, 10, 10))
    return masks, reference


def test_masks_are_measured(folders, tmp_path, capsys):
    path = tmp_path / 'findings.json'
    assert main(['', 'measure', f'--masks={folders[0]}', f'--table={path}', '--smallest=30']) == 0
    table = json.loads(path.read_text())
    assert (table['about']['images'], table['about']['lesions']) == (2, 2)
    assert [(row['image'], row['area_px']) for row in table['lesions']] == [('a', 100), ('b', 100)]
    assert 'smaller lesions are left out' in table['about']['smallest']
    capsys.readouterr()
    assert main(['', 'measure', f'--masks={folders[0]}']) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if not line.startswith('#')]) == 4


def test_masks_are_compared(folders, tmp_path, capsys):
    masks, reference = folders
    save(masks, 'alone.png', (1, 1, 2, 2))
    output = tmp_path / 'agreement'
    assert main(['', 'measure', f'--masks={masks}', f'--reference={reference}', f'--output={output}']) == 1
    out, err = capsys.readouterr()
    assert out.startswith('2 found, 1 missed, 1 invented lesions in 2 images')
    assert 'area_px: mean difference -10, limits of agreement -37.72 to 17.72' in out  # -20 and 0
    assert 'alone: has no mask in --reference' in err
    rows = rows_of(output / 'agreement.csv')
    assert [(row['image'], row['outcome']) for row in rows] == [
        ('a', 'found'),
        ('a', 'missed'),
        ('a', 'invented'),
        ('b', 'found'),
    ]
    assert float(rows[0]['overlap']) == pytest.approx(100 / 120, abs=1e-4)
    page = (output / 'agreement.html').read_text()
    assert 'invented' in page
    assert '<svg' in page
    assert '-10' in page


def cut(path):
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('side', [0, 1])
def test_an_unreadable_mask_is_named_and_is_not_said_to_be_missing(folders, tmp_path, capsys, side):
    cut(folders[side] / 'b.png')
    output = tmp_path / 'agreement'
    flags = [f'--masks={folders[0]}', f'--reference={folders[1]}', f'--output={output}']
    assert main(['', 'measure', *flags]) == 1
    out, err = capsys.readouterr()
    assert out.startswith('1 found, 1 missed, 1 invented lesions in 1 images')
    (error,) = [line for line in err.splitlines() if line.startswith('error')]
    assert error.startswith(f'error: {folders[side]}/b.png: cannot be read')
    assert f'Not compared: {folders[side]}/b.png: cannot be read' in (output / 'agreement.html').read_text()
    assert f'# left out: {folders[side]}/b.png: cannot be read' in (output / 'agreement.csv').read_text()


@pytest.mark.parametrize('side', [0, 1])
def test_where_no_mask_can_be_read_the_error_names_one(folders, tmp_path, capsys, side):
    for name in 'ab':
        cut(folders[side] / f'{name}.png')
    flags = [f'--masks={folders[0]}', f'--reference={folders[1]}', f'--output={tmp_path / "agreement"}']
    assert main(['', 'measure', *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: {folders[side]}/a.png: cannot be read')
    assert error.endswith('(1 more)')
    assert not (tmp_path / 'agreement').exists()


def test_pairs_are_one_to_one_and_need_the_overlap():
    mine, other = np.zeros((10, 30, 1), bool), np.zeros((10, 30, 1), bool)
    other[2:6, 2:22] = True
    mine[2:6, 2:15] = mine[2:6, 16:22] = True  # overlaps 13/20 and 6/20
    found, reference = find_lesions('x', mine), find_lesions('x', other)
    agreement = compare_findings(found, reference)
    assert [agreement.count(outcome) for outcome in ('found', 'missed', 'invented')] == [1, 0, 1]
    assert agreement.rows[0]['overlap'] == pytest.approx(0.65)
    agreement = compare_findings(found, reference, overlap=0.7)
    assert [agreement.count(outcome) for outcome in ('found', 'missed', 'invented')] == [0, 1, 2]
    assert agreement.differences == []


def test_overlaps_that_are_too_small_displace_no_pair():
    mine, other = np.zeros((3, 130, 1), bool), np.zeros((3, 130, 1), bool)
    mine[1, :100] = mine[1, 101:113] = True
    other[1, :40] = other[1, 41:113] = True
    # Overlaps 40/100 and 59/113 of the first lesion, 0 and 12/72 of the second: .400 + .167 is more than .522.
    agreement = compare_findings(find_lesions('x', mine), find_lesions('x', other))
    assert [agreement.count(outcome) for outcome in ('found', 'missed', 'invented')] == [1, 1, 1]
    assert agreement.rows[0]['overlap'] == pytest.approx(59 / 113)


def test_limits_of_agreement_are_those_of_bland_and_altman():
    rows = [{'mask_area_px': mine, 'reference_area_px': other} for mine, other in ((12, 10), (20, 20), (33, 29))]
    difference = bland_altman('area_px', rows)
    assert (difference.bias, difference.high) == pytest.approx((2, 2 + 1.96 * 2))
    assert difference.means == [11, 20, 31]
    assert bland_altman('area_px', rows[:1]).low is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--masks is missing'),
        (['--masks=nowhere'], 'nowhere'),
        (['--masks=.', '--output=x'], '--reference'),
        (['--masks=.', '--threshold=0'], '--threshold=0'),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(['', 'measure', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
