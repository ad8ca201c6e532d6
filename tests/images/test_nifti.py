"""NIfTI: slices are shown upright, and masks return to the grid of the volume."""

import json
import re

import numpy as np
import pytest
from clinic_files import GEOMETRIES, RANDOM, SHAPE, Marking, TwoClasses, levels, make_volume, nibabel, predict, seen
from tiny_models import write_model

from m2snet_jax import InputError
from m2snet_jax.__main__ import main
from m2snet_jax.images.formats import addresses, read_image
from m2snet_jax.prediction.members import Prediction


@pytest.fixture
def anatomy():
    return RANDOM.integers(0, 1000, SHAPE).astype(np.int16)


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_slices_are_seen_upright_and_the_mask_comes_back_in_place(tmp_path, anatomy, geometry, ending):
    path = tmp_path / f'ct.v1{ending}'
    stored = make_volume(path, geometry, anatomy, slope=2, intercept=-10)
    units = anatomy.astype(int) * 2 - 10
    every, towards_head = addresses(path), GEOMETRIES[geometry][1][2] > 0
    assert [address.name for address in every] == [f'{number:03d}' for number in range(SHAPE[2])]
    for number, address in enumerate(every if towards_head else reversed(every)):
        np.testing.assert_array_equal(
            read_image(address, '1000,2000')[:, :, 0], levels(seen(units, number), 1000, 2000)
        )
    model = Marking()
    model.window = '1000,2000'
    (done, before, faults), output = predict(tmp_path, [path], model, raw='npy', outline=True)
    assert (done, before, faults) == (6, 0, [])
    source, mask, raw = (nibabel.load(one) for one in (path, output / 'ct.v1.nii.gz', output / 'ct.v1_raw.nii.gz'))
    marked = stored(levels(units, 1000, 2000) > 127)
    assert (mask.get_data_dtype(), raw.get_data_dtype()) == (np.uint8, np.float32)
    np.testing.assert_array_equal(mask.get_fdata(), marked)
    np.testing.assert_array_equal(raw.get_fdata(), np.where(marked, 0.75, 0.25))
    for result in (mask, raw):
        np.testing.assert_array_equal(result.affine, source.affine)
        for field in ('pixdim', 'qform_code', 'sform_code', 'xyzt_units', 'descrip'):
            np.testing.assert_array_equal(result.header[field], source.header[field])
    assert sorted(path.name for path in output.glob('*')) == [
        'ct.v1.nii.gz',
        'ct.v1_raw.nii.gz',
        'model.json',
        'overlays',
    ]
    assert len(list((output / 'overlays').iterdir())) == 6
    assert predict(tmp_path, [path], model, raw='npy', outline=True)[0] == (0, 6, [])


def test_several_classes_are_one_volume_of_indices(tmp_path, anatomy):
    stored = make_volume(tmp_path / 'ct.nii.gz', 'oblique', anatomy)
    model = TwoClasses()
    model.window = '500,1000'
    _, output = predict(tmp_path, [tmp_path / 'ct.nii.gz'], model, raw='npy')
    expected = stored(np.where(levels(anatomy, 500, 1000) > 127, 2, 1))
    np.testing.assert_array_equal(nibabel.load(output / 'ct.nii.gz').get_fdata(), expected)
    assert nibabel.load(output / 'ct_raw.nii.gz').shape == (*expected.shape, 2)


def test_eight_bits_and_the_window_of_a_header(tmp_path, anatomy):
    make_volume(tmp_path / 'grey.nii.gz', 'plain', anatomy.astype(np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / 'grey.nii.gz/002')[:, :, 0], seen(anatomy.astype(np.uint8), 2))
    image = nibabel.Nifti1Image(anatomy, np.diag([-1, -1, 1, 1]))  # as DICOM lies: seen as stored
    image.header['cal_min'], image.header['cal_max'] = 100, 600
    nibabel.save(image, tmp_path / 'ranged.nii')
    shown = read_image(tmp_path / 'ranged.nii/003', 'file')[:, :, 0]
    np.testing.assert_array_equal(shown, levels(anatomy[:, :, 3].T, 350, 500))
    with pytest.raises(InputError, match='more than 8 bits'):
        read_image(tmp_path / 'ranged.nii/003')


def test_unusable_volumes_are_named(tmp_path, anatomy):
    make_volume(tmp_path / 'whole.nii.gz', 'plain', RANDOM.integers(0, 1000, (40, 40, 9)).astype(np.int16))
    whole = (tmp_path / 'whole.nii.gz').read_bytes()
    (tmp_path / 'cut.nii.gz').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.nii').write_text('no volume')
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), np.int16), np.eye(4)), tmp_path / 'series.nii')
    colours = np.zeros((3, 3, 3), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / 'colour.nii')
    words = {
        'cut.nii.gz/002': 'cannot be read as NIfTI',
        'text.nii/000': 'cannot be read as NIfTI',
        'series.nii/000': 'has 4 dimensions',
        'colour.nii/001': 'holds colours',
        'missing.nii/000': 'no such file',
        'whole.nii.gz': r'holds 9 images; name one, as .*whole.nii.gz/004',
    }
    for name, reason in words.items():
        with pytest.raises(InputError, match=f'{name.partition("/")[0]}.*: .*{reason}') as caught:
            read_image(tmp_path / name, 'lung')
        assert '\n' not in str(caught.value)
    (done, _, faults), output = predict(tmp_path, [tmp_path])
    assert done == 9
    assert sorted(re.search(r'(\w+)\.nii', fault)[1] for fault in faults if 'written' not in fault) == [
        'colour', 'cut', 'series', 'text'
    ]  # fmt: skip
    assert [path.name for path in output.glob('*.nii*')] == ['whole.nii.gz']


# The command


def test_predict_takes_the_window_of_the_command_line(tmp_path, anatomy, capsys):
    model = write_model(tmp_path / 'tiny.safetensors')
    stored = make_volume(tmp_path / 'ct.nii.gz', 'sagittal', anatomy)
    config = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48']
    command = [
        '',
        'predict',
        f'--model={model}',
        f'--images={tmp_path}/ct.nii.gz',
        f'--output={tmp_path}/maps',
        *config,
    ]
    assert main(command) == 1
    assert 'ct.nii.gz: holds more than 8 bits' in capsys.readouterr().err
    assert main([*command, '--config.data.window=lungs']) == 2
    assert main([*command[:-3], *config, '--config.data.window=500,1000', f'--output={tmp_path}/ct']) == 0
    assert '6 of 6 images predicted' in capsys.readouterr().err
    assert nibabel.load(tmp_path / 'ct/ct.nii.gz').shape == stored(anatomy).shape
    assert main([*command[:-3], *config, '--config.data.window=lung', f'--output={tmp_path}/ct']) == 2
    assert 'another window' in capsys.readouterr().err
    assert main(['', 'convert', str(model), str(tmp_path / 'run'), *config, '--config.data.window=lung']) == 0
    run = ['', 'predict', f'--model={tmp_path}/run', f'--images={tmp_path}/ct.nii.gz', f'--output={tmp_path}/of_run']
    assert main([*run, '--config=default', '--config.data.window=bone']) == 2
    assert 'was trained with lung' in capsys.readouterr().err
    assert main(run) == 0
    assert json.loads((tmp_path / 'of_run/model.json').read_text())['window'] == 'lung'


def test_volumes_with_a_common_file_of_results_are_refused(tmp_path, anatomy):
    (tmp_path / 'scans').mkdir()
    for name in ('ct', 'ct_raw'):
        make_volume(tmp_path / f'scans/{name}.nii.gz', 'plain', anatomy)
    with pytest.raises(InputError, match=r'ct_raw\.nii\.gz: would be written for .*ct\.nii\.gz and for .*ct_raw'):
        predict(tmp_path, [tmp_path / 'scans'], raw='npy')
    (tmp_path / 'maps/model.json').unlink()
    assert predict(tmp_path, [tmp_path / 'scans'])[0] == (2 * SHAPE[2], 0, [])


class Doubting(Marking):
    def predictions(self, images):
        return [Prediction(one, 0.5) for one in self.probabilities(images)]


def test_a_volume_that_is_predicted_again_has_one_row_a_slice(tmp_path, anatomy):
    make_volume(tmp_path / 'ct.nii.gz', 'plain', anatomy)
    tables = []
    for _ in range(2):
        (tmp_path / 'maps/ct.nii.gz').unlink(missing_ok=True)  # as an interruption leaves it
        predict(tmp_path, [tmp_path / 'ct.nii.gz'], Doubting(), uncertainty=True)
        tables.append((tmp_path / 'maps/uncertainty.csv').read_text())
    names = [line.split(',')[0] for line in tables[0].splitlines()]
    assert names == ['name', *(f'ct_{number:03d}' for number in range(SHAPE[2]))]
    assert tables[0] == tables[1]
