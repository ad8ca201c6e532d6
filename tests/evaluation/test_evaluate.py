"""The command `evaluate`: maps of any program, and models, against masks."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import ARGUMENTS, write_model

from m2snet_jax import InputError, load_config, load_model, metrics
from m2snet_jax.__main__ import main
from m2snet_jax.config import to_json
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.evaluation.foreign_maps import find_maps
from m2snet_jax.prediction.predictor import released_map

pytestmark = pytest.mark.usefixtures('compiled_quickly')

NAMES = ('one', 'two', 'three', 'four')


@pytest.fixture(scope='module', autouse=True)
def _data_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TFDS_DATA_DIR', str(tmp_path_factory.mktemp('tfds')))
        yield


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'tiny.safetensors')


@pytest.fixture
def folders(tmp_path):
    """Maps and masks as another program would write them, and their pixels by name."""
    rng = np.random.default_rng(0)
    pairs = {}
    for number, name in enumerate(NAMES):
        rows, columns = np.mgrid[:50, :60]
        mask = np.where((rows - 25) ** 2 + (columns - 20 - 5 * number) ** 2 < 150, 255, 0).astype(np.uint8)
        soft = np.clip(0.7 * mask + rng.normal(40, 30, mask.shape), 0, 255).astype(np.uint8)
        pairs[name] = soft, mask
    for kind in ('maps', 'masks'):
        (tmp_path / kind).mkdir()
    for name, (soft, mask) in pairs.items():
        Image.fromarray(soft).save(tmp_path / 'maps' / f'{name}.png')
        Image.fromarray(mask).save(tmp_path / 'masks' / f'{name}.png')
    return tmp_path, pairs


def evaluate(capsys, folder, *arguments):
    """Runs the command on `folder/maps`; returns (status, sheet or None, stdout, stderr)."""
    output = folder / 'output'
    status = main(['', 'evaluate', f'--maps={folder / "maps"}', f'--output={output}', *map(str, arguments)])
    path = output / 'scores' / 'summary.json'
    captured = capsys.readouterr()
    return status, json.loads(path.read_text()) if path.exists() else None, captured.out, captured.err


def on_masks(capsys, folder, *arguments):
    return evaluate(capsys, folder, f'--masks={folder / "masks"}', '--config.evaluate.bootstrap=100', *arguments)


def expected(pairs):
    summary = metrics.aggregate_all([metrics.score_all(*pair) for pair in pairs])
    return {f'test/{name}': value for name, value in summary.items()}


def figures(sheet):
    return {name: float(value) for name, value in sheet['scores'].items()}


def test_maps_of_another_program(folders, capsys):
    folder, pairs = folders
    status, sheet, out, _ = on_masks(capsys, folder)
    assert status == 0
    assert figures(sheet) == pytest.approx(expected([pairs[name] for name in sorted(NAMES)]), nan_ok=True)
    for title in ('released: ', 'pranet: ', 'hard: ', 'pooled: '):
        assert title in out
    assert f'{sheet["scores"]["test/pranet/meanDic"]:.4f}' in out
    assert (folder / 'output' / 'report.html').exists()
    with (folder / 'output' / 'scores' / 'per_image.csv').open() as file:
        assert [row['name'] for row in csv.DictReader(file)] == sorted(NAMES)


def test_maps_of_another_size_are_resized_by_the_rule_of_each_protocol(folders, capsys):
    folder, pairs = folders
    small = Image.fromarray(pairs['one'][0]).resize((31, 27))
    small.save(folder / 'maps' / 'one.png')
    pairs['one'] = np.asarray(small), pairs['one'][1]
    status, sheet, _, _ = on_masks(capsys, folder)
    assert status == 0
    assert any('1 maps of another size' in line for line in sheet['warnings'])
    resized = {
        'released': np.asarray(small.resize((60, 50))),
        'hard': np.asarray(small.resize((60, 50), Image.Resampling.BILINEAR)),
    }
    for protocol, one in resized.items():
        maps = [one if name == 'one' else pairs[name][0] for name in NAMES]
        scores = [metrics.score(m, pairs[name][1], protocol) for m, name in zip(maps, NAMES, strict=True)]
        assert figures(sheet)[f'test/{protocol}/MAE'] == pytest.approx(np.mean([one['MAE'] for one in scores]))
    assert figures(sheet) == pytest.approx(expected([pairs[name] for name in sorted(NAMES)]), nan_ok=True)


def test_sixteen_bit_maps_are_divided_by_257(folders, capsys):
    folder, pairs = folders
    for name in NAMES:
        Image.fromarray(pairs[name][0].astype(np.uint16) * 257).save(folder / 'maps' / f'{name}.png')
    faint = np.full((50, 60), 200, np.uint16)  # below 1 of 255: a map, however faint, is no mask of 200
    Image.fromarray(faint).save(folder / 'maps' / 'four.png')
    pairs['four'] = np.ones((50, 60), np.uint8), pairs['four'][1]
    status, sheet, _, _ = on_masks(capsys, folder)
    assert status == 0
    assert any('4 maps of 16 bits' in line for line in sheet['warnings'])
    assert figures(sheet) == pytest.approx(expected([pairs[name] for name in sorted(NAMES)]), nan_ok=True)


def test_masks_of_zero_and_one_are_no_empty_masks_under_pranet_and_the_sheet_says_so(folders, capsys):
    folder, pairs = folders
    for name in NAMES:
        Image.fromarray(pairs[name][1] // 255).save(folder / 'masks' / f'{name}.png')
    _, sheet, out, _ = on_masks(capsys, folder)
    assert figures(sheet) == pytest.approx(expected([pairs[name] for name in sorted(NAMES)]), nan_ok=True)
    assert 'warning: test: 4 masks of 0 and 1' in out


def test_published_figures_of_a_set_are_not_shown_beside_other_masks(folders, capsys):
    status, sheet, out, _ = on_masks(capsys, folders[0], '--config=busi')
    assert status == 0
    assert 'published' not in sheet
    assert '.7921' not in out
    assert '.7921' not in (folders[0] / 'output' / 'report.html').read_text()


def test_scores_of_other_maps_are_not_overwritten(folders, capsys):
    folder, _ = folders
    assert on_masks(capsys, folder)[0] == on_masks(capsys, folder)[0] == 0  # the same maps again
    before = (folder / 'output/scores/summary.json').read_bytes()
    assert f'report: {folder}/output/report.html' in on_masks(capsys, folder)[3]
    other = [f'--maps={folder / "masks"}', f'--masks={folder / "masks"}', f'--output={folder / "output"}']
    assert main(['', 'evaluate', *other]) == 2
    assert f'output: holds the scores of {folder / "maps"}; name another folder' in capsys.readouterr().err
    assert json.loads((folder / 'output/scores/summary.json').read_bytes())['scores'] == json.loads(before)['scores']


def test_scores_of_maps_are_not_overwritten_by_those_of_a_model(model, folders, capsys):
    folder, _ = folders
    assert on_masks(capsys, folder)[0] == 0
    before = (folder / 'output/scores/summary.json').read_bytes()
    assert main(['', 'evaluate', f'--model={model}', f'--output={folder / "output"}', *ARGUMENTS]) == 2
    assert f'output: holds the scores of {folder / "maps"}; name another folder' in capsys.readouterr().err
    assert (folder / 'output/scores/summary.json').read_bytes() == before
    assert not (folder / 'output/maps').exists()


def test_missing_maps_are_named_and_extra_ones_left_out(folders, capsys):
    folder, pairs = folders
    (folder / 'maps' / 'two.png').unlink()
    Image.fromarray(pairs['one'][0]).save(folder / 'maps' / 'five.png')
    status, sheet, _, err = on_masks(capsys, folder)
    assert status == 1
    assert sheet['missing'] == {'test': ['two']}
    assert '1 of 4 maps of test are missing: two' in err
    assert '1 files belong to no mask and are left out: five' in err
    assert figures(sheet) == pytest.approx(expected([pairs[n] for n in sorted(NAMES) if n != 'two']), nan_ok=True)


def test_a_broken_map_is_named_and_the_others_are_scored(folders, capsys):
    folder, pairs = folders
    data = (folder / 'maps' / 'two.png').read_bytes()
    (folder / 'maps' / 'two.png').write_bytes(data[: len(data) // 2])
    status, sheet, _, err = on_masks(capsys, folder)
    assert status == 1
    assert 'two.png: cannot be read' in err
    assert figures(sheet) == pytest.approx(expected([pairs[n] for n in sorted(NAMES) if n != 'two']), nan_ok=True)
    assert [line for line in sheet['warnings'] if f'not in these scores: {folder}/maps/two.png: cannot be' in line]
    assert f'not in these scores: {folder}/maps/two.png: cannot be' in (folder / 'output/report.html').read_text()


def test_one_bit_and_colour_maps_and_other_formats(folders, capsys):
    folder, pairs = folders
    binary = pairs['one'][0] > 127
    Image.fromarray(binary).save(folder / 'maps' / 'one.png')
    (folder / 'maps' / 'two.png').unlink()
    Image.fromarray(pairs['two'][0]).convert('RGB').save(folder / 'maps' / 'two.bmp')
    pairs['one'] = binary.astype(np.uint8) * 255, pairs['one'][1]
    status, sheet, _, _ = on_masks(capsys, folder)
    assert status == 0
    assert figures(sheet) == pytest.approx(expected([pairs[name] for name in sorted(NAMES)]), nan_ok=True)


def test_several_classes(folders, capsys):
    folder, pairs = folders
    for name, (soft, mask) in pairs.items():
        (folder / 'maps' / f'{name}.png').unlink()
        indices = np.where(mask > 0, 2, 0).astype(np.uint8)
        indices[:5] = 1
        Image.fromarray(indices).save(folder / 'masks' / f'{name}.png')
        Image.fromarray(np.where(indices == 1, 255, 0).astype(np.uint8)).save(folder / 'maps' / f'{name}_1.png')
        Image.fromarray(soft).save(folder / 'maps' / f'{name}_2.png')
    status, sheet, _, _ = on_masks(capsys, folder, '--config.data.classes=2')
    assert status == 0
    assert sheet['scores']['test/class1/hard/Dice'] == 1
    assert sheet['scores']['test/hard/Dice'] == pytest.approx((1 + sheet['scores']['test/class2/hard/Dice']) / 2)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([], 'either --model'),
        (['--model=a', '--maps=b'], 'either --model'),
        (['--maps=nowhere'], '--maps needs the masks'),
        (['--maps=nowhere', '--masks={masks}'], '--maps=nowhere: no such folder'),
        (['--maps={maps}', '--masks=nowhere'], '--masks=nowhere: no such folder'),
        (['--maps={masks}/..', '--masks={masks}'], 'no map has the name of a mask'),
        (['--model=nowhere.pth'], 'name a --config'),
        (['--maps={maps}', *ARGUMENTS, '--sets=other'], '--sets=other: no such test set; there are test'),
    ],
)
def test_what_cannot_start_is_said_in_a_line_and_leaves_nothing(folders, capsys, arguments, words):
    folder, _ = folders
    arguments = [word.format(maps=folder / 'maps', masks=folder / 'masks') for word in arguments]
    status = main(['', 'evaluate', f'--output={folder / "output"}', *arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith('error: ')
    assert words in error
    assert not (folder / 'output').exists()


def test_a_model_predicts_and_its_maps_score_the_same(model, tmp_path, capsys):
    output = tmp_path / 'output'
    status = main(['', 'evaluate', f'--model={model}', f'--output={output}', *ARGUMENTS])
    out = capsys.readouterr().out
    sheet = json.loads((output / 'scores' / 'summary.json').read_text())
    assert status == 0
    assert 'test: 5 images' in out
    predictor = load_model(model, config=load_config('quickstart', **{'model.encoder': 'res2net14', 'data.size': 48}))
    assert sheet['model_hash'] == predictor.model_hash
    assert sheet['config']['data']['name'] == 'phantoms'
    assert sheet['warnings'] == []  # nobody knows how a bare file was trained
    assert len(sheet['manifest_hash']) == 64
    config = load_config('quickstart', **{'data.size': 48, 'data.count': 10, 'data.test_count': 5})
    example = open_dataset(config).tests['test'][0]
    (probability,) = predictor.probabilities([example['image']])
    written = np.asarray(Image.open(output / 'maps' / 'test' / f'{example["name"]}.png'))
    ours = released_map(np.asarray(probability), *example['mask'].shape)[..., 0]
    assert np.abs(written.astype(int) - ours).max() <= 1

    again = tmp_path / 'again'
    assert main(['', 'evaluate', f'--maps={output / "maps"}', f'--output={again}', *ARGUMENTS]) == 0
    maps_sheet = json.loads((again / 'scores' / 'summary.json').read_text())
    assert maps_sheet['scores'] == sheet['scores']
    assert maps_sheet['intervals'] == sheet['intervals']
    assert maps_sheet['manifest_hash'] == sheet['manifest_hash']


def test_maps_of_two_models_are_not_mixed(model, tmp_path, capsys):
    other = write_model(tmp_path / 'other.safetensors', seed=1)
    output = tmp_path / 'output'
    assert main(['', 'evaluate', f'--model={model}', f'--output={output}', *ARGUMENTS]) == 0
    before = (output / 'scores' / 'summary.json').read_bytes()
    assert main(['', 'evaluate', f'--model={other}', f'--output={output}', *ARGUMENTS]) == 2
    assert 'another model_hash' in capsys.readouterr().err
    assert (output / 'scores' / 'summary.json').read_bytes() == before


@pytest.fixture(params=['evaluate', 'calibrate'])
def config_of(request, tmp_path, monkeypatch):
    """Returns what config a command gives to the predictor for a run and keys; it ends there."""

    def config_of(recorded, *arguments):
        (tmp_path / 'config.json').write_text(json.dumps({'config': recorded}))
        given = []

        def stop(*_, config, **others):
            given.append(config)
            raise InputError('enough')

        monkeypatch.setattr('m2snet_jax.prediction.predictor.load_model', stop)
        assert main(['', request.param, f'--model={tmp_path}', *arguments]) == 2
        return given[0]

    return config_of


def test_a_run_is_scored_on_its_own_test_sets_with_the_keys_that_are_given(config_of):
    recorded = to_json(load_config('busi:small', **{'data.fold': 2, 'model.name': 'msnet'}))
    del recorded['evaluate']['bootstrap']  # a key that came later than the run
    config = config_of(recorded, '--root=/elsewhere', '--config.evaluate.batch=3')
    assert (config.data.name, config.data.fold, config.model.name) == ('busi', 2, 'msnet')
    assert tuple(config.data.sizes) == (96, 112, 128)
    assert (config.data.root, config.evaluate.batch, config.evaluate.bootstrap) == ('/elsewhere', 3, 2000)


def test_keys_that_are_given_with_the_value_of_the_default_replace_those_of_a_run(config_of):
    keys = {'data.seed': 1, 'data.folds': 5, 'data.fold': 2, 'data.group_duplicates': True, 'data.window': 'lung'}
    recorded = to_json(load_config('busi', **keys))
    assert [config_of(recorded).data[key.removeprefix('data.')] for key in keys] == list(keys.values())
    wanted = {'data.seed': 0, 'data.folds': 4, 'data.fold': 'none', 'data.group_duplicates': 'false'}
    config = config_of(recorded, *(f'--config.{key}={value}' for key, value in wanted.items()))
    data = config.data
    assert (data.name, data.seed, data.folds, data.fold, data.group_duplicates) == ('busi', 0, 4, None, False)
    assert data.window == 'lung'


def write_maps(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(path)
    return folder


def test_maps_of_several_sets_lie_in_folders_of_their_names(tmp_path):
    names = {'Kvasir': ['1', '2'], 'ETIS': ['clip/1', '3']}
    write_maps(tmp_path, 'Kvasir/1.png', 'Kvasir/2.jpg', 'ETIS/clip/1.png', 'ETIS/4.png', '3.png')
    found, missing, extra = find_maps(tmp_path, names, classes=1)
    assert found['Kvasir'] == [(0, '1', [tmp_path / 'Kvasir/1.png']), (1, '2', [tmp_path / 'Kvasir/2.jpg'])]
    assert found['ETIS'] == [(0, 'clip/1', [tmp_path / 'ETIS/clip/1.png'])]
    assert missing == {'ETIS': ['3']}
    assert extra == ['3', 'ETIS/4']


def test_a_name_of_two_sets_is_not_guessed(tmp_path):
    write_maps(tmp_path, '1.png', '2.png')
    with pytest.raises(InputError, match="'1' is in Kvasir and ETIS"):
        find_maps(tmp_path, {'Kvasir': ['1', '2'], 'ETIS': ['1']}, classes=1)
    found, _, _ = find_maps(tmp_path, {'Kvasir': ['1'], 'ETIS': ['2']}, classes=1)
    assert found['ETIS'] == [(0, '2', [tmp_path / '2.png'])]


def test_a_class_without_its_map_is_a_missing_map(tmp_path):
    write_maps(tmp_path, 'a_1.png', 'a_2.png', 'b_1.png')
    found, missing, extra = find_maps(tmp_path, {'test': ['a', 'b']}, classes=2)
    assert found['test'] == [(0, 'a', [tmp_path / 'a_1.png', tmp_path / 'a_2.png'])]
    assert (missing, extra) == ({'test': ['b']}, ['b_1'])


def test_two_maps_of_one_name_are_not_chosen_from(tmp_path):
    write_maps(tmp_path, 'a.png', 'a.jpg')
    with pytest.raises(InputError, match='same name up to the ending'):
        find_maps(tmp_path, {'test': ['a']}, classes=1)
