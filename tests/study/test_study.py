"""Study files, their cells, and what is refused."""

import json
from pathlib import Path

import pytest
from study_files import study_of, variants, write_file, write_run

from m2snet_jax import InputError
from m2snet_jax.__main__ import main
from m2snet_jax.config import flatten
from m2snet_jax.study.definition import base_config, cells_of, check_folder, load_study
from m2snet_jax.study.results import study_table


def test_the_study_of_busi_in_the_order_of_importance():
    study = load_study('configs/studies/busi.py' if Path('configs/studies/busi.py').exists() else 'busi')
    cells = cells_of(study, base_config(study), '/runs')
    names = ['m2snet', 'no_near_duplicates', 'control', 'msnet', 'precise_batch_norm', 'weighted_bce', 'encoder_tenth',
             'frozen_stem', 'one_size']  # fmt: skip
    assert [variant.name for variant in study.variants] == names
    assert [str(cell.folder) for cell in cells[:5]] == [
        *(f'/runs/m2snet/fold0-seed{seed}' for seed in range(4)), '/runs/no_near_duplicates/fold0-seed0'
    ]  # fmt: skip
    first = flatten(cells[0].config)
    by_variant = {cell.variant: flatten(cell.config) for cell in cells if cell.seed == 0}
    changed = {
        name: {key: value for key, value in config.items() if value != first[key]}
        for name, config in by_variant.items()
    }
    lists = {Path(changed[name].pop('data.exclude')).name: name for name in ('no_near_duplicates', 'control')}
    assert lists == {'busi_near_duplicates.txt': 'no_near_duplicates', 'busi_control.txt': 'control'}
    assert changed == {
        'm2snet': {}, 'no_near_duplicates': {}, 'control': {}, 'msnet': {'model.name': 'msnet'},
        'precise_batch_norm': {
            'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 60, 'model.weights': '/runs/m2snet/fold0-seed0'
        },
        'weighted_bce': {'loss.bce': 'weighted'}, 'encoder_tenth': {'optimizer.encoder_lr_factor': 0.1},
        'frozen_stem': {'optimizer.freeze_stem': True}, 'one_size': {'data.sizes': (128,)},
    }  # fmt: skip


def test_the_lists_of_the_study_of_busi_have_as_many_of_each_label_and_none_in_common():
    study = load_study('busi')
    paths = [one.changes['data.exclude'] for one in study.variants if 'data.exclude' in one.changes]
    near, control = (Path(path).read_text().splitlines() for path in paths)
    assert len(set(near)) == len(set(control)) == 26
    assert not set(near) & set(control)
    labels = [sorted(name.split()[0] for name in names) for names in (near, control)]
    assert labels[0] == labels[1]


def test_bare_names_and_the_quickstart():
    study = load_study('quickstart')
    cells = cells_of(study, base_config(study), 'runs')
    assert [cell.folder for cell in cells][:2] == [Path('runs/m2snet/seed0'), Path('runs/m2snet/seed1')]
    assert cells[2].source.folder == Path('runs/m2snet/seed0')


def test_the_ablation_changes_one_part_at_a_time():
    study = load_study('ablation')
    cells = cells_of(study, base_config(study), '/runs')
    assert len({cell.folder for cell in cells}) == sum(len(variant.seeds) for variant in study.variants)
    claims = {variant.name: variant.claim for variant in study.variants if variant.claim}
    assert claims.pop('lossnet_precise') == 'higher'
    lower = ('add', 'no_filters', 'columns_1', 'concatenate', 'columns_3', 'filters_3')
    assert claims == {f'{name}_precise': 'lower' for name in lower}
    first, switches = flatten(cells[0].config), set()
    for cell in cells:
        before = first if cell.source is None else flatten(cell.source.config)
        changed = {key for key, value in flatten(cell.config).items() if value != before[key]} - {'seed'}
        if cell.source is not None:
            assert changed == {'steps', 'optimizer.peak_lr', 'precise_batch_norm', 'model.weights'}
            assert cell.variant == f'{cell.source.variant}_precise'
            continue
        assert len(changed) == (0 if cell.variant == 'm2snet' else 1), cell.name
        switches |= changed
    assert switches == {
        'model.columns', 'model.filters', 'model.operation', 'model.add_level', 'loss.lossnet', 'loss.bce',
        'data.normalisation', 'data.sizes', 'optimizer.encoder_lr_factor',
    }  # fmt: skip
    compared = {variant.against for variant in study.variants if variant.weights_of} - {None}
    assert compared == {'m2snet_precise'}


def test_the_study_of_polyps_is_the_scaled_recipe_of_the_released_program():
    study = load_study('polyp')
    cells = cells_of(study, base_config(study), '/runs')
    assert [str(cell.folder) for cell in cells] == [
        '/runs/m2snet/seed0', '/runs/m2snet/seed1', '/runs/msnet/seed0', '/runs/msnet/seed1'
    ]  # fmt: skip
    config = flatten(cells[0].config)
    expected = {
        'data.name': 'polyp', 'epochs': 6, 'batch': 8, 'data.size': 128, 'data.sizes': (96, 112, 128),
        'loss.bce': 'mean', 'loss.lossnet': 0.0, 'optimizer.peak_lr': 0.02, 'model.encoder_weights': None,
        'model.encoder': 'res2net50',
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    other = flatten(cells[2].config)
    assert {key for key in other if other[key] != config[key]} == {'model.name'}


def test_the_study_of_pretrained_polyps_changes_one_thing_at_a_time():
    study = load_study('polyp_pretrained')
    config = base_config(study)
    config.model.encoder_weights = config.loss.lossnet_weights = '/vgg16.safetensors'  # as on the command line
    by_variant = {cell.variant: flatten(cell.config) for cell in cells_of(study, config, '/runs') if cell.seed == 0}
    first = by_variant['pretrained']
    assert (first['model.encoder_weights'], first['loss.lossnet_weights']) == ('/vgg16.safetensors',) * 2
    assert {
        name: {key: value for key, value in one.items() if value != first[key]} for name, one in by_variant.items()
    } == {
        'pretrained': {}, 'random_encoder': {'model.encoder_weights': None}, 'no_lossnet': {'loss.lossnet': 0.0},
        'imagenet_normalisation': {'data.normalisation': 'imagenet'},
    }  # fmt: skip


def test_equal_cells_share_a_folder(tmp_path):
    mine = [*variants('a', 'b', seeds=(0, 1)), {'name': 'again', 'about': '', 'changes': {'batch': 2}, 'seeds': (1, 2)}]
    study, cells = study_of(tmp_path, mine, changes={'data.root': str(tmp_path)})
    folders = [str(cell.folder.relative_to(tmp_path / 'runs')) for cell in cells]
    assert folders == ['a/seed0', 'a/seed1', 'b/seed0', 'b/seed1', 'a/seed1', 'again/seed2']
    write_run(cells[1], [0.5, 0.6])
    table = study_table(study, cells)
    assert table['runs'] == {'finished': 1, 'all': 5}
    assert table['variants'][2]['same_as'] == ['a, seed 1']
    assert table['variants'][2]['finished'] == ['again, seed 1']


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        (
            {'changes': {'optimizer.paek': 1.0}},
            "variant 'x': optimizer.paek: no such key; did you mean optimizer.peak_lr?",
        ),
        ({'changes': {'batch': 'many'}}, "variant 'x': batch='many' does not fit"),
        ({'changes': {'batch': 0}}, "variant 'x': --config.batch=0: must be at least 1"),
        ({'changes': {'seed': 3}}, "variant 'x': changes seed or data.fold"),
        ({'overrides': {}}, "variant 'x' has an unknown entry 'overrides'"),
        ({'weights_of': 'later'}, "variant 'x': weights_of names 'later', which is not an earlier variant"),
        ({'weights_of': 'first', 'seeds': (5,)}, "variant 'x': has seeds or folds on which first is not trained"),
        ({'against': 'nobody'}, "variant 'x': against names 'nobody', no such variant"),
        ({'claim': 'worse'}, "variant 'x': claim is 'worse', not 'lower' or 'higher'"),
        ({'name': 'first'}, "variant 'first' is listed twice"),
        ({'name': '../x'}, "variant '../x': a name may contain only letters"),
        ({'seeds': ()}, "variant 'x': has no seeds or no folds"),
        ({'seeds': 3}, 'not a study (TypeError'),
    ],
)
def test_mistakes_in_a_study_file_are_one_line_that_names_the_variant(tmp_path, capsys, entry, words):
    mine = [{'name': 'first', 'about': ''}, {'name': 'x', 'about': '', **entry}]
    path = write_file(tmp_path, {'config': 'quickstart', 'about': '', 'variants': mine})
    assert main(['m2snet_jax', 'study', f'--config={path}', f'--workdir={tmp_path}/runs']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (
            ['--config=nowhere.py'],
            '--config=nowhere.py: no such file; give a path or one of ablation, busi, busi_folds, busi_full, kvasir, '
            'polyp, polyp_pretrained, quickstart',
        ),
        (['--config=configs/kvasir.py'], 'has no function get_study()'),
        (['--config=quickstart:small'], 'has no variants'),
        (['--config=quickstart', '--config.optimizer.paek=1'], 'did you mean optimizer.peak_lr?'),
        (['--config=quickstart', '--reference=nowhere'], '--reference=nowhere: contains no JSON files with per_image'),
        (['--config=quickstart', '--workdir=nowhere', '--table'], '--workdir=nowhere: no such folder'),
        (['--config=quickstart', 'word'], 'word: not understood'),
        ([], '--config is missing'),
    ],
)
def test_mistakes_on_the_command_line(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert main(['m2snet_jax', 'study', *arguments]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not Path('nowhere').exists()


def test_a_study_is_no_config(capsys):
    path = Path(__file__).parents[2] / 'configs/studies/busi.py'
    assert main(['m2snet_jax', 'train', f'--config={path}']) == 2
    assert 'it is a study, for the command study' in capsys.readouterr().err


def test_a_folder_with_another_run_is_refused(tmp_path):
    _, cells = study_of(tmp_path, variants('a', 'b'))
    write_run(cells[0], [0.5])
    check_folder(cells[0])
    recorded = json.loads((cells[0].folder / 'config.json').read_text())
    del recorded['config']['optimizer']['freeze_stem']  # as if that key had come later
    (cells[0].folder / 'config.json').write_text(json.dumps(recorded))
    check_folder(cells[0])
    recorded['config']['optimizer']['peak'] = 0.3
    (cells[0].folder / 'config.json').write_text(json.dumps(recorded))
    with pytest.raises(
        InputError, match=r'a/seed0: holds a run of another config, changed: optimizer\.peak_lr 0\.3 → '
    ):
        check_folder(cells[0])
