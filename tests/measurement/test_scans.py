"""DICOM series are volumes, and the maps of several classes are one image."""

import json

import numpy as np
import pytest
from clinic_files import Marking, TwoClasses, make_ct_series, predict, pydicom
from PIL import Image

from m2snet_jax.__main__ import main
from m2snet_jax.images.spacing import read_stack
from m2snet_jax.measurement.predicted import predicted_findings
from m2snet_jax.prediction.folders import find_images
from m2snet_jax.prediction.writer import Writer

BOX = np.s_[20:24, 30:40]
INSIDE = 2, 4, 1  # the files whose slices hold the box, from foot to head


@pytest.fixture
def series(tmp_path):
    """Five slices 5 mm apart, in the order 0, 2, 4, 1, 3 of their positions; a box goes through three of them."""
    files = make_ct_series(tmp_path / 'ct', 5)
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        pixels = np.zeros((dataset.Rows, dataset.Columns), np.int16)
        pixels[BOX] = 2000 * (number in INSIDE)
        dataset.PixelData, dataset.PixelSpacing = pixels.tobytes(), [0.5, 0.25]
        dataset.save_as(path)
    return files


def edit(path, **elements):
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def measured(*arguments, folder):
    """Returns the rows and the head of the table that `measure` writes."""
    path = folder / 'findings.json'
    assert main(['', 'measure', *arguments, f'--table={path}']) == 0
    table = json.loads(path.read_text())
    return table['lesions'], table['about']


def assert_is_the_box(row, voxels=120):
    assert (row['image'], row['slices'], row['volume_voxels']) == ('slice0', 3, voxels)
    assert row['volume_ml'] == pytest.approx(voxels * 0.5 * 0.25 * 5 / 1000)
    assert row['area_mm2'] == pytest.approx(40 * 0.125)
    assert (row['slice'], row['slice_image']) == (1, 'slice2')
    assert (row['box_left_px'], row['box_top_px']) == (30, 20)


def test_a_lesion_through_a_predicted_series_is_one(tmp_path, series):
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    (done, _, faults), output = predict(tmp_path, [tmp_path / 'ct'])
    assert (done, faults) == (5, [])
    images, model = find_images([tmp_path / 'ct'], output), Marking()
    (found,), notes = predicted_findings(images, Writer(output, model), 1)
    (row,) = found.rows()
    assert notes == []
    assert_is_the_box(row)
    assert row['mean_probability'] == pytest.approx(0.75, abs=1 / 255)
    (row,), _ = measured(f'--masks={output}', f'--images={tmp_path / "ct"}', folder=tmp_path)
    assert_is_the_box(row)
    rows, _ = measured(f'--masks={output}', folder=tmp_path)  # without the headers they are pictures
    assert sorted(row['image'] for row in rows) == ['slice1', 'slice2', 'slice4']


def test_a_series_is_compared_with_its_reference_as_a_volume(tmp_path, series):
    for folder in ('masks', 'reference'):
        (tmp_path / folder).mkdir()
        for path in series:
            mask = np.uint8(255) * (pydicom.dcmread(path).pixel_array > 1000)
            mask[20] *= folder == 'reference'
            ending = '_expert' if folder == 'reference' else ''
            Image.fromarray(mask).save(tmp_path / folder / f'{path.stem}{ending}.png')
    folders = [f'--{flag}={tmp_path / flag}' for flag in ('masks', 'reference')]
    arguments = [*folders, f'--images={tmp_path / "ct"}', f'--output={tmp_path / "agreement"}']
    assert main(['', 'measure', *arguments]) == 0
    head, row = (tmp_path / 'agreement/agreement.csv').read_text().splitlines()[-2:]
    row = dict(zip(head.split(','), row.split(','), strict=True))
    assert (row['image'], row['outcome'], row['overlap']) == ('slice0', 'found', '0.75')
    assert float(row['mask_volume_ml']) == pytest.approx(0.75 * float(row['reference_volume_ml']), abs=1e-4)


def test_slices_are_ordered_along_their_normal(series):
    for path in series:  # sagittal: rows run from front to back, columns from head to foot
        x, _, z = pydicom.dcmread(path).ImagePositionPatient
        edit(path, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[-z, 7, x])
    order, spacing = read_stack(series)
    assert order == [0, 2, 4, 1, 3]
    assert spacing.size == (0.5, 0.25)
    assert spacing.between_slices == pytest.approx(5)


def test_without_one_distance_there_are_mm_but_no_ml(tmp_path, series):
    series[4].unlink()
    (row, *others), about = measured(f'--masks={tmp_path / "ct"}', folder=tmp_path)
    assert (len(others), row['slices'], row['volume_ml']) == (0, 2, None)
    assert row['area_mm2'] == pytest.approx(5)
    (note,) = [note for note in about['notes'] if 'apart' in note]
    assert note.endswith('the slices of its series are 5 to 10 mm apart; no ml are given')


@pytest.mark.parametrize(
    ('elements', 'reason'),
    [
        ({'ImagePositionPatient': [-158.1, -179.0, -75.7]}, 'have a position in common'),
        ({'PixelSpacing': [1, 1]}, 'differ in pixel spacing'),
    ],
)
def test_images_that_are_no_volume_are_measured_one_by_one(tmp_path, series, elements, reason):
    edit(series[1], **elements)
    rows, about = measured(f'--masks={tmp_path / "ct"}', folder=tmp_path)
    assert [row['image'] for row in rows] == ['slice1', 'slice2', 'slice4']
    assert [note for note in about['notes'] if reason in note]


@pytest.mark.parametrize('raw', [None, 'npy', 'png16'])
def test_maps_of_several_classes_are_one_image(tmp_path, raw):
    picture = np.zeros((8, 8), np.uint8)
    picture[2:5, 1:7] = 255
    for name in ('a', 'b_1'):
        Image.fromarray(picture).save(tmp_path / f'{name}.png')
    model = TwoClasses()
    model.window = None
    output = predict(tmp_path, [tmp_path / 'a.png', tmp_path / 'b_1.png'], model, raw=raw, threshold=0.5)[1]
    for folder in (output, output / 'masks'):
        rows, about = measured(f'--masks={folder}', folder=tmp_path)
        assert [(row['image'], row['class'], row['area_px']) for row in rows] == [
            ('a', 1, 64),
            ('a', 2, 18),
            ('b_1', 1, 64),
            ('b_1', 2, 18),
        ]
        assert (about['images'], about['lesions']) == (2, 4)
    assert main(['', 'measure', f'--masks={output}', '--config.data.classes=3']) == 2


def test_the_map_of_a_class_that_is_missing_is_reported(tmp_path, capsys):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'a.png')
    model = TwoClasses()
    model.window = None
    output = predict(tmp_path, [tmp_path / 'a.png'], model)[1]
    (output / 'a_2.png').unlink()
    assert main(['', 'measure', f'--masks={output}']) == 1
    assert 'maps of other classes are missing' in capsys.readouterr().err


def test_uncertainty_is_no_map(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'a.png')
    model = Marking()
    model.window = None
    output = predict(tmp_path, [tmp_path / 'a.png'], model)[1]
    (output / 'uncertainty').mkdir()
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(output / 'uncertainty/a.png')
    rows, about = measured(f'--masks={output}', folder=tmp_path)
    assert (rows, about['images']) == ([], 1)
