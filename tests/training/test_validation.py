"""Dice while training goes on, and the choice of a step by it."""

import json

import numpy as np
import pytest
from flax import nnx

from m2snet_jax import InputError, load_config, load_model, metrics, train_and_evaluate
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.models.m2snet import M2SNet, MSNet
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.prediction.predictor import released_map
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training.validation import make_validate
from m2snet_jax.weights import load_weights

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')

SIZE = 48
RUN = {
    'batch': 4,
    'epochs': 3,
    'model.name': 'msnet',
    'model.encoder': 'plain',
    'model.columns': 1,
    'loss.lossnet': 0.0,
    'optimizer.peak_lr': 0.02,
    'data.size': SIZE,
    'data.sizes': (SIZE,),
    'data.count': 16,
    'data.test_count': 5,
    'data.validation': 4.0,
    'log.images': 0,
    'log.tensorboard': False,
    'checkpoint.every': 100,
    'checkpoint.keep': 1,
    'evaluate.bootstrap': 0,
}


class Examples:
    """Images of the network's own size, the last one without a lesion."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
        self.masks = (rng.random((count, SIZE, SIZE)) > 0.5).astype(np.uint8) * 255
        self.masks[-1] = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {'name': str(index), 'image': self.images[index], 'mask': self.masks[index]}


def test_it_is_the_hard_dice_where_the_image_has_the_size_of_the_network():
    config, source = load_config('quickstart', **{**RUN, 'evaluate.batch': 3}), Examples(7)
    graph, weights = split_model(M2SNet('plain', columns=1, rngs=nnx.Rngs(0)))
    found = make_validate(graph, [source], config, make_mesh())(weights)
    from m2snet_jax.data.augment import test_example as prepared

    images = np.stack([prepared(image, SIZE) for image in source.images])
    probabilities = make_predict_step(graph)(weights, images)
    scores = [
        metrics.score(released_map(np.asarray(probability), SIZE, SIZE)[..., 0], mask, 'hard')
        for probability, mask in zip(probabilities, source.masks, strict=True)
    ]
    assert found == pytest.approx(metrics.aggregate(scores, protocol='hard')['Dice'], abs=1e-6)
    assert 0 < found < 1


def test_no_step_can_be_chosen_by_images_without_lesions():
    source = Examples(3)
    source.masks[:] = 0
    graph, weights = split_model(M2SNet('plain', columns=1, rngs=nnx.Rngs(0)))
    for select, sources in (('last', [source]), ('validation', [source, Examples(2)])):
        found = make_validate(graph, sources, load_config('quickstart', **RUN, select=select), make_mesh())(weights)
        assert np.isnan(found) == (select == 'last')
    config = load_config('quickstart', **RUN, select='validation')
    with pytest.raises(InputError, match=r'select=validation: none of the images .* has a lesion'):
        make_validate(graph, [source], config, make_mesh())(weights)


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))


@pytest.mark.usefixtures('data_folder')
@pytest.mark.slow
def test_the_best_step_on_the_validation_split_is_scored_and_loaded(tmp_path, monkeypatch, capsys):
    dices = iter((0.4, 0.7, 0.5))  # the second of three epochs is the best
    monkeypatch.setattr('m2snet_jax.training.loop.make_validate', lambda *_: lambda weights: next(dices))
    config, workdir = load_config('quickstart', **RUN, select='validation'), tmp_path / 'run'
    train_and_evaluate(config, workdir)
    assert 'step 6 had the highest Dice' in capsys.readouterr().err
    rows = read_json_lines(workdir / 'metrics.jsonl')
    rows = [(row['step'], row['validation/Dice']) for row in rows if 'validation/Dice' in row]
    assert rows == [(3, 0.4), (6, 0.7), (9, 0.5)]
    assert sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir()) == [6, 9]
    summary = json.loads((workdir / 'scores' / 'summary.json').read_text())
    assert (summary['step'], summary['scored_step']) == (9, 6)
    chosen, last = load_model(workdir), load_model(workdir / 'checkpoints' / '9')
    assert chosen.model_hash == summary['model_hash'] == load_model(workdir / 'checkpoints' / '6').model_hash
    assert chosen.model_hash != last.model_hash
    model = load_weights(MSNet('plain', columns=1, rngs=nnx.Rngs(5)), workdir)
    np.testing.assert_array_equal(model.output1.kernel[...], chosen.model.output1.kernel[...])
    assert 'nothing to do' not in capsys.readouterr().err
    train_and_evaluate(config, workdir)
    assert 'nothing to do' in capsys.readouterr().err


@pytest.mark.usefixtures('data_folder')
@pytest.mark.slow
def test_without_a_split_the_log_says_so_and_a_choice_on_the_test_stands_in_the_sheet(tmp_path, capsys):
    config = load_config('quickstart', **{**RUN, 'epochs': 1, 'data.validation': None, 'ema': 0.9})
    config.unlock()
    config.select, config.select_on_test, config.optimizer.scale_lr_with_batch, config.gradient_accumulation = (
        'test',
        True,
        True,
        2,
    )
    train_and_evaluate(config, tmp_path / 'run')
    said = capsys.readouterr().err
    for line in (
        'no validation split',
        'in 2 parts: batch norm sees 2 images',
        'rates × 0.25',
        'averaged',
        'test Dice',
    ):
        assert line in said
    summary = json.loads((tmp_path / 'run' / 'scores' / 'summary.json').read_text())
    assert any('chosen on the test set' in warning for warning in summary['warnings'])
    # What is loaded is what was scored: the averaged weights.
    assert load_model(tmp_path / 'run').model_hash == summary['model_hash']
    assert load_model(tmp_path / 'run').model.output1.kernel[...].dtype == np.float32


def test_the_choice_on_the_test_must_be_insisted_on(tmp_path):
    with pytest.raises(InputError, match='select_on_test'):
        train_and_evaluate(load_config('quickstart', **RUN, select='test'), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
