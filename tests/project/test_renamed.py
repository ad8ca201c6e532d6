"""Old names: config keys are refused with the new ones, and folders that version 0.1 wrote are read all the same."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_models import ARGUMENTS, SETTINGS

from m2snet_jax import InputError, load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.config import RENAMED_KEYS, current_score_name, flatten, read_record, to_json
from m2snet_jax.evaluation.comparison import compare_runs
from m2snet_jax.evaluation.sheets import read_sheets
from m2snet_jax.report import write_card, write_report
from m2snet_jax.study.run_logs import training_seconds

pytestmark = pytest.mark.usefixtures('compiled_quickly')
STORED = Path(__file__).parents[1] / 'golden' / 'run_0.1'  # of quickstart, as version 0.1 left it, without checkpoints


def as_version_01(run):
    """Gives the recorded config of a run the keys of version 0.1."""
    path = run / 'config.json'
    record = json.loads(path.read_text())
    for old, new in RENAMED_KEYS.items():
        *rooms, name = new.split('.')
        inner = record['config']
        for room in rooms:
            inner = inner[room]
        inner[old.rpartition('.')[2]] = inner.pop(name)
    path.write_text(json.dumps(record))


def test_every_new_name_is_a_key_and_no_old_one_is():
    keys = flatten(load_config('default'))
    assert set(RENAMED_KEYS.values()) <= set(keys)
    assert set(RENAMED_KEYS).isdisjoint(keys)


@pytest.mark.parametrize(('key', 'hint'), [('optimizer.peak', 'optimizer.peak_lr'), ('optimizer.peek_lr', 'peak_lr')])
def test_a_config_file_with_an_unknown_key_is_refused(key, hint, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'from m2snet_jax import load_config\n\n\ndef get_config():\n    config = load_config("quickstart")\n'
        f'    config.unlock()\n    config.{key} = 0.01\n    return config\n'
    )
    with pytest.raises(InputError, match=rf'mine\.py: {re.escape(key)}: .*{hint}'):
        load_config(str(path))


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('test/reference/Dice', 'test/released/Dice'),
        ('test/class1/reference/Dice', 'test/class1/released/Dice'),
        ('reference/Dice', 'released/Dice'),
        ('reference/hard/Dice', 'reference/hard/Dice'),  # a test set of that name
        ('reference', 'reference'),
        ('set', 'set'),
    ],
)
def test_the_protocol_alone_is_renamed_in_a_score(old, new):
    assert current_score_name(old) == new


def test_a_stored_run_of_version_01_has_the_names_of_today():
    config, recorded = read_record(STORED)['config'], json.loads((STORED / 'config.json').read_text())['config']
    assert recorded['optimizer']['peak'] == config['optimizer']['peak_lr'] == 0.05
    assert config['model']['freeze_shared_norms_after'] == 0.6
    assert set(flatten(config)) <= set(flatten(to_json(load_config('default'))))
    scores = read_sheets(STORED)
    old = json.loads((STORED / 'scores' / 'summary.json').read_text())['scores']
    assert len(scores.figures) == len(old)
    assert scores.figures['test/released/Dice'] == old['test/reference/Dice']
    assert scores.figures['test/hard/Dice'] == old['test/hard/Dice']
    assert not [name for name in (*scores.figures, *scores.per_image[0]) if 'reference' in name]
    assert 'released/recall' in scores.details['test']['classes'][0]


def test_a_stored_run_of_version_01_is_compared_and_drawn(tmp_path, capsys):
    run = shutil.copytree(STORED, tmp_path / 'run')
    table = compare_runs(run, run, resamples=50)['test']
    assert table['scores']['released/Dice']['difference'] == 0
    assert training_seconds(run) > 0
    assert write_report(read_sheets(run), run).stat().st_size > 10**5
    assert 'freeze_shared_norms_after' in write_card(read_sheets(run), run).read_text()
    assert main(['', 'report', str(run)]) == 0
    assert 'report.html' in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_that_version_01_trained_is_loaded_and_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    run = tmp_path / 'run'
    training = [
        '--config.steps=2',
        '--config.batch=2',
        '--config.data.sizes=(48,)',
        '--config.loss.lossnet=0',
        '--config.model.columns=1',
    ]
    training += ['--config.dtype=bfloat16']  # which trains alone: the final scores are those of float32 as well
    assert main(['', 'train', *ARGUMENTS, *training, f'--workdir={run}']) == 0
    as_version_01(run)
    assert 'peak' in json.loads((run / 'config.json').read_text())['config']['optimizer']
    assert load_model(run).size == SETTINGS['data.size']
    assert main(['', 'evaluate', f'--model={run}', f'--output={tmp_path / "again"}']) == 0
    assert read_sheets(tmp_path / 'again').figures == pytest.approx(read_sheets(run).figures, abs=0, nan_ok=True)
    # The same command goes on with it, and finds it finished.
    assert main(['', 'train', *ARGUMENTS, *training, f'--workdir={run}']) == 0
    assert 'this run is finished' in capsys.readouterr().err
