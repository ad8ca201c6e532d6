"""Every number in the tables of the page on reproduction is that of the stored losses and scores."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from m2snet_jax.__main__ import main
from m2snet_jax.evaluation.comparison import compare_runs, read_scores
from m2snet_jax.evaluation.leaked import compare_leaked
from m2snet_jax.metrics.risk_coverage import risk_coverage
from m2snet_jax.storage import read_json_lines

PAGE = Path(__file__).parents[2] / 'docs' / 'reproduction.md'
STORED = PAGE.with_suffix('')
SCORES = ('Dice', 'IoU', 'MAE')
POLYP_SETS = ('Kvasir', 'CVC-ClinicDB', 'CVC-ColonDB', 'CVC-300')
PRETRAINED = ('pretrained', 'random_encoder', 'no_lossnet', 'imagenet_normalisation')


def figure(value, sign=''):
    return f'{value:{sign}.3f}'.replace('0.', '.').replace('-', '−')


def stored_table(name, tmp_path):
    """The JSON that the command of the page writes for a stored study."""
    page, folder = PAGE.read_text(encoding='utf-8').replace('\\\n', ' '), f'--workdir=docs/reproduction/{name} '
    (command,) = [line for line in page.splitlines() if folder in line and line.endswith('--table')]
    shutil.copytree(STORED / name, tmp_path / name)
    command = command.replace(folder, f'--workdir={tmp_path / name} ').replace('docs/reproduction/', f'{STORED}/')
    assert main(['m2snet_jax', *shlex.split(command)[3:]]) == 0
    return json.loads((tmp_path / name / 'study.json').read_text())


def means_of(table, name, places):
    """Cells with the mean and deviation over seeds, of (test set, score) after (test set, score)."""
    cells = []
    for test_set, score in places:
        rows = {row['name']: row['scores'] for row in table['test_sets'][test_set]['rows']}
        one = rows[name][f'hard/{score}']
        deviation = '' if len(one['seeds']) == 1 else f' ± {figure(one["deviation"])}'
        cells.append(figure(one['mean']) + deviation)
    return ' | '.join(cells)


def difference_of(table, name, against, places):
    cells = []
    for test_set, score in places:
        rows = {(row['name'], row['against']): row['scores'] for row in table['test_sets'][test_set]['differences']}
        one = rows[name, against][f'hard/{score}']
        low, high = figure(one['low'], '+'), figure(one['high'], '+')
        cells.append(f'{figure(one["difference"], "+")} ({low} … {high})')
    return ' | '.join(cells)


def test_breast_tumours(tmp_path):
    page = PAGE.read_text(encoding='utf-8')
    table = stored_table('busi', tmp_path)
    three = [('test', score) for score in SCORES]
    two = three[:2]

    def seeds_and_means(name, places=three):
        rows = {row['name']: row['scores'] for row in table['test_sets']['test']['rows']}
        return f'{", ".join(map(figure, rows[name]["hard/Dice"]["seeds"].values()))} | {means_of(table, name, places)}'

    def difference(name, against, places=two):
        return difference_of(table, name, against, places)

    for row in (
        f'| here | 4 | {seeds_and_means("m2snet")} |',
        f'| released program | 4 | {seeds_and_means("reference m2snet")} |',
        f'| difference (95 % interval) |  |  | {difference("m2snet", "reference m2snet", three)} |',
        f'| `no_near_duplicates` | 2 | {seeds_and_means("no_near_duplicates", two)} |',
        f'| `control` | 2 | {seeds_and_means("control", two)} |',
        f'| difference (95 % interval) |  |  | {difference("no_near_duplicates", "control")} |',
        f'| MSNet here | 4 | {seeds_and_means("msnet")} |',
        f'| released program | 4 | {seeds_and_means("reference msnet")} |',
        f'| difference (95 % interval) |  |  | {difference("msnet", "reference msnet", three)} |',
        f'| MSNet − M²SNet, here |  |  | {difference("msnet", "m2snet")} |',
        f'| statistics as trained | {seeds_and_means("m2snet")} |',
        f'| measured again | {seeds_and_means("precise_batch_norm")} |',
        f'| difference (95 % interval) |  | {difference("precise_batch_norm", "m2snet")} |',
    ):
        assert row in page, row
    losses = {name: [figure(curve[-1]) for curve in runs.values() if curve] for name, runs in table['losses'].items()}
    here, released = losses['m2snet'], losses['reference m2snet']
    for listed in (f'{", ".join(one[:-1])} and {one[-1]}' for one in (here, released)):
        assert listed in ' '.join(page.split()), listed
    free = {
        row['name']: row['scores']['lesion_free/false_positive_share'] for row in table['test_sets']['normal']['rows']
    }
    m2snet, msnet = (
        f'{one["mean"]:.0%} ± {one["deviation"]:.0%}'.replace('%', '') for one in map(free.get, ('m2snet', 'msnet'))
    )
    assert f'M²SNet marks pixels in {m2snet} % of the 133 normal images, MSNet in {msnet} %' in page


def test_polyps(tmp_path):
    page = PAGE.read_text(encoding='utf-8')
    table = stored_table('polyp', tmp_path)
    places = [(name, 'Dice') for name in POLYP_SETS]
    for row in (
        f'| M²SNet here | 2 | {means_of(table, "m2snet", places)} |',
        f'| released program | 2 | {means_of(table, "reference m2snet", places)} |',
        f'| difference (95 % interval) |  | {difference_of(table, "m2snet", "reference m2snet", places)} |',
        f'| MSNet here | 1 | {means_of(table, "msnet", places)} |',
        f'| MSNet, released program | 1 | {means_of(table, "reference msnet", places)} |',
        f"| PraNet, the authors' published maps |  |  | {means_of(table, 'reference pranet', places[1:2])} |  |  |",
    ):
        assert row in page, row
    for label, name in (
        ('M²SNet here', 'm2snet'),
        ('M²SNet, released program', 'reference m2snet'),
        ('MSNet here', 'msnet'),
        ('MSNet, released program', 'reference msnet'),
    ):
        for number, losses in enumerate(table['losses'][name].values()):
            assert f'| {label}, seed {number} | {" | ".join(map(figure, losses))} |' in page


def test_all_folds_of_breast_tumours(tmp_path):
    test_sets = stored_table('busi_folds', tmp_path)['test_sets']
    rows = [
        ('Dice', 'test', 'hard/Dice'),
        ('IoU', 'test', 'hard/IoU'),
        ('`released/Dice`', 'test', 'released/Dice'),
        ('share of normal images in which pixels are marked', 'normal', 'lesion_free/false_positive_share'),
    ]
    for label, test_set, score in rows:
        (pooled,), folds = ([row['scores'][score] for row in test_sets[test_set][kind]] for kind in ('rows', 'folds'))
        assert len(folds) == 5
        assert pooled['images'] == {'test': 647, 'normal': 133}[test_set]
        cells = [figure(one['mean']) for one in folds[:4]]
        cells += [f'{figure(folds[4]["mean"])} ± {figure(folds[4]["deviation"])}', figure(pooled['mean'])]
        assert f'| {label} | {" | ".join(cells)} |' in PAGE.read_text(encoding='utf-8'), cells


def test_flips_and_doubt_on_folds_of_breast_tumours():
    text = ' '.join(PAGE.read_text(encoding='utf-8').split())
    images = read_scores(STORED / 'busi_folds_flips')['test']
    with (STORED / 'busi_folds_flips' / 'scores' / 'per_image.csv').open(newline='') as file:
        doubts = {row['name']: row for row in csv.DictReader(file)}
    dice = np.array([image['hard/Dice'] for image in images.values()])
    has_lesion = np.array([image['lesion'] > 0 for image in images.values()])
    folds = [read_scores(STORED / 'busi_folds' / 'm2snet' / f'fold{fold}-seed0')['test'] for fold in (1, 2, 3)]
    before = [image['hard/Dice'] for fold in folds for name, image in fold.items() if name in images]
    assert sum(has_lesion) == len(before) == 483
    after = figure(dice[has_lesion].mean())
    assert f'Dice of the 483 images of folds 1 to 3 from {figure(np.mean(before))} to {after}' in text
    entropy, agreement = (
        risk_coverage(1 - dice, np.array([sign * float(doubts[name][f'doubt/{key}']) for name in images]))
        for key, sign in (('entropy', 1), ('pairwise_dice', -1))
    )
    assert f'{figure(entropy["area"])} by entropy and {figure(agreement["area"])} by agreement' in text
    order = f'{figure(entropy["random"])} ({figure(entropy["low"])} to {figure(entropy["high"])}) in random order'
    assert f'{order} and {figure(entropy["ideal"])} in the best order' in text
    alarms = np.array([image['false'] > 0 for image in images.values()])[~has_lesion]
    assert len(alarms) == 133
    assert f'mean map of these three models marks pixels in {figure(alarms.mean())} of the normal images' in text


@pytest.mark.parametrize(('name', 'start'), [('ablation', 'ImageNet'), ('ablation_random', 'random')])
def test_parts_of_the_network(name, start, tmp_path):
    page = PAGE.read_text(encoding='utf-8')
    table = stored_table(name, tmp_path)
    claims = {claim['name']: claim for claim in table['claims']}
    rows = {row['name']: row['scores']['hard/Dice']['seeds'] for row in table['test_sets']['test']['rows']}
    differences = table['test_sets']['test']['differences']
    found = {(row['name'], row['against']): row['scores']['hard/Dice'] for row in differences}
    variants = [variant for variant in rows if not variant.endswith('_precise')]
    assert variants[0] == 'm2snet'
    assert len(variants) >= 4
    assert set(rows) == {*variants, *(f'{variant}_precise' for variant in variants)}
    for variant in variants:
        trained, precise = (rows[one] for one in (variant, f'{variant}_precise'))
        assert trained.keys() == precise.keys()
        cells = [
            start,
            f'`{variant}`',
            f'{len(trained)}',
            *(', '.join(map(figure, one.values())) for one in (trained, precise)),
        ]
        cells.append(means_of(table, f'{variant}_precise', [('test', 'Dice')]))
        if variant == 'm2snet':
            cells += ['', '', '']
        else:
            one, claim = found[f'{variant}_precise', 'm2snet_precise'], claims[f'{variant}_precise']
            cells.append(between(one['difference'], one['low'], one['high'], '+'))
            cells.append(
                ', '.join('1' if value == 1 else figure(value) for value in (one['p_value'], claim['corrected']))
            )
            cells.append(f'{claim["claim"]}: {claim["verdict"]}')
        assert f'| {" | ".join(cells)} |' in page, cells


def between(value, low, high, sign=''):
    return f'{figure(value, sign)} ({figure(low, sign)} … {figure(high, sign)})'


def test_the_table_of_polyps_from_imagenet_weights(tmp_path):
    table = stored_table('polyp_pretrained', tmp_path)
    rows = {row['name']: row['scores']['hard/Dice']['mean'] for row in table['test_sets']['Kvasir']['rows']}
    assert tuple(rows) == PRETRAINED
    assert all(f'| `{name}` | {figure(mean)} (' in PAGE.read_text(encoding='utf-8') for name, mean in rows.items())


@pytest.mark.parametrize('name', PRETRAINED)
def test_polyps_from_imagenet_weights(name):
    run, first = (STORED / 'polyp_pretrained' / one / 'seed0' for one in (name, 'pretrained'))
    summary = json.loads((run / 'scores' / 'summary.json').read_text())
    scores = [f'{test_set}/hard/Dice' for test_set in POLYP_SETS]
    cells = [between(summary['scores'][score], *summary['intervals'][score]) for score in scores]
    rows = [f'| `{name}` | {" | ".join(cells)} |']
    if name != 'pretrained':
        found = compare_runs(first, run)
        all_sets = [found[test_set]['scores']['hard/Dice'] for test_set in POLYP_SETS]
        cells = [between(one['difference'], one['low'], one['high'], '+') for one in all_sets]
        rows.append(f'| `{name}` − `pretrained` | {" | ".join(cells)} |')
    logged = [row for row in read_json_lines(run / 'metrics.jsonl') if 'loss' in row]
    epochs = [[row for row in logged if epoch < row['epoch'] <= epoch + 1] for epoch in range(3)]
    for label, key in (('all', 'loss'), ('structure', 'structure'))[: 1 if name == 'no_lossnet' else 2]:
        means = [sum(row[key] for row in one) / len(one) for one in epochs]
        rows.append(f'| `{name}`, {label} | {" | ".join(map(figure, means))} |')
    for row in rows:
        assert row in PAGE.read_text(encoding='utf-8'), row


def test_missed_polyps_by_area():
    scores = STORED / 'polyp_pretrained' / 'pretrained' / 'seed0' / 'scores' / 'per_image.csv'
    with scores.open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['set'] == 'CVC-ColonDB']

    def area(row):
        counts = [float(row[f'hard/{name}']) for name in ('TP', 'FN', 'FP', 'TN')]
        return (counts[0] + counts[1]) / sum(counts)

    missed = [float(row['hard/Dice']) < 0.1 for row in sorted(rows, key=area)]
    first, second, third, fourth = (sum(missed[start : start + 95]) for start in range(0, 380, 95))
    text = ' '.join(PAGE.read_text(encoding='utf-8').split())
    assert f'below .1 in {sum(missed)} of {len(missed)} images' in text
    assert f'smallest first, it is {first}, {second}, {third} and {fourth}.' in text


def test_the_readme_has_the_scores_from_imagenet_weights():
    readme = (PAGE.parents[1] / 'README.md').read_text(encoding='utf-8')
    summary = json.loads((STORED / 'polyp_pretrained' / 'pretrained' / 'seed0' / 'scores' / 'summary.json').read_text())
    for test_set in POLYP_SETS:
        cells = []
        for protocol in ('hard', 'released'):
            score = f'{test_set}/{protocol}/Dice'
            cells.append(between(summary['scores'][score], *summary['intervals'][score]))
        assert f'| {test_set} | {" | ".join(cells)} |' in readme


@pytest.mark.parametrize(
    ('row', 'files'),
    [
        ("PraNet, the authors' published maps | 1", ['polyp_released/pranet_published_maps.json']),
        ('MSNet, released program, 128 pixels | 1', ['polyp_released/msnet_seed0.json']),
        ('M²SNet, released program, 128 pixels | 2', [f'polyp_released/m2snet_seed{seed}.json' for seed in (0, 1)]),
        ('MSNet here, 128 pixels | 1', ['polyp/msnet/seed0']),
        ('M²SNet here, 128 pixels | 2', ['polyp/m2snet/seed0', 'polyp/m2snet/seed1']),
        *((f'`{name}`, 96 pixels | 1', [f'polyp_pretrained/{name}/seed0']) for name in PRETRAINED),
    ],
)
def test_leaks_in_the_polyp_sets(row, files):
    runs = [str(STORED / name) for name in files]
    found = compare_leaked(runs, STORED / 'polyp_near.json')['CVC-ClinicDB']['hard/Dice']
    assert found['images'] == [17, 45]
    low, high = figure(found['low'], '+'), figure(found['high'], '+')
    cells = f'{figure(found["near"])} | {figure(found["others"])} | {figure(found["difference"], "+")} ({low} … {high})'
    assert f'| {row} | {cells} |' in PAGE.read_text(encoding='utf-8')
