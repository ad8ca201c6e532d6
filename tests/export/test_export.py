"""The command `export`: each file is run as another program would run it, beside what `predict` writes."""

import hashlib
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image
from safetensors.numpy import load_file
from tiny_models import write_model

from m2snet_jax import load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.export import files
from m2snet_jax.weights import state_dict

CONFIG = ['--config=quickstart', '--config.model.encoder=res2net14', '--config.data.size=48', '--config.data.classes=2']
PAGE = Path(__file__).parents[2] / 'docs' / 'export.md'
KINDS = ['stablehlo', 'onnx']
REASON = 'an optional requirement: pip install .[export]'
KEYS = {'model.encoder': 'res2net14', 'data.size': 48, 'data.classes': 2}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model whose maps are not all alike, with two classes."""
    return write_model(tmp_path_factory.mktemp('model') / 'tiny.safetensors', classes=2)


@pytest.fixture(scope='module')
def predictor(model):
    return load_model(model, config=load_config('quickstart', **KEYS))


def need(kind):
    for package in ('jax2onnx', 'onnxruntime') if kind == 'onnx' else ():
        pytest.importorskip(package, reason=REASON)


@pytest.fixture(scope='module')
def export_once(model, tmp_path_factory):
    """Returns a function: kind → the file that the command writes, each written once."""
    paths = {}

    def path_of(kind):
        need(kind)
        if kind not in paths:
            path = tmp_path_factory.mktemp(kind) / f'tiny.{kind}'
            assert run_export(model, path) == 0
            paths[kind] = path
        return paths[kind]

    return path_of


@pytest.fixture(params=KINDS)
def exported(request, export_once):
    """An exported file of either kind, as the command writes it."""
    return export_once(request.param)


def run_export(model, path, *arguments):
    words = [f'--model={model}', f'--format={path.suffix[1:]}', f'--output={path}']
    return main(['', 'export', *words, *CONFIG, *arguments])


def loaded(path):
    """Returns the file as a function, by the library that other programs load it with."""
    if path.suffix == '.stablehlo':
        return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    session = pytest.importorskip('onnxruntime').InferenceSession(path)
    return lambda images: session.run(['probability', 'levels'], {'images': images})


def pictures(count, height, width):
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (count, 5, 7, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((width, height))) for one in small])


@pytest.mark.parametrize(('count', 'height', 'width'), [(1, 37, 58), (5, 61, 80)])
def test_any_batch_of_any_size_gives_the_maps_of_the_model(exported, predictor, count, height, width):
    images = pictures(count, height, width)
    probability, levels = (np.asarray(array) for array in loaded(exported)(images))
    assert (probability.dtype, levels.dtype) == (np.float32, np.uint8)
    expected = np.stack(predictor(list(images)))
    assert expected.std() > 0.01
    np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-5, strict=True)
    assert levels.shape == expected.shape


def test_levels_are_the_png_that_predict_writes(exported, model, tmp_path):
    image = pictures(1, 57, 90)
    Image.fromarray(image[0]).save(tmp_path / 'image.png')
    words = [f'--model={model}', f'--images={tmp_path / "image.png"}', f'--output={tmp_path / "maps"}']
    assert main(['', 'predict', *words, *CONFIG]) == 0
    _, levels = loaded(exported)(image)
    for number in (1, 2):
        written = np.asarray(Image.open(tmp_path / 'maps' / f'image_{number}.png')).astype(int)
        found = np.asarray(levels)[0, :, :, number - 1]
        assert np.abs(found - written).max() <= 1
        assert np.mean(found != written) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_several_models_are_one_file_of_their_mean(kind, model, tmp_path):
    need(kind)
    models = [model, write_model(tmp_path / 'other.safetensors', seed=1, classes=2)]
    path, images = tmp_path / f'both.{kind}', pictures(1, 37, 58)
    assert run_export(models[0], path, f'--model={models[1]}') == 0
    probability, _ = loaded(path)(images)
    singles = [load_model(one, config=load_config('quickstart', **KEYS))(images[0]) for one in models]
    assert np.abs(singles[0] - singles[1]).max() > 0.1
    np.testing.assert_allclose(np.asarray(probability)[0], np.mean(singles, axis=0), rtol=0, atol=1e-5)
    assert json.loads((tmp_path / f'both.{kind}.json').read_text())['models'] == 2


def test_the_file_beside_says_what_goes_in_and_comes_out(exported, predictor):
    about = json.loads(exported.with_name(f'{exported.name}.json').read_text())
    assert about['sha256'] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert about['model_hash'] == predictor.model_hash
    assert (about['size'], about['classes'], about['encoder']) == (48, 2, 'res2net14')
    np.testing.assert_allclose(about['mean'], [0.485, 0.456, 0.406], atol=1e-6)
    np.testing.assert_allclose(about['std'], [0.229, 0.224, 0.225], atol=1e-6)
    assert 'jax' in about['versions']
    assert [one['images'] for one in about['checked']] == ['noise', 'phantom']
    assert [one['shape'][0] for one in about['checked']] == [5, 1]
    assert all(one['probability'] <= 1e-5 and one['levels'] <= 1 for one in about['checked'])
    assert sorted(path.name for path in exported.parent.iterdir()) == [exported.name, f'{exported.name}.json']


def test_stablehlo_is_for_all_three_platforms(export_once):
    found = export.deserialize(bytearray(export_once('stablehlo').read_bytes()))
    assert found.platforms == ('cpu', 'cuda', 'tpu')
    assert [str(size) for size in found.in_avals[0].shape] == ['B', 'H', 'W', '3']


def test_onnx_runtime_has_nothing_to_say_of_the_file(export_once, capfd):
    path = export_once('onnx')
    capfd.readouterr()
    loaded(path)(pictures(1, 37, 58))
    assert capfd.readouterr().err == ''


def test_safetensors_are_the_weights_as_convert_writes_them(model, predictor, tmp_path):
    path = tmp_path / 'tiny.safetensors'
    assert run_export(model, path) == 0
    written, expected = load_file(path), state_dict(predictor.model)
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    about = json.loads((tmp_path / 'tiny.safetensors.json').read_text())
    assert [one['probability'] for one in about['checked']] == [0, 0]


def test_own_images_are_checked_with(model, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    for number in range(20):
        Image.fromarray(pictures(1, 30, 40)[0]).save(images / f'{number:02}.png')
    assert run_export(model, tmp_path / 'tiny.safetensors', f'--images={images}') == 0
    about = json.loads((tmp_path / 'tiny.safetensors.json').read_text())
    names = [one['images'] for one in about['checked']]
    assert names == ['noise', '00', '03', '06', '09', '12', '15', '18']
    assert '03 (1 × 30 × 40): largest difference of a probability' in capsys.readouterr().out


@pytest.mark.parametrize('wrong', ['probability', 'levels', 'shape', 'nan'])
def test_a_file_with_other_maps_is_refused_with_the_numbers(wrong, model, tmp_path, monkeypatch, capsys):
    def load(path, predictor):
        def run(images):
            probability, levels = files.predicted(predictor, images)
            if wrong == 'probability':
                probability = probability + np.float32(1e-3) * (np.arange(len(images)) == 4)[:, None, None, None]
            elif wrong == 'levels':
                levels = levels ^ 2
            elif wrong == 'nan':
                probability = probability * np.float32('nan')
            else:
                probability = probability[..., :1]
            return probability, levels

        return run

    write, _, packages = files.FORMATS['safetensors']
    monkeypatch.setitem(files.FORMATS, 'safetensors', (write, load, packages))
    assert run_export(model, tmp_path / 'tiny.safetensors') == 1
    error = capsys.readouterr().err
    assert 'tiny.safetensors: not kept' in error
    assert 'noise (5 × 25 × 99)' in error
    number = {'probability': '1.0e-03', 'levels': 'of a level 2', 'shape': 'inf', 'nan': 'nan'}[wrong]
    assert number in error
    assert list(tmp_path.iterdir()) == []


def test_the_tolerance_is_the_users(model, tmp_path, capsys):
    path = tmp_path / 'tiny.stablehlo'
    assert run_export(model, path, '--tolerance=0') == 1
    assert 'tiny.stablehlo: not kept' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    'no model': (['--format=stablehlo'], '--model is missing'),
    'absent model': (['--model={folder}/absent.pth', '--output={folder}/a.stablehlo'], 'absent.pth: no such file'),
    'ending': (['--model={model}', '--output={folder}/a.onnx'], 'a.onnx: must end in .stablehlo'),
    'exists': (['--model={model}', '--format=safetensors', '--output={model}'], 'exists already'),
    'no folder': (['--model={model}', '--output={folder}/b/a.stablehlo'], 'there is no folder'),
    'format': (['--model={model}', '--format=tflite'], 'tflite'),
    'no images': (['--model={model}', '--output={folder}/a.stablehlo', '--images=nowhere'], '--images=nowhere'),
}


@pytest.mark.parametrize('reason', REFUSED)
def test_what_cannot_start_is_said_in_a_line_and_leaves_nothing(reason, model, tmp_path, capsys):
    arguments, message = REFUSED[reason]
    assert main(['', 'export', *(word.format(model=model, folder=tmp_path) for word in arguments), *CONFIG]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_the_page_names_the_converter_that_is_tested():
    assert f'pip install --no-deps {files.CONVERTER}\n' in PAGE.read_text()


def test_a_missing_package_is_named(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'jax2onnx', None)
    assert run_export(model, tmp_path / 'tiny.onnx') == 2
    assert 'needs jax2onnx, which is not installed: pip install ".[export]" && ' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_page_loads_what_was_exported(exported, tmp_path, monkeypatch):
    """The page's own lines, which use nothing of this package."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pictures(1, 57, 90)[0]).save('image.png')
    Path(f'model{exported.suffix}').write_bytes(exported.read_bytes())
    blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
    (text,) = (block for block in blocks if exported.suffix in block)
    names = {}
    exec(compile(text, str(PAGE), 'exec'), names)
    assert 'm2snet_jax' not in text
    assert names['probability'].shape == (1, 57, 90, 2)
    assert np.asarray(Image.open('map.png')).shape == (57, 90)
