"""Pictures and curves for notebooks: what the maps of the pyramid are, and where each is drawn."""

import json

import jax
import numpy as np
import pytest
from tiny_models import write_model

from m2snet_jax import load_config, load_model
from m2snet_jax.data.augment import test_example as prepare
from m2snet_jax.models.layers import resize
from m2snet_jax.report.curves import curves
from m2snet_jax.report.features import BACKGROUND, GAP, LABEL, pyramid, pyramid_maps


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp('model') / 'tiny.safetensors')
    return load_model(path, config=load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48}))


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def test_the_maps_of_the_pyramid_are_those_from_which_the_model_predicts(predictor, image):
    maps = pyramid_maps(predictor, image)
    assert len(maps) == 5 + 10 + 1
    assert maps['x1'].shape == (12, 12, 64)
    assert maps['x5_x4_x3_x2_x1'].shape == maps['x2_x1'].shape == (12, 12, 64)
    assert maps['x5_x4'].shape == maps['x4'].shape == (3, 3, 64)
    assert min(one.min() for one in maps.values()) >= 0
    model, size = predictor.model, predictor.size

    @jax.jit
    def decode(images, maps):
        logits = model._decode(model.encoder(images)[-1], maps)
        return jax.nn.sigmoid(resize(logits, size, size))

    decoded = decode(prepare(image, size)[None], {name: one[None] for name, one in maps.items()})
    np.testing.assert_allclose(decoded, predictor.probabilities([image]), atol=1e-6)


def test_the_triangle_shows_every_map_in_its_place(predictor, image):
    side = 40
    sheet = pyramid(predictor, image, side)
    step = side + GAP
    assert sheet.shape == (5 * (step + LABEL) + GAP, 5 * step + GAP, 3)

    def cell(row, column):
        left, top = GAP + round(column * step), GAP + row * (step + LABEL) + LABEL
        return sheet[top : top + side, left : left + side]

    for row in range(5):
        for k in range(5 - row):
            assert not (cell(row, k + row / 2) == BACKGROUND).all(-1).any(), (row, k)
    np.testing.assert_allclose(cell(4, 0).mean((0, 1)), image.mean((0, 1)), atol=8)
    probability = predictor.probabilities([image])[0][..., 0]
    np.testing.assert_allclose(cell(4, 4).mean(), 255 * probability.mean(), atol=2)
    assert (cell(4, 1) == BACKGROUND).all()


def test_curves_draw_what_a_run_has_written(tmp_path):
    rows = [{'step': k, 'loss': 1 / k, 'structure': 0.5, 'validation/Dice': k / 10} for k in range(1, 6)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows) + '{"step": 6, "lo')
    drawn = curves(tmp_path)
    assert drawn._repr_html_() == drawn
    assert drawn.count('<figure>') == 2
    assert drawn.count('<circle') == 2 * 5
    assert 'structure' in curves(tmp_path, ['structure'])
    assert 'nothing to draw yet' in curves(tmp_path / 'elsewhere')
