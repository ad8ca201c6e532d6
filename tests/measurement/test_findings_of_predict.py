"""The table that `predict` writes."""

import numpy as np
import pytest
from clinic_files import Marking, nibabel
from PIL import Image

from m2snet_jax.__main__ import main
from m2snet_jax.measurement.predicted import predicted_findings
from m2snet_jax.prediction.folders import find_images, predict_files
from m2snet_jax.prediction.writer import Writer


@pytest.mark.parametrize('raw', [None, 'npy', 'png16'])
def test_maps_are_measured_in_every_format_and_again_when_they_are_there(tmp_path, raw):
    picture = np.zeros((8, 8), np.uint8)
    picture[2:5, 1:7] = 255
    picture[7, 7] = 255
    Image.fromarray(picture).save(tmp_path / 'a.png')
    model, output = Marking(), tmp_path / 'maps'
    images = find_images([tmp_path / 'a.png'], output)
    for _ in range(2):
        writer = Writer(output, model, raw=raw)
        predict_files(model, images, writer, 2)
        (found,), notes = predicted_findings(images, writer, 1, 0.5, 2, raw)
        (lesion,) = found.lesions
        assert lesion.area_px == 18
        assert notes == []
        assert lesion.mean_probability == pytest.approx(0.75, abs=1 / 255)


@pytest.mark.parametrize('raw', [None, 'npy'])
def test_a_volume_is_measured_as_a_whole(tmp_path, raw):
    volume = np.zeros((8, 8, 5), np.int16)
    volume[2:6, 3:5, 1:4] = 2000
    image = nibabel.Nifti1Image(volume, np.diag([0.5, 1, 4, 1]))
    image.header.set_xyzt_units('mm')
    nibabel.save(image, tmp_path / 'ct.nii.gz')
    model, output = Marking(), tmp_path / 'maps'
    model.window = '1000,2000'
    images = find_images([tmp_path / 'ct.nii.gz'], output)
    writer = Writer(output, model, raw=raw)
    assert predict_files(model, images, writer, 2)[2] == []
    (found,), _ = predicted_findings(images, writer, 1, raw=raw)
    (lesion,) = found.lesions
    assert (found.image, lesion.slices, lesion.volume_voxels) == ('ct', 3, 24)
    assert lesion.volume_ml == pytest.approx(24 * 2 / 1000)
    assert lesion.mean_probability == (None if raw is None else 0.75)


def test_the_ending_of_the_table_is_checked_first(tmp_path, capsys):
    arguments = ['predict', '--model=none', '--images=none', f'--output={tmp_path / "maps"}']
    assert main(['', *arguments, '--table=findings.xls']) == 2
    assert 'ends in .csv or .json' in capsys.readouterr().err
    assert main(['', *arguments, '--smallest=4']) == 2
    assert '--table' in capsys.readouterr().err
