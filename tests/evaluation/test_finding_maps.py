"""The command `evaluate`: finding maps, masks and images by folder, pattern and name."""

import json
import os

import numpy as np
import pytest
from data_trees import image_of, mask_of, write

from m2snet_jax.__main__ import main


def put(folder, name, count=4):
    for number in range(count):
        write(folder / name.format(number), mask_of(number))


def evaluate(tmp_path, capsys, maps, masks, *arguments):
    """Runs the command on folders or patterns below `tmp_path`; returns (status, sheet or None, stderr)."""
    output = tmp_path / 'output'
    paths = [f'--maps={tmp_path}/{maps}', f'--masks={tmp_path}/{masks}', f'--output={output}']
    status = main(['', 'evaluate', *paths, '--config.evaluate.bootstrap=10', *arguments])
    path = output / 'scores/summary.json'
    return status, json.loads(path.read_text()) if path.exists() else None, capsys.readouterr().err


def assert_perfect(sheet, count=4):
    assert sheet['scores']['test/hard/Dice'] == 1
    assert sheet['test_sets']['test']['images'] == count
    assert sheet['missing'] == {}


@pytest.mark.parametrize(
    ('map_name', 'mask_name', 'maps', 'masks'),
    [
        ('maps/{}.png', 'masks/{}_segmentation.png', 'maps', 'masks'),
        ('maps/{}_pred.png', 'masks/{}.gif', 'maps', 'masks'),
        ('maps/{:02d}_test.png', 'masks/{:02d}_manual1.gif', 'maps', 'masks'),
        ('both/{:02d}_m.gif', 'both/{:02d}_t.gif', 'both/*_m.gif', 'both/*_t.gif'),
        ('p{}/map.png', 'p{}/truth.png', '*/map.png', '*/truth.png'),
        ('maps/p/{}.png', 'masks/p/{}.png', 'maps/**/*.png', 'masks'),
    ],
)
def test_names_are_paired(tmp_path, capsys, map_name, mask_name, maps, masks):
    put(tmp_path, map_name)
    put(tmp_path, mask_name)
    status, sheet, error = evaluate(tmp_path, capsys, maps, masks)
    assert status == 0
    assert_perfect(sheet)
    assert ('paired by what * is' in error) == (maps == 'maps')


def test_one_pattern_may_be_both(tmp_path, capsys):
    put(tmp_path, 'truth/{}_reader1.gif')
    status, sheet, _ = evaluate(tmp_path, capsys, 'truth/*_reader1.gif', 'truth/*_reader1.gif')
    assert status == 0
    assert_perfect(sheet)


def test_hidden_files_are_no_maps_and_no_masks(tmp_path, capsys):
    for kind in ('maps', 'masks'):
        put(tmp_path / '.cache' / kind, '{}.png')
        write(tmp_path / '.cache' / kind / '.ipynb_checkpoints/2-checkpoint.png', mask_of(1))
        (tmp_path / '.cache' / kind / '._1.png').write_bytes(b'Mac')
    status, sheet, error = evaluate(tmp_path, capsys, '.cache/maps', '.cache/masks')
    assert status == 0
    assert_perfect(sheet)
    assert 'left out' not in error


def test_links_of_maps(tmp_path, capsys):
    put(tmp_path, 'store/{}.png')
    put(tmp_path, 'masks/{}.png', 5)
    (tmp_path / 'maps').symlink_to(tmp_path / 'store')
    (tmp_path / 'store/4.png').symlink_to('/nowhere/4.png')
    (tmp_path / 'store/again').symlink_to(tmp_path / 'store')
    status, sheet, error = evaluate(tmp_path, capsys, 'maps', 'masks')
    assert status == 1
    assert_perfect(sheet)
    assert 'maps/4.png' in error
    assert 'maps/again: is a link to' in error


def test_images_are_found_in_the_same_way(tmp_path, capsys):
    put(tmp_path, 'maps/{}.png')
    put(tmp_path, 'masks/{}_mask.png')
    for number in range(4):
        write(tmp_path / f'scans/{number}_scan.tif', image_of(number))
    arguments = [f'--images={tmp_path}/scans/*_scan.tif']
    status, sheet, _ = evaluate(tmp_path, capsys, 'maps', 'masks', *arguments)
    assert status == 0
    assert_perfect(sheet)


def test_several_classes_with_a_suffix(tmp_path, capsys):
    for number in range(3):
        lesion = mask_of(number)
        write(tmp_path / f'masks/{number}_labels.png', np.where(lesion > 0, 2, 0).astype(np.uint8))
        write(tmp_path / f'maps/{number}_1.png', np.zeros_like(lesion))
        write(tmp_path / f'maps/{number}_2.png', lesion)
    status, sheet, _ = evaluate(tmp_path, capsys, 'maps', 'masks', '--config.data.classes=2')
    assert status == 0
    assert sheet['scores']['test/class2/hard/Dice'] == 1


def test_what_does_not_pair_is_shown(tmp_path, capsys):
    put(tmp_path, 'maps/day1_{}.png')
    put(tmp_path, 'masks/day2_{}.png')
    status, sheet, error = evaluate(tmp_path, capsys, 'maps', 'masks')
    assert (status, sheet) == (2, None)
    line = error.strip().splitlines()[-1]
    assert "no map has the name of a mask, as 'day2_0', 'day2_1', 'day2_2', …" in line
    assert "4 images found ('day1_0', 'day1_1', 'day1_2', …)" in line
    status, _, error = evaluate(tmp_path, capsys, 'maps/*.tif', 'masks')
    assert status == 2
    status, _, error = evaluate(tmp_path, capsys, 'none/*.png', 'masks')
    assert status == 2
    assert f'none/*.png: no such folder as {tmp_path}/none' in error


def test_sheets_of_a_pattern_get_the_name_of_its_folder(tmp_path, capsys, monkeypatch):
    put(tmp_path, 'truth/{}_t.png')
    monkeypatch.chdir(tmp_path)
    arguments = ['--maps=truth/*_t.png', '--masks=truth/*_t.png', '--config.evaluate.bootstrap=10']
    assert main(['', 'evaluate', *arguments]) == 0
    assert os.listdir('evaluations') == ['truth']
