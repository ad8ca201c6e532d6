"""The table that `predict` writes."""

import json

import numpy as np
import pytest
from clinic_files import Marking, nibabel
from PIL import Image
from tiny_models import ARGUMENTS, write_model

from m2snet_jax.__main__ import main
from m2snet_jax.images.clips import ClipWriter
from m2snet_jax.measurement.findings import FrameFindings, about_table, find_lesions, table_text
from m2snet_jax.measurement.predicted import predicted_findings
from m2snet_jax.prediction.folders import find_images, predict_files
from m2snet_jax.prediction.video import predict_clips
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


def write_moving_square(path, count=6):
    """Writes a lossless clip of 12.5 frames/s in which a bright square moves; the last frame has none."""
    writer = ClipWriter(path, 'FFV1', 12.5, 24, 40)
    for number in range(count):
        pixels = np.zeros((24, 40, 3), np.uint8)
        if number < count - 1:
            pixels[4:9, 2 + 3 * number : 7 + 3 * number] = 255
        writer.write(pixels)
    writer.close()
    return path


def test_frames_are_measured_with_their_numbers_and_times(tmp_path):
    frames, path = FrameFindings(smallest=2), write_moving_square(tmp_path / 'a.mkv')
    assert predict_clips(Marking(), [('a', path)], tmp_path / 'maps', on_frame=frames.add) == []
    assert (frames.frames, frames.frames_with_lesions) == (6, 5)
    assert [(row['image'], row['frame'], row['number'], row['area_px']) for row in frames.rows] == [
        ('a', number, 1, 25) for number in range(5)
    ]
    assert [row['time_s'] for row in frames.rows] == pytest.approx([number / 12.5 for number in range(5)], abs=0.002)
    assert [row['centroid_x_px'] for row in frames.rows] == [4 + 3 * number for number in range(5)]
    assert [row['mean_probability'] for row in frames.rows] == pytest.approx([0.75] * 5, abs=1 / 255)
    assert not any(isinstance(value, np.ndarray) for row in frames.rows for value in row.values())
    about = about_table([], 0.5, 2, [], frames)
    assert (about['frames'], about['frames_with_lesions'], about['lesions']) == (6, 5, 5)


@pytest.mark.usefixtures('compiled_quickly')
def test_the_command_writes_a_table_of_a_clip_and_refuses_other_settings(tmp_path, capsys):
    clip, output, model = write_moving_square(tmp_path / 'a.mkv'), tmp_path / 'maps', tmp_path / 'tiny.safetensors'
    command = ['', 'predict', f'--model={write_model(model)}', f'--images={clip}', f'--output={output}', *ARGUMENTS]
    path = tmp_path / 'findings.json'
    # Every pixel is lesion, so that the table of a model without training is a closed form.
    assert main([*command, '--threshold=0', f'--table={path}', '--overlay']) == 0
    table = json.loads(path.read_text())
    assert (table['about']['frames'], table['about']['images']) == (6, 0)
    assert [(row['frame'], row['area_px'], row['diameter_px']) for row in table['lesions']] == [
        (number, 24 * 40, pytest.approx(np.hypot(24, 40), abs=1)) for number in range(6)
    ]
    assert len(list((output / 'masks/a').iterdir())) == 6
    capsys.readouterr()
    for other, key in (('--smooth=2', 'smooth'), ('--frames=clip', 'frames'), ('--threshold=0.5', 'threshold')):
        assert main([*command, *(['--threshold=0'] if key != 'threshold' else []), other]) == 2
        error = capsys.readouterr().err
        assert f'written with another {key}' in error
        assert '--output' in error


def test_a_table_of_images_and_frames_has_the_columns_of_both(tmp_path):
    frames = FrameFindings()
    mask = np.ones((2, 3, 1), bool)
    frames.add('clip', 4, 0.16, mask, np.full((2, 3, 1), 255, np.uint8))
    rows = [row for one in find_lesions('picture', mask) for row in one.rows()] + frames.rows
    head, picture, frame = [line for line in table_text(rows, {}).splitlines() if not line.startswith('#')]
    assert head.startswith('image,frame,time_s,class,number,')
    assert picture.startswith('picture,,,1,1,6,')
    assert frame.startswith('clip,4,0.16,1,1,6,')
    assert json.loads(table_text(rows, {}, as_json=True))['lesions'][0]['frame'] is None
