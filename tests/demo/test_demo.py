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
from m2snet_jax.demo.interface import drawn, predicted

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
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) as server:
        lines = iter(server.stderr.readline, '')
        address = next(line.split()[1] for line in lines if line.startswith('open http://127.0.0.1:'))
        with urllib.request.urlopen(address) as answer:
            text = answer.read().decode()
        with urllib.request.urlopen(f'{address}config') as answer:
            config = json.load(answer)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
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
