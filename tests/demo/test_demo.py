"""The page for trying a model: the same masks as `predict` writes, and nothing that leaves the machine."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import ARGUMENTS, write_model

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.demo.trial import drawn, findings, predict_clip_file, predicted
from m2snet_jax.images.clips import Clip, ClipWriter

pytestmark = pytest.mark.usefixtures('compiled_quickly')

CUT = 0.37


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'tiny.safetensors')


@pytest.fixture(scope='module')
def predictor(model):
    return load_model(model, config=load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48}))


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('images') / 'colon.tif'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 58, 3), np.uint8)).save(path)
    return path


def test_it_shows_what_predict_writes(model, predictor, image, tmp_path):
    command = ['', 'predict', f'--model={model}', f'--images={image}', f'--output={tmp_path}', *ARGUMENTS]
    assert main([*command, f'--threshold={CUT}', '--overlay']) == 0
    case = predicted(predictor, image)
    picture, levels, mask = drawn(case, CUT)
    assert case['name'] == 'colon'
    for shown, written in ((levels, ''), (mask, 'masks'), (picture, 'overlays')):
        stored = np.asarray(Image.open(tmp_path / written / 'colon.png'))
        assert stored.shape == shown.shape
        np.testing.assert_array_equal(shown, stored)


def test_each_class_has_its_mask():
    levels = np.stack([np.full((4, 4), 200), np.full((4, 4), 50)], -1).astype(np.uint8)
    case = {'pixels': np.zeros((4, 4, 3), np.uint8), 'levels': levels}
    assert drawn(case, 0.5, 1)[2].min() == 255
    assert drawn(case, 0.5, 2)[2].max() == 0


def test_without_gradio_it_says_what_to_install(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert main(['', 'demo', f'--model={model}']) == 2
    assert 'pip install "gradio' in capsys.readouterr().err
    assert main(['', 'demo']) == 2
    assert '--model is missing' in capsys.readouterr().err


def test_the_page_is_served_here_and_calls_nobody(model):
    pytest.importorskip('gradio', reason='an optional requirement')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'm2snet_jax', 'demo', f'--model={model}', f'--port={port}', *ARGUMENTS]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stderr.readline, '')
        address = next(line.split()[1] for line in lines if line.startswith('open http://127.0.0.1:'))
        with urllib.request.urlopen(address) as answer:
            text = answer.read().decode()
        with urllib.request.urlopen(f'{address}config') as answer:
            config = json.load(answer)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()
    assert config['analytics_enabled'] is False
    assert 'not a medical device' in json.dumps(config)
    assert 'fonts.googleapis.com' not in text
    for component in config['components']:
        assert 'share' not in (component['props'].get('buttons') or ())


def test_a_file_that_is_no_image_is_refused(predictor, tmp_path):
    path = tmp_path / 'notes.png'
    path.write_text('no image')
    with pytest.raises(InputError, match=r'notes\.png: cannot be read'):
        predicted(predictor, path)


def test_the_findings_are_those_of_predict(model, predictor, image, tmp_path):
    command = ['', 'predict', f'--model={model}', f'--images={image}', f'--output={tmp_path}', *ARGUMENTS]
    table = tmp_path / 'findings.json'
    assert main([*command, f'--threshold={CUT}', f'--table={table}']) == 0
    rows = [row for one in findings(predicted(predictor, image), CUT) for row in one.rows()]
    written = json.loads(table.read_text())['lesions']
    assert [row['area_px'] for row in rows] == [row['area_px'] for row in written]
    assert [row['mean_probability'] for row in rows] == [
        pytest.approx(row['mean_probability'], abs=1e-4) for row in written
    ]


def test_a_clip_is_predicted_frame_by_frame(predictor, tmp_path):
    path, reported = tmp_path / 'a.mkv', []
    writer = ClipWriter(path, 'FFV1', 12.5, 24, 40)
    for number in range(10):
        writer.write(np.full((24, 40, 3), 20 * number, np.uint8))
    writer.close()
    clip = predict_clip_file(predictor, path, tmp_path, 0.0, report=lambda *one: reported.append(one))
    assert (clip.frames, clip.frames_with_lesions, clip.fault) == (10, 10, '')
    assert [(row['frame'], row['area_px']) for row in clip.rows] == [(number, 24 * 40) for number in range(10)]
    assert reported == [(number, 10) for number in range(1, 11)]
    assert len(list(Clip(clip.overlay).frames())) == 10
    assert [file.name for file in clip.files] == ['a_findings.csv', 'a_maps.mkv']
    cut = tmp_path / 'cut.mkv'
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clip = predict_clip_file(predictor, cut, tmp_path)
    assert 0 < clip.frames < 10
    assert clip.fault.startswith('cut.mkv: ends after')
    with pytest.raises(InputError, match='cannot be read as a clip'):
        predict_clip_file(predictor, write_text(tmp_path / 'b.mp4'), tmp_path)


def write_text(path):
    path.write_text('no clip')
    return path


@pytest.mark.slow
def test_several_models_agree_or_not(model, image, tmp_path):
    config = load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48})
    other = write_model(tmp_path / 'other.safetensors', seed=1)
    alone, both = load_model(model, config=config), load_model([model, other], config=config)
    same = load_model([model, write_model(tmp_path / 'same.safetensors')], config=config)
    assert predicted(alone, image)['agreement'] == ''
    assert 'mean Dice of 1.000' in predicted(same, image)['agreement']
    case = predicted(both, image)
    assert 'mean Dice of' in case['agreement']
    np.testing.assert_array_equal(case['levels'], predicted(both, image)['levels'])
    assert not np.array_equal(case['levels'], predicted(alone, image)['levels'])
