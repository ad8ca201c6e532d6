"""Several models as one, flips, and doubt: closed forms against single predictions."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_model

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.build import create_model
from m2snet_jax.prediction.doubt import entropy, entropy_levels, mean_entropy
from m2snet_jax.prediction.members import pairwise_dice
from m2snet_jax.prediction.predictor import Predictor

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')

SIZE = 40
CONFIG = ['--config=quickstart', '--config.model.encoder=plain', '--config.data.size=48']


def model_of(seed, classes=1):
    return create_model('m2snet', 'plain', classes, seed=seed)


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def singles():
    return [Predictor(model_of(seed), SIZE) for seed in range(3)]


def test_a_model_with_itself_is_that_model_to_the_byte(singles):
    images = [image_of(30, 50), image_of(41, 33)]
    for copies in (2, 3):
        joined = Predictor.joined(singles[:1] * copies)
        for one, other in zip(joined.probabilities(images), singles[0].probabilities(images), strict=True):
            assert one.tobytes() == other.tobytes()
        assert joined(images[0]).tobytes() == singles[0](images[0]).tobytes()


def test_of_two_models_the_mean_and_of_any_order_the_same_bytes(singles):
    images = [image_of(30, 50, seed) for seed in range(3)]
    found = Predictor.joined(singles[:2]).probabilities(images)
    for one, *two in zip(found, *(single.probabilities(images) for single in singles[:2]), strict=True):
        np.testing.assert_allclose(one, np.mean(two, axis=0), atol=2e-6)
        assert one.dtype == np.float32
    orders = [Predictor.joined([singles[k] for k in order]) for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))]
    assert len({one.model_hash for one in orders}) == 1
    assert len({one(images[0]).tobytes() for one in orders}) == 1


def test_models_of_one_structure_share_a_program(singles):
    joined = Predictor.joined(singles)
    joined.flips = True
    joined.probabilities([image_of(30, 50)])
    assert len(joined._ensemble.programs) == 1
    assert joined.passes == 12


def test_models_of_other_sizes_are_averaged_at_the_size_of_the_image(singles):
    other = Predictor(model_of(1), 48)
    joined = Predictor.joined([singles[0], other])
    image = image_of(37, 52)
    (found,) = joined.probabilities([image])
    assert found.shape == (37, 52, 1)
    expected = (singles[0](image).astype(np.float64) + other(image)) / 2
    np.testing.assert_allclose(found[..., 0], expected, atol=2e-6)
    assert joined(image).tobytes() == found[..., 0].tobytes()
    assert joined.variant == {'models': 2, 'sizes': [40, 48]}


def test_models_of_other_classes_are_refused(singles):
    with pytest.raises(InputError, match='the models have different classes: 1 and 2; give models that agree'):
        Predictor.joined([singles[0], Predictor(model_of(0, classes=2), SIZE)])


def test_flips_are_the_mean_of_four_predictions(singles):
    image = image_of(SIZE, SIZE)
    predictor = Predictor(model_of(0), SIZE)
    predictor.flips = True
    flips = (np.s_[:], np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1])
    four = [singles[0](np.ascontiguousarray(image[flip]))[flip] for flip in flips]
    np.testing.assert_allclose(predictor(image), np.mean(four, axis=0), atol=2e-6)
    assert np.ptp(four, axis=0).max() > 1e-4


def test_flips_of_a_symmetric_image_give_a_symmetric_map():
    quarter = image_of(SIZE // 2, SIZE // 2)
    half = np.concatenate([quarter, quarter[::-1]])
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    predictor = Predictor(model_of(0), SIZE)
    predictor.flips = True
    (found,) = predictor.probabilities([image])
    np.testing.assert_allclose(found, found[::-1], atol=1e-7)
    np.testing.assert_allclose(found, found[:, ::-1], atol=1e-7)


def test_a_temperature_divides_the_logits():
    image = image_of(30, 30)
    # The logits of random weights are about 1e9, so that their probabilities are 0 and 1.
    (p,) = Predictor(model_of(0), SIZE, None, 1e9).probabilities([image])
    (scaled,) = Predictor(model_of(0), SIZE, None, 2.5e9).probabilities([image])
    logits = np.log(p) - np.log1p(-np.float64(p))
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(scaled, 1 / (1 + np.exp(-logits / 2.5)), atol=1e-4)


def test_entropy_by_hand():
    p = np.array([0, 1, 0.5, 0.25, np.nan]).reshape(1, 5, 1)
    assert entropy(p).ravel() == pytest.approx([0, 0, 1, 0.8112781, 1])
    assert entropy_levels(p).ravel().tolist() == [0, 0, 255, 207, 255]


def test_mean_entropy_is_over_the_lesion_and_ten_pixels_around():
    probability = np.zeros((60, 60, 1))
    probability[30, 30] = 1
    probability[30, 40] = 0.5  # 10 pixels away
    probability[30, 41] = probability[40, 40] = 0.5  # further away
    rows, columns = np.mgrid[:60, :60]
    disc = (rows - 30) ** 2 + (columns - 30) ** 2 <= 100
    assert mean_entropy(probability, probability > 0.9) == pytest.approx(1 / disc.sum())
    assert mean_entropy(probability, probability > 1) == pytest.approx(1 / disc.sum())  # around the highest


def test_pairwise_dice_by_hand():
    maps = [np.zeros((2, 2, 1)) for _ in range(3)]
    maps[0][0], maps[1][:] = 0.9, 0.9  # 2 pixels, 4 pixels, none
    assert pairwise_dice(maps) == pytest.approx((2 * 2 / 6 + 0 + 0) / 3)
    assert pairwise_dice(maps[2:] * 2) == 1
    assert np.isnan(pairwise_dice(maps[:1]))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    for seed in range(2):
        write_model(folder / f'fold{seed}.safetensors', seed, encoder='plain')
    Image.fromarray(image_of(37, 58)).save(folder / 'image.png')
    return folder


def predict(folder, output, *arguments):
    images = ['--images=' + str(folder / 'image.png'), f'--output={output}']
    return main(['', 'predict', *images, *CONFIG, *arguments])


def test_the_command_writes_the_mean_its_entropy_and_a_table(files, tmp_path, capsys):
    output, again = tmp_path / 'maps', tmp_path / 'again'
    pattern, flags = f'--model={files}/fold*.safetensors', ('--tta=flips', '--uncertainty', '--raw')
    assert predict(files, output, pattern, *flags) == 0
    models = [files / f'fold{seed}.safetensors' for seed in (1, 0)]
    config = load_config('quickstart', **{'model.encoder': 'plain', 'data.size': 48})
    predictor = load_model(models, config=config)
    predictor.flips = True
    expected = predictor(files / 'image.png')
    assert np.array_equal(np.load(output / 'image.npy'), expected)
    levels = np.asarray(Image.open(output / 'uncertainty' / 'image.png'))
    assert np.array_equal(levels, entropy_levels(expected[..., None])[..., 0])
    header, row = (output / 'uncertainty.csv').read_text().splitlines()
    assert header == 'name,mean_entropy,pairwise_dice'
    (prediction,) = predictor.predictions([np.asarray(Image.open(files / 'image.png'))])
    assert float(row.split(',')[2]) == pytest.approx(prediction.agreement, abs=1e-6)
    about = json.loads((output / 'model.json').read_text())
    assert (about['models'], about['tta'], about['uncertainty']) == (2, 'flips', True)
    assert predict(files, again, *(f'--model={model}' for model in models), *flags) == 0
    assert (again / 'image.npy').read_bytes() == (output / 'image.npy').read_bytes()
    assert predict(files, output, pattern, '--raw') == 2
    assert 'another tta, uncertainty' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--model={files}/fold0.safetensors', '--uncertainty'], '--uncertainty: needs several models'),
        (['--model={files}/none*'], 'none*: no model has this pattern'),
        (['--model={files}/fold0.safetensors', '--tta=turns'], 'tta'),
        (['--model={files}/fold0.safetensors', '--calibrated'], 'no readable temperature; run calibrate'),
    ],
)
def test_what_cannot_start_is_said_in_a_line(files, tmp_path, capsys, arguments, words):
    assert predict(files, tmp_path / 'maps', *(one.format(files=files) for one in arguments)) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / 'maps').exists()


def test_a_nifti_volume_gets_a_volume_of_entropy(files, tmp_path):
    nibabel = pytest.importorskip('nibabel', reason='an optional requirement: pip install .[clinic]')
    voxels = np.random.default_rng(0).integers(0, 255, (20, 30, 2)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / 'scan.nii.gz')
    model, output = f'--model={files}/fold0.safetensors', f'--output={tmp_path / "maps"}'
    images, flags = f'--images={tmp_path / "scan.nii.gz"}', ['--tta=flips', '--uncertainty']
    assert main(['', 'predict', model, images, output, *CONFIG, *flags]) == 0
    found = nibabel.load(tmp_path / 'maps' / 'scan_uncertainty.nii.gz')
    assert found.shape == voxels.shape
    assert len((tmp_path / 'maps' / 'uncertainty.csv').read_text().splitlines()) == 3
    time = (tmp_path / 'maps' / 'scan_uncertainty.nii.gz').stat().st_mtime_ns
    assert main(['', 'predict', model, images, output, *CONFIG, *flags]) == 0
    assert (tmp_path / 'maps' / 'scan_uncertainty.nii.gz').stat().st_mtime_ns == time


def test_a_dicom_series_gets_a_picture_of_entropy_for_each_image(files, tmp_path):
    pytest.importorskip('pydicom', reason='an optional requirement: pip install .[clinic]')
    pytest.importorskip('highdicom', reason='an optional requirement: pip install .[clinic]')
    from clinic_files import make_ct_series

    paths = make_ct_series(tmp_path / 'series', 2)
    model, images = f'--model={files}/fold*.safetensors', f'--images={tmp_path / "series"}'
    flags = ['--config.data.window=lung', '--uncertainty', f'--output={tmp_path / "maps"}']
    assert main(['', 'predict', model, images, *CONFIG, *flags]) == 0
    found = sorted(path.name for path in (tmp_path / 'maps' / 'uncertainty').iterdir())
    assert found == sorted(f'{path.stem}.png' for path in paths)
    assert len((tmp_path / 'maps' / 'uncertainty.csv').read_text().splitlines()) == 3
    assert len(list((tmp_path / 'maps').glob('*_seg.dcm'))) == 1


def test_several_models_become_one_program(singles):
    from m2snet_jax.export.inference import make_program

    joined, image = Predictor.joined(singles[:2]), image_of(30, 50)
    probability, _ = make_program(joined)(image[None])
    np.testing.assert_allclose(probability[0, ..., 0], joined(image), atol=1e-5)
