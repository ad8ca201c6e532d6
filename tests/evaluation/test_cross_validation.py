"""Scores of several models: each image by models that were not trained on it, doubt, and a stored temperature."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_models import ARGUMENTS, SETTINGS

from m2snet_jax import load_config
from m2snet_jax.__main__ import main
from m2snet_jax.data.datasets.phantoms import phantom
from m2snet_jax.training.loop import train_and_evaluate

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')

FOLDS, COUNT = 4, 12


def settings(root, fold, steps):
    tiny = {key: value for key, value in SETTINGS.items() if 'count' not in key}
    own = {
        'data.name': 'folder', 'data.root': str(root), 'data.folds': FOLDS, 'data.fold': fold, 'data.validation': 2,
        'data.sizes': (48,), 'batch': 2, 'steps': steps, 'loss.lossnet': 0.0, 'log.images': 0, 'log.tensorboard': False,
        'model.columns': 1, 'model.encoder': 'plain',
    }  # fmt: skip
    return load_config('quickstart', **{**tiny, **own})


def write_images(root):
    rng = np.random.default_rng(0)
    for kind in ('images', 'masks'):
        (root / kind).mkdir(parents=True)
    for number in range(COUNT):
        image, mask = phantom(rng)
        Image.fromarray(image).resize((60, 60)).save(root / 'images' / f'p{number:02}.png')
        Image.fromarray(mask).resize((60, 60), 0).save(root / 'masks' / f'p{number:02}.png')
    for kind in ('images', 'masks'):  # a copy under another name, in the next fold
        shutil.copy(root / kind / 'p00.png', root / kind / 'copy.png')
    folds = [f'p{number:02},{number % FOLDS}' for number in range(COUNT)]
    (root / 'folds.csv').write_text('\n'.join(['name,fold', *folds, 'copy,1']) + '\n')


def trained(folder, steps):
    """Runs of four folds of phantoms."""
    write_images(folder / 'data')
    for fold in range(FOLDS):
        train_and_evaluate(settings(folder / 'data', fold, steps), folder / 'runs' / f'fold{fold}-seed0')
    return folder


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TFDS_DATA_DIR', str(tmp_path_factory.mktemp('tfds')))
        yield trained(tmp_path_factory.mktemp('folds'), 2)


def evaluate(output, *arguments):
    status = main(['', 'evaluate', f'--output={output}', *map(str, arguments)])
    path = output / 'scores' / 'summary.json'
    if status:
        return status, None, []
    with (output / 'scores' / 'per_image.csv').open() as file:
        return status, json.loads(path.read_text()), list(csv.DictReader(file))


def check_cross_validation(folder, output):
    pattern = f'--model={folder}/runs/fold*-seed*'
    status, sheet, rows = evaluate(output, pattern, '--cross-validate')
    assert status == 0
    by_set = {name: [row for row in rows if row['set'] == name] for name in ('test', 'seen_by_every_model')}
    assert sorted(row['name'] for row in by_set['test']) == [f'p{number:02}' for number in range(1, COUNT)]
    assert sorted(row['name'] for row in by_set['seen_by_every_model']) == ['copy', 'p00']
    assert any('2 images were trained on by every model and are scored apart' in line for line in sheet['warnings'])
    # by hand: the image's scores in the sheet of the run that tested it
    for fold in range(FOLDS):
        with (folder / 'runs' / f'fold{fold}-seed0' / 'scores' / 'per_image.csv').open() as file:
            own = {row['name']: row for row in csv.DictReader(file)}
        names = [row['name'] for row in by_set['test'] if row['name'] in own]
        assert sheet['cross_validation']['folds'][str(fold)]['images'] == len(names)
        for row in by_set['test']:
            if row['name'] in own:
                assert {key: row[key] for key in own[row['name']]} == own[row['name']]
    dice = [float(row['hard/Dice']) for row in by_set['test'] if float(row['hard/TP']) + float(row['hard/FN'])]
    assert float(sheet['scores']['test/hard/Dice']) == pytest.approx(np.mean(dice))
    assert 'test/hard/Dice' in sheet['intervals']
    assert 'By fold' in (output / 'report.html').read_text()
    card = (output / 'model_card.md').read_text()
    assert 'Every fold is the test, each of the models that were not trained on it.' in card
    assert f"load_model(['{folder}/runs/fold0-seed0', '{folder}/runs/fold1-seed0', " in card


def test_each_image_is_scored_once_by_a_model_that_has_not_seen_it(quick, tmp_path, capsys):
    check_cross_validation(quick, tmp_path / 'all')
    assert 'by fold, each scored by the models that were not trained on it' in capsys.readouterr().out


@pytest.mark.slow
def test_each_image_is_scored_once_after_forty_steps(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    check_cross_validation(trained(tmp_path, 40), tmp_path / 'all')


def test_images_that_a_model_was_trained_on_are_a_warning_and_doubt_is_reported(quick, tmp_path, capsys):
    runs = [f'--model={quick}/runs/fold{fold}-seed0' for fold in (0, 1)]
    status, sheet, rows = evaluate(tmp_path / 'two', *runs)
    assert status == 0
    assert any(
        'of 3 images are among those that some of the models were trained on' in one for one in sheet['warnings']
    )
    assert sheet['prediction'] == {'models': 2}
    assert all(0 <= float(row['doubt/entropy']) <= 1 and 0 <= float(row['doubt/pairwise_dice']) <= 1 for row in rows)
    for one in sheet['doubt']['test'].values():
        assert one['ideal'] <= one['area'] + 1e-9
        assert one['random'] == pytest.approx(np.mean([1 - float(row['hard/Dice']) for row in rows]))
    assert 'risk against coverage' in capsys.readouterr().out
    assert 'Risk against coverage' in (tmp_path / 'two' / 'report.html').read_text()


def test_the_sheet_names_the_network_and_the_training_of_the_run_whatever_config_names_the_images(quick, tmp_path):
    run = quick / 'runs' / 'fold2-seed0'
    status, sheet, rows = evaluate(tmp_path / 'other', f'--model={run}', *ARGUMENTS, '--config.data.seed=3')
    assert status == 0
    assert len(rows) == 5
    recorded, config = json.loads((run / 'config.json').read_text())['config'], sheet['config']
    assert (config['model']['encoder'], config['model']['columns'], config['steps']) == ('plain', 1, 2)
    assert [config[key] for key in ('model', 'optimizer', 'loss', 'batch', 'epochs', 'steps', 'seed')] == [
        recorded[key] for key in ('model', 'optimizer', 'loss', 'batch', 'epochs', 'steps', 'seed')
    ]
    data = config['data']
    assert (data['name'], data['seed'], data['test_count'], data['fold']) == ('phantoms', 3, 5, None)
    assert (data['size'], data['sizes'], config['evaluate']['bootstrap']) == (48, [48], 100)
    assert 'with the encoder plain, run at 48×48 pixels' in (tmp_path / 'other' / 'model_card.md').read_text()
    assert 'm2snet with plain on phantoms' in (tmp_path / 'other' / 'report.html').read_text()


def test_the_same_model_twice_has_the_scores_of_one(quick, tmp_path):
    run = f'--model={quick}/runs/fold2-seed0'
    _, one, _ = evaluate(tmp_path / 'one', run)
    _, two, _ = evaluate(tmp_path / 'two', run, run)
    assert one['scores'] == two['scores']
    assert 'prediction' not in one
    assert 'doubt' not in one


def test_a_temperature_is_fitted_on_validation_images_and_used_when_asked(quick, tmp_path, capsys):
    run = tmp_path / 'fold3-seed0'
    shutil.copytree(quick / 'runs' / 'fold3-seed0', run)
    assert main(['', 'calibrate', f'--model={run}']) == 0
    assert 'from 2 validation images' in capsys.readouterr().out
    about = json.loads((run / 'temperature.json').read_text())
    assert about['likelihood']['after'] <= about['likelihood']['before']
    _, plain, _ = evaluate(tmp_path / 'plain', f'--model={run}')
    _, sheet, _ = evaluate(tmp_path / 'calibrated', f'--model={run}', '--calibrated')
    assert sheet['prediction'] == {'temperatures': [about['temperature']]}
    assert sheet['scores']['test/hard/MAE'] != plain['scores']['test/hard/MAE']
    assert 'Temperature' in (tmp_path / 'calibrated' / 'report.html').read_text()
    (run / 'temperature.json').write_text(json.dumps(about | {'model_hash': 'another'}))
    assert evaluate(tmp_path / 'stale', f'--model={run}', '--calibrated')[0] == 2
    assert 'was fitted for other weights' in capsys.readouterr().err


def test_other_images_than_those_of_validation_are_refused(quick, tmp_path, capsys):
    run = quick / 'runs' / 'fold3-seed0'
    assert main(['', 'calibrate', f'--model={run}', '--config.data.validation=5']) == 2
    assert 'is in its split train, not in validation' in capsys.readouterr().err
    shutil.copytree(run, tmp_path / 'run')
    record = json.loads((run / 'config.json').read_text())
    record['config']['data']['validation'] = None
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(record))
    assert main(['', 'calibrate', f'--model={tmp_path / "run"}']) == 2
    assert 'never on test images' in capsys.readouterr().err


def test_cross_validation_needs_runs_of_folds(quick, tmp_path, capsys):
    run = f'--model={quick}/runs/fold3-seed0'
    assert evaluate(tmp_path / 'out', run, '--cross-validate', '--sets=test')[0] == 2
    assert 'scores every image' in capsys.readouterr().err
    assert main(['', 'evaluate', '--maps=maps', '--cross-validate']) == 2
