"""A model reads images as its training did."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_model

from m2snet_jax import InputError, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.images.reading import Reading

pytestmark = pytest.mark.usefixtures('compiled_quickly')


def test_the_range_of_the_training_is_that_of_the_prediction(tmp_path, caplog):
    weights = write_model(tmp_path / 'tiny.safetensors')
    config = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48']
    assert main(['', 'convert', str(weights), str(tmp_path / 'run'), *config]) == 0
    levels = np.random.default_rng(0).integers(0, 100, (20, 30), dtype=np.uint8)  # darker than those trained on
    Image.fromarray(np.round(levels / 255 * 4095).astype(np.uint16)).save(tmp_path / 'dark.png')
    by_itself = load_model(tmp_path / 'run')
    by_itself(str(tmp_path / 'dark.png'))
    assert 'nothing above 2047, 11 bits: 2047 is white' in caplog.text
    caplog.clear()
    path = tmp_path / 'run/config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'reading': {'integers': 4095.0, 'level': 128.0}}))
    model = load_model(tmp_path / 'run')
    assert model.reading == Reading(integers=4095)
    assert main(['', 'convert', str(tmp_path / 'run'), str(tmp_path / 'copy')]) == 0
    assert load_model(tmp_path / 'copy').reading == Reading(integers=4095)
    np.testing.assert_array_equal(model(str(tmp_path / 'dark.png')), model(levels))
    assert caplog.text == ''
    Image.fromarray(np.full((20, 30), 9000, np.uint16)).save(tmp_path / 'bright.png')
    with pytest.raises(InputError, match=r'bright\.png: holds values up to 9000, above 4095'):
        model(str(tmp_path / 'bright.png'))
