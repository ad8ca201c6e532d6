"""load_model and Predictor: the same maps from every kind of source, for images of any size, from any thread."""

import functools
import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.build import create_model
from m2snet_jax.config import to_json
from m2snet_jax.data.augment import test_example as normalised_example
from m2snet_jax.images.formats import write_png
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.prediction.predictor import Predictor
from m2snet_jax.weights import state_dict
from m2snet_jax.weights.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures('compiled_quickly')

SIZE = 40
SMALL = {'model.encoder': 'res2net14', 'model.columns': 2, 'data.size': SIZE}


def small_model(classes=1, seed=0):
    """A model whose running statistics are not those it starts with."""
    model = create_model('m2snet', 'res2net14', classes, seed=seed, columns=2)
    draw = np.random.default_rng(seed)
    moved = jax.tree.map(lambda leaf: leaf + draw.uniform(0, 0.1, leaf.shape), nnx.state(model, nnx.BatchStat))
    nnx.update(model, moved)
    return model


def save_run(folder, models, **overrides):
    """Saves models as the checkpoints 1, 2, … of a run."""
    checkpoints = Checkpoints(folder / 'checkpoints')
    for step, model in enumerate(models, start=1):
        checkpoints.save_model(step, split_model(model)[1])
    checkpoints.close()
    (folder / 'config.json').write_text(json.dumps({'config': to_json(load_config('default', **SMALL, **overrides))}))


def save_file_of(model, path):
    save_file({name: np.ascontiguousarray(array) for name, array in state_dict(model).items()}, path)


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def predictor():
    return Predictor(small_model(), SIZE)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs') / 'run'
    folder.mkdir()
    save_run(folder, [small_model(seed=1), small_model()])
    return folder


def truth(image, model):
    """The map by the model itself, one image at a time, without Predictor."""
    model.eval()
    return np.asarray(probability_of(*nnx.split(model), normalised_example(image, SIZE)[None]))[0]


@functools.partial(jax.jit, static_argnums=0)
def probability_of(graph, state, images):
    return jax.nn.sigmoid(nnx.merge(graph, state)(images))


def test_every_kind_of_source_gives_one_model(run, tmp_path, predictor):
    save_file_of(small_model(), tmp_path / 'model.safetensors')
    config = load_config('default', **SMALL)
    sources = [run, str(run), run / 'checkpoints', run / 'checkpoints' / '2']
    loaded = [load_model(source) for source in sources] + [load_model(tmp_path / 'model.safetensors', config=config)]
    for other in loaded:
        assert (other.size, other.classes, other.model_hash) == (SIZE, 1, predictor.model_hash)
        assert other.config.model.encoder == 'res2net14'
    assert load_model(run / 'checkpoints' / '1').model_hash != predictor.model_hash
    assert predictor.config is None
    image = image_of(50, 60)
    np.testing.assert_array_equal(loaded[0](image), predictor(image))


def test_model_hash_is_over_sorted_names_shapes_and_float32_bytes(predictor):
    digest = hashlib.sha256()
    for name, array in sorted(state_dict(small_model()).items()):
        digest.update(f'{name} {tuple(array.shape)}\n'.encode() + array.astype('<f4').tobytes())
    assert predictor.model_hash == digest.hexdigest()


def test_reading_changes_nothing_in_the_folder_of_a_run(run, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    unfinished = folder / 'checkpoints' / '3.orbax-checkpoint-tmp' / 'model'
    unfinished.mkdir(parents=True)  # as while a training saves
    before = sorted(folder.rglob('*'))
    assert load_model(folder).model_hash == load_model(run).model_hash
    assert sorted(folder.rglob('*')) == before


def test_maps_have_the_size_of_the_image_and_are_resized_in_float(predictor, tmp_path):
    image = image_of(33, 71)
    probability = predictor(image)
    assert probability.dtype == np.float32
    assert probability.shape == (33, 71)
    own = truth(image, small_model())[..., 0]
    expected = np.asarray(Image.fromarray(own).resize((71, 33), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(probability, expected, atol=1e-5)
    assert 0 <= probability.min() < probability.max() <= 1
    write_png(tmp_path / 'a.png', image)
    np.testing.assert_array_equal(predictor(tmp_path / 'a.png'), probability)
    np.testing.assert_array_equal(predictor(str(tmp_path / 'a.png')), probability)


def test_grey_images_are_read_as_colour(predictor):
    grey = image_of(20, 30)[..., 0]
    np.testing.assert_array_equal(predictor(grey), predictor(np.stack([grey] * 3, -1)))


def test_several_classes():
    predictor = Predictor(small_model(3), SIZE)
    image = image_of(30, 20)
    probability = predictor(image)
    assert probability.shape == (30, 20, 3)
    assert predictor.classes == 3
    own = truth(image, small_model(3))
    for channel in range(3):
        expected = Image.fromarray(own[..., channel]).resize((20, 30), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(probability[..., channel], expected, atol=1e-5)


def test_lists_of_any_sizes_run_in_at_most_four_programs():
    predictor, model = Predictor(small_model(), SIZE), small_model()
    images = [image_of(20 + number, 50 - number, number) for number in range(11)]
    expected = [truth(image, model) for image in images]
    for count in (0, 1, 2, 3, 5, 8, 9, 11):
        probabilities = predictor.probabilities(images[:count])
        assert len(probabilities) == count
        for probability, truth_ in zip(probabilities, expected, strict=False):
            assert probability.shape == (SIZE, SIZE, 1)
            np.testing.assert_allclose(probability, truth_, atol=1e-5)
    assert sorted(shape[0] for _, shape in predictor._ensemble.programs) == [1, 2, 4, 8]
    maps = predictor(images[:3])
    assert [probability.shape for probability in maps] == [image.shape[:2] for image in images[:3]]


@pytest.mark.slow
def test_a_model_that_trains_with_remat_predicts_many_images():
    model = small_model()
    model.encoder.remat = True
    graph, weights = split_model(model)
    images = [image_of(40, 40, seed) for seed in range(3)]
    given = np.stack([normalised_example(image, SIZE) for image in images])
    for probability, image in zip(make_predict_step(graph)(weights, given), images, strict=True):
        np.testing.assert_allclose(probability, truth(image, small_model()), atol=1e-5)


def test_threads_share_one_program_and_agree():
    predictor, images = Predictor(small_model(), SIZE), [image_of(40, 40, seed) for seed in range(6)]
    compiled = []
    step, weights = predictor._ensemble.steps[0]
    lower = step.lower
    counted = type('Step', (), {'lower': lambda self, *arguments: compiled.append(1) or lower(*arguments)})()
    predictor._ensemble.steps[0] = counted, weights
    with ThreadPoolExecutor(6) as threads:
        maps = list(threads.map(predictor, images * 3))
    assert len(compiled) == 1
    for number, probability in enumerate(maps):
        np.testing.assert_array_equal(probability, predictor(images[number % 6]))


@pytest.mark.parametrize('kind', ['float', 'alpha', 'batch', 'empty'])
def test_other_arrays_are_refused(kind, predictor):
    image = image_of(20, 20)
    wrong = {
        'float': image / np.float32(255),
        'alpha': np.concatenate([image, image[..., :1]], -1),
        'batch': image[None],
        'empty': image[:0],
    }[kind]
    with pytest.raises(InputError, match=r'an image is .*: give uint8 \[H, W, 3\] or \[H, W\]'):
        predictor(wrong)


def test_sources_that_cannot_be_used_are_named(run, tmp_path):
    def refused(source, message, **kwargs):
        with pytest.raises(InputError, match=message) as caught:
            load_model(source, **kwargs)
        assert '\n' not in str(caught.value)

    refused(tmp_path / 'absent', 'absent: no such file')
    refused(tmp_path, 'holds no run')
    refused(run / 'checkpoints' / '7', '7: no such file')
    save_file_of(small_model(), tmp_path / 'model.safetensors')
    refused(
        tmp_path / 'model.safetensors',
        r'model\.safetensors: the weights do not fit M2SNet: .* missing .*'
        r'expected m2snet with res2net50 and 1 output map',
    )
    refused(tmp_path / 'model.safetensors', 'nothing', config='nothing')


@pytest.mark.parametrize('change', ['classes', 'model', 'no numbers', 'no checkpoint'])
def test_checkpoints_that_do_not_fit_or_are_damaged_are_refused(change, run, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    if change in ('classes', 'model'):
        key, value = {'classes': ('data.classes', 2), 'model': ('model.name', 'msnet')}[change]
        config = to_json(load_config('default', **SMALL, **{key: value}))
        (folder / 'config.json').write_text(json.dumps({'config': config}))
        message = 'holds another model than its config names, or than is loaded here: .* there and .* here$'
    elif change == 'no checkpoint':
        shutil.rmtree(folder / 'checkpoints')
        message = 'holds no checkpoint'
    else:
        shutil.rmtree(folder / 'checkpoints/2/model')
        message = 'checkpoints/2/model: damaged'
    with pytest.raises(InputError, match=message):
        load_model(folder)
