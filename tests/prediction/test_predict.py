"""The command `predict`: any image in, one map out, and what happens when something goes wrong."""

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_model

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.images.reading import Reading
from m2snet_jax.prediction.folders import claim_folder, predict_files
from m2snet_jax.prediction.writer import Writer

pytestmark = pytest.mark.usefixtures('compiled_quickly')

CONFIG = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48']


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'tiny.safetensors')


@pytest.fixture(scope='module')
def predictor(model):
    return load_model(model, config=load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48}))


def picture(seed=0, height=37, width=58):
    rng = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((width, height)))


@pytest.fixture
def images(tmp_path):
    """A folder of images of many kinds; every one shows the same grey picture but `colour` and `turned`."""
    folder = tmp_path / 'images'
    (folder / 'sub').mkdir(parents=True)
    grey = Image.fromarray(picture()).convert('L')
    Image.fromarray(picture()).save(folder / 'colour.bmp')
    grey.save(folder / 'grey.png')
    grey.convert('RGBA').save(folder / 'sub' / 'alpha.tif')
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / 'sub' / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(folder / 'turned.jpg', exif=exif)
    (folder / 'notes.txt').write_text('no image')
    (folder / '.hidden.png').write_text('no image')
    return folder


def predict(model, images, output, *arguments):
    return main(['', 'predict', f'--model={model}', f'--images={images}', f'--output={output}', *CONFIG, *arguments])


def read(path):
    return np.asarray(Image.open(path))


def test_maps_are_the_released_ones_at_the_size_of_each_image(model, predictor, images, tmp_path, capsys):
    output = tmp_path / 'maps'
    assert predict(model, images, output) == 0
    captured = capsys.readouterr()
    assert captured.out == ''
    assert '5 of 5 images predicted' in captured.err
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob('*.png'))
    assert names == ['colour.png', 'grey.png', 'sub/alpha.png', 'sub/deep.png', 'turned.png']
    (probability,) = predictor.probabilities([picture()])
    truncated = Image.fromarray(np.floor(255 * np.asarray(probability)[..., 0]).astype(np.uint8))
    assert np.abs(read(output / 'colour.png') - np.float64(truncated.resize((58, 37), 2))).max() <= 1
    assert np.array_equal(read(output / 'grey.png'), read(output / 'sub' / 'alpha.png'))
    assert np.array_equal(read(output / 'grey.png'), read(output / 'sub' / 'deep.png'))


def test_images_of_several_folders_are_noted(model, images, tmp_path, capsys):
    assert predict(model, images, tmp_path / 'maps') == 0
    assert 'note: images of 2 folders are predicted: ., sub\n' in capsys.readouterr().err
    assert predict(model, images / 'sub', tmp_path / 'more') == 0
    assert 'note: images' not in capsys.readouterr().err


def test_a_rotation_that_exif_asks_for_is_applied_and_said(model, images, tmp_path, capsys):
    assert predict(model, images / 'turned.jpg', tmp_path / 'maps') == 0
    assert read(tmp_path / 'maps' / 'turned.png').shape == (58, 37)
    assert 'turned.jpg: turned upright' in capsys.readouterr().err


def test_raw_maps_are_the_probabilities_themselves(model, predictor, images, tmp_path):
    expected = predictor(picture())
    assert predict(model, images, tmp_path / 'npy', '--raw') == 0
    assert predict(model, images, tmp_path / 'png', '--raw=png16') == 0
    exact = np.load(tmp_path / 'npy' / 'colour.npy')
    assert (exact.dtype, exact.shape) == (np.float32, (37, 58))
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    fine = read(tmp_path / 'png' / 'colour.png')
    assert fine.dtype == np.uint16
    np.testing.assert_allclose(fine / 65535, exact, atol=0.51 / 65535)


def test_masks_and_overlays_are_written_beside(model, images, tmp_path):
    output = tmp_path / 'maps'
    cut = 0.3
    assert predict(model, images, output, f'--threshold={cut}', '--overlay') == 0
    for name in ('colour', 'sub/deep'):
        levels, mask = read(output / f'{name}.png'), read(output / 'masks' / f'{name}.png')
        assert np.array_equal(mask, np.where(levels / 255 >= cut, 255, 0))
    assert read(output / 'overlays' / 'colour.png').shape == (37, 58, 3)


def test_several_classes_get_a_map_each(tmp_path, images):
    model = write_model(tmp_path / 'two.safetensors', classes=2)
    assert predict(model, images / 'grey.png', tmp_path / 'maps', '--config.data.classes=2') == 0
    assert sorted(path.name for path in (tmp_path / 'maps').glob('*.png')) == ['grey_1.png', 'grey_2.png']
    assert predict(model, images / 'grey.png', tmp_path / 'raw', '--config.data.classes=2', '--raw') == 0
    assert np.load(tmp_path / 'raw' / 'grey.npy').shape == (37, 58, 2)


def test_a_broken_file_is_reported_and_the_others_are_done(model, images, tmp_path, capsys):
    (images / 'broken.png').write_bytes((images / 'grey.png').read_bytes()[:60])
    assert predict(model, images, tmp_path / 'maps') == 1
    error = capsys.readouterr().err
    assert 'broken.png: cannot be read' in error
    assert '5 of 6 images predicted' in error
    assert len(list((tmp_path / 'maps').rglob('*.png'))) == 5


def test_a_rerun_goes_on_and_leaves_what_is_there(model, images, tmp_path, capsys):
    output = tmp_path / 'maps'
    predict(model, images, output)
    whole = {path: path.read_bytes() for path in output.rglob('*.png')}
    kept = output / 'colour.png'
    time = kept.stat().st_mtime_ns
    (output / 'grey.png').unlink()
    (output / 'sub' / '.deep.png.123').write_bytes(b'half a map')
    (output / 'sub' / 'deep.png').unlink()
    assert predict(model, images, output) == 0
    assert '2 of 5 images predicted, 3 were there already' in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == time
    assert {path: path.read_bytes() for path in output.rglob('*.png') if not path.name.startswith('.')} == whole


def test_maps_of_another_model_or_of_unknown_origin_are_refused(model, images, tmp_path, capsys):
    output = tmp_path / 'maps'
    predict(model, images, output)
    before = {path: path.read_bytes() for path in output.rglob('*') if path.is_file()}
    other = write_model(tmp_path / 'other.safetensors', seed=1)
    assert predict(other, images, output) == 2
    assert 'another model_hash' in capsys.readouterr().err
    assert predict(model, images, output, '--raw') == 2
    assert 'another raw' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.rglob('*') if path.is_file()} == before
    assert predict(model, images / 'grey.png', images / 'sub') == 2
    assert 'of unknown origin' in capsys.readouterr().err


def test_maps_below_the_folder_of_images_are_not_taken_for_images(model, images):
    assert predict(model, images, images / 'maps') == 0
    assert predict(model, images, images / 'maps') == 0
    assert len(list((images / 'maps').rglob('*.png'))) == 5


class Counting:
    """A model that only counts how many images it is handed at once."""

    classes, size, model_hash, window, reading = 1, 8, 'hash', None, Reading()

    def __init__(self):
        self.most = 0

    def probabilities(self, images):
        self.most = max(self.most, len(images))
        return [np.full((8, 8, 1), 0.5, np.float32) for _ in images]


def test_few_images_are_held_at_once_however_many_there_are(images, tmp_path):
    counting = Counting()
    files = [(f'image{number}', images / 'grey.png') for number in range(23)]
    done, before, faults = predict_files(counting, files, Writer(tmp_path / 'maps', counting), 4)
    assert (done, before, faults) == (23, 0, [])
    assert counting.most == 4
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 23


@pytest.mark.parametrize(('settings', 'folder'), [({'threshold': 0.5}, 'masks'), ({'outline': True}, 'overlays')])
def test_a_file_that_two_images_would_write_is_refused(images, tmp_path, settings, folder):
    source, other = images / 'grey.png', images / 'turned.jpg'
    files, model = [('a', source), (f'{folder}/a', other)], Counting()
    with pytest.raises(InputError) as caught:
        predict_files(model, files, Writer(tmp_path / 'maps', model, **settings), 4)
    path = tmp_path / f'maps/{folder}/a.png'
    assert str(caught.value) == f'{path}: would be written for {source} and for {other}; predict them apart'
    assert not list((tmp_path / 'maps').rglob('*.png'))
    assert predict_files(model, files, Writer(tmp_path / 'plain', model), 4) == (2, 0, [])


def test_a_folder_is_claimed_once(tmp_path):
    claim_folder(tmp_path / 'maps', {'model_hash': 'a', 'raw': None})
    claim_folder(tmp_path / 'maps', {'model_hash': 'a', 'raw': None})
    with pytest.raises(InputError, match='another model_hash, raw'):
        claim_folder(tmp_path / 'maps', {'model_hash': 'b', 'raw': 'npy'})


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--images={images}', '--output={output}'], '--model is missing'),
        (['--model={model}', '--output={output}'], '--images is missing'),
        (['--model={model}', '--images={images}'], '--output is missing'),
        (['--model={model}', '--images=nowhere', '--output={output}'], '--images=nowhere: no such file'),
        (['--model={model}', '--images={images}', '--output={images}'], 'is the folder of the images'),
        (['--model={model}', '--images={images}', '--output={output}', '--raw=jpg'], 'raw'),
        (['--model={model}', '--images={images}', '--output={output}', '--threshold=2'], 'threshold'),
        (['--model={model}', '--images={images}', '--output={output}', '--batch=0'], 'batch'),
        (['--model=nowhere.pth', '--images={images}', '--output={output}'], 'nowhere.pth'),
        (['--model={model}', '--images={images}', '{images}/sub/../grey.png', '--output={output}'], 'same name'),
        (['--model={model}', '--images={images}', '--output={images}/grey.png'], 'cannot be used for maps'),
    ],
)
def test_what_cannot_start_is_said_in_a_line_and_leaves_nothing(model, images, tmp_path, capsys, arguments, words):
    output = tmp_path / 'maps'
    arguments = [word.format(model=model, images=images, output=output) for word in arguments]
    assert main(['', 'predict', *arguments, *CONFIG]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ')
    assert words in error
    assert not output.exists()
