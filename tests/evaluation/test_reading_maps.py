"""`evaluate` on maps and masks of every container, and what it refuses."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from m2snet_jax.__main__ import main


def blob(number):
    y, x = np.mgrid[:24, :30]
    return (y - 10 - number) ** 2 + (x - 12) ** 2 < 30


def found(number):
    return np.roll(blob(number), 2, 1)


@pytest.fixture
def top(tmp_path):
    for folder in ('maps', 'masks'):
        (tmp_path / folder).mkdir()
    for number in range(3):
        Image.fromarray(blob(number) * np.uint8(255)).save(tmp_path / f'masks/{number}.png')
    return tmp_path


def evaluate(top, *arguments):
    keys = ['--config.evaluate.bootstrap=0', f'--output={top}/sheets']
    status = main(['', 'evaluate', f'--maps={top}/maps', f'--masks={top}/masks', *keys, *arguments])
    sheet = top / 'sheets/scores/summary.json'
    return status, json.loads(sheet.read_text()) if sheet.exists() else None


def dice(number):
    return 2 * np.sum(blob(number) & found(number)) / np.sum(blob(number) * 1 + found(number) * 1)


WRITERS = {
    'shares': lambda number, folder: tifffile.imwrite(folder / f'{number}.tif', found(number) * np.float32(0.8) + 0.1),
    'npy': lambda number, folder: np.save(folder / f'{number}.npy', found(number) * np.float32(0.8) + 0.1),
    '0/1': lambda number, folder: Image.fromarray(found(number).astype(np.uint8)).save(folder / f'{number}.png'),
    'gif': lambda number, folder: Image.fromarray(found(number) * np.uint8(255)).save(folder / f'{number}.gif'),
}


@pytest.mark.parametrize('kind', WRITERS)
def test_maps_of_other_programs(top, capsys, kind):
    for number in range(3):
        WRITERS[kind](number, top / 'maps')
    status, sheet = evaluate(top)
    assert status == 0
    assert sheet['scores']['test/hard/Dice'] == pytest.approx(np.mean([dice(number) for number in range(3)]))
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith('note: ')]
    assert len(notes) == (kind != 'gif')
    assert [f'note: {line}' for line in sheet['warnings']] == notes


def test_class_indices_where_a_binary_mask_is_expected(top, capsys):
    for number in range(3):
        WRITERS['gif'](number, top / 'maps')
        Image.fromarray(blob(number) * np.uint8(1) + found(number)).save(top / f'masks/{number}.png')
    status, sheet = evaluate(top)
    assert (status, sheet) == (2, None)
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'masks/0.png: values 0, 1, 2 found' in error
    assert error.endswith('(2 more)')


def test_masks_in_several_colours(top, capsys):
    WRITERS['gif'](0, top / 'maps')
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for number in range(3):
        Image.fromarray(colours[blob(number) * 1 + found(number)]).save(top / f'masks/{number}.png')
    assert evaluate(top)[0] == 2
    assert "--config.data.colors=\"('000000'" in capsys.readouterr().err


def test_volumes_that_predict_writes_are_scored(top, capsys):
    nibabel = pytest.importorskip('nibabel', reason='an optional requirement: pip install .[clinic]')
    affine = np.diag([-1, -1, 3, 1])
    lesion = np.stack([blob(number).T for number in range(3)], -1)
    mark = np.stack([found(number).T for number in range(3)], -1)
    for path in (top / 'masks').iterdir():
        path.unlink()
    nibabel.save(nibabel.Nifti1Image(lesion.astype(np.int16), affine), top / 'masks/p.nii.gz')
    nibabel.save(nibabel.Nifti1Image(mark.astype(np.uint8), affine), top / 'maps/p.nii.gz')
    (top / 'maps/model.json').write_text('{"raw": "npy"}')
    status, sheet = evaluate(top)
    assert status == 0
    expected = np.mean([dice(number) for number in range(3)])
    assert sheet['scores']['test/hard/Dice'] == pytest.approx(expected)
    raw = mark * np.float32(0.4) + np.float32(0.4)
    nibabel.save(nibabel.Nifti1Image(raw, affine), top / 'maps/p_raw.nii.gz')
    _, sheet = evaluate(top)
    assert sheet['scores']['test/hard/Dice'] == pytest.approx(expected)
    assert sheet['scores']['test/hard/MAE'] == pytest.approx(np.abs(np.rint(raw * 255) / 255 - lesion).mean())
    nibabel.save(nibabel.Nifti1Image(raw, np.diag([-1, -1, 4, 1])), top / 'maps/p_raw.nii.gz')
    assert evaluate(top)[0] == 2
    assert 'lies elsewhere in space' in capsys.readouterr().err


def test_a_file_of_all_classes(top):
    indices = [np.where(blob(number), 1, np.where(found(number), 2, 0)).astype(np.uint8) for number in range(3)]
    for number, one in enumerate(indices):
        Image.fromarray(one).save(top / f'masks/{number}.png')
        shares = np.stack([one == 1, one == 2], -1) * np.float32(0.6) + 0.2
        np.save(top / f'maps/{number}.npy', shares)
    status, sheet = evaluate(top, '--config.data.classes=2')
    assert status == 0
    assert sheet['scores']['test/hard/Dice'] == 1
