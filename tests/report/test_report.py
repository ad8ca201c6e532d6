"""The page and the model card of a run: self-contained, complete, and safe whatever the files are called."""

import dataclasses
import html.parser
import importlib.resources
import json
import re
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
from PIL import Image

from m2snet_jax import load_config
from m2snet_jax.__main__ import main
from m2snet_jax.config import to_json
from m2snet_jax.data.datasets import Dataset
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.evaluation.sheets import write_sheets
from m2snet_jax.evaluation.table import text
from m2snet_jax.evaluation.test_sets import evaluate
from m2snet_jax.images import drawing
from m2snet_jax.report import charts, rendering, write_card, write_report
from m2snet_jax.report.duplicates_page import duplicates_page
from m2snet_jax.report.rendering import render

pytestmark = pytest.mark.usefixtures('compiled_quickly')

ROOT = Path(__file__).parents[2]
REPORT = ROOT / 'm2snet_jax' / 'report'
NASTY = '<script>alert(1)</script> & "more"'


class Lesions:
    """Bright discs; the last of the images, with a name that would be a tag, has none."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rows, columns = np.mgrid[:40, :50]
        disc = (rows - 20) ** 2 + (columns - 25) ** 2 < (4 + index) ** 2
        image = np.repeat(np.where(disc, 220, 20).astype(np.uint8)[..., None], 3, axis=2)
        last = index == self.count - 1
        mask = np.where(disc & (not last), 255, 0).astype(np.uint8)
        return {'name': NASTY.replace('/', '') if last else f'image{index}', 'image': image, 'mask': mask}


class Tags(html.parser.HTMLParser):
    """Collects the tags and checks that those with an end are ended in order."""

    EMPTY = ('meta', 'link', 'img', 'path', 'circle', 'rect', 'br')

    def __init__(self, page):
        super().__init__()
        self.open, self.found = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    config = load_config('busi:small', **{'evaluate.bootstrap': 50})
    dataset = Dataset(None, None, {'test': Lesions(18), 'normal': Lesions(1)}, [], 'manifest', None)

    def predict(images):
        return np.clip(np.asarray(images)[..., :1] * 0.2 + 0.4, 0, 1)

    predictor = SimpleNamespace(over=lambda mesh: predict, passes=1)  # what `evaluate` uses of a Predictor
    scores, _ = evaluate(predictor, dataset, config, make_mesh(), folder)
    scores = scores.with_summary(config=to_json(config), model_hash='a' * 64, step=12)
    write_sheets(scores, folder)
    rows = [{'step': step, 'loss': 1 / step, 'validation/Dice': step / 10} for step in range(1, 9)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows) + '{"step": 9, "lo')
    return folder, scores


@pytest.fixture(scope='module')
def folder(run):
    return run[0]


@pytest.fixture(scope='module')
def scores(run):
    return run[1]


@pytest.fixture(scope='module')
def page(scores, folder):
    return write_report(scores, folder).read_text(encoding='utf-8')


def test_nothing_in_it_leaves_the_file(page):
    for _, attributes in Tags(page).found:
        for name in ('src', 'href', 'srcset', 'action', 'data'):
            assert attributes.get(name, 'data:').startswith('data:')
    assert 'url(' not in page
    assert '@import' not in page
    assert "default-src 'none'" in page
    assert '<script' not in page


def test_names_cannot_become_tags(page):
    assert 'alert(1)' in page
    assert '<script>alert' not in page


def test_every_part_is_there(page):
    for words in (
        'Training', 'loss', 'validation/Dice', 'Test set test: 18 images', 'Test set normal: 1 images', 'a' * 64,
        'released', 'pranet', 'hard', 'pooled', 'lesion-free', 'M²SNet, published', '.7921±.0138', '95% interval',
        'Expected calibration error', 'Worst cases', 'Best cases', 'False alarms', 'Calibration', 'recall', 'threshold',
        'lesion, % of the image',
        'optimizer.peak_lr', 'All settings', 'image2',
    ):  # fmt: skip
        assert words in page, words


def text_of(page):
    """The text of a page, without tags, its white space as single spaces."""
    words = []
    parser = html.parser.HTMLParser()
    parser.handle_data = words.append
    parser.feed(page.split('</head>')[1])
    return ' '.join(' '.join(words).split())


def test_dice_with_its_interval_and_the_published_figures_come_first(page, scores):
    words = text_of(page)
    low, high = (f'{bound:.4f}' for bound in scores.summary['intervals']['test/hard/Dice'])
    hard, released = (f'{scores.figures[f"test/{protocol}/Dice"]:.4f}' for protocol in ('hard', 'released'))
    parts = [
        'test: 18 images', f'{hard} Dice (hard), 95% interval {low} … {high}', f'{released} Dice (released), 95%',
        'M²SNet, published: .7921±.0138 P', 'normal: 1 images', '1.0000 False alarms', 'P: the authors',
        'not trained by the released recipe', 'Test set test: 18 images', 'Number of images by Dice', 'Worst cases',
        'Test set normal: 1 images', 'Training', 'All settings',
    ]  # fmt: skip
    places = [words.index(part) for part in parts]
    assert places == sorted(places)


def test_warnings_come_before_the_tables(folder, scores, tmp_path, page):
    shutil.copytree(folder / 'scores', tmp_path / 'scores')
    missing = {'test': [NASTY]}
    summary = {**scores.summary, 'warnings': ['beware & <b>'], 'missing': missing}
    words = text_of(write_report(dataclasses.replace(scores, summary=summary), tmp_path).read_text(encoding='utf-8'))
    assert words.index('Dice (hard)') < words.index('beware & <b>') < words.index('Test set test')
    assert f'test: 1 maps were missing and are not in these scores: {NASTY}' in words
    assert 'class="warning"' not in page


def test_templates_escape_and_refuse_a_missing_value():
    page = render('duplicates.html.j2', title=NASTY, counts=[], summary=NASTY, pairs=[])
    assert page.count('&lt;script&gt;alert(1)') == 3
    assert '<script' not in page
    with pytest.raises(jinja2.UndefinedError, match='summary'):
        render('duplicates.html.j2', title='', counts=[], pairs=[])


def test_the_page_and_the_error_pictures_have_the_same_colours(monkeypatch):
    def background(page, name):
        found = re.search(rf'b\.{name}{{background:#(\w\w)(\w\w)(\w\w)[;}}]', page)
        return tuple(int(channel, 16) for channel in found.groups())

    names = {'hit': 'HIT', 'missed': 'MISSED', 'false': 'FALSE'}
    page = render('base.html.j2', title='')
    for name, constant in names.items():
        assert background(page, name) == getattr(drawing, constant)
    for number, constant in enumerate(names.values()):
        monkeypatch.setattr(drawing, constant, (number, 16, 255))
    rendering._templates.cache_clear()
    try:
        page = render('base.html.j2', title='')
        assert [background(page, name) for name in names] == [(0, 16, 255), (1, 16, 255), (2, 16, 255)]
    finally:
        rendering._templates.cache_clear()


def test_a_wheel_holds_the_templates():
    patterns = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']['package-data']
    listed = {path.name for pattern in patterns['m2snet_jax.report'] for path in REPORT.glob(pattern)}
    assert listed == {path.name for path in importlib.resources.files('m2snet_jax.report.templates').iterdir()}
    assert 'base.html.j2' in listed


def near_duplicates(folder, **more):
    """A report of three pairs, as `inspect` returns it."""
    for name in 'abcd':
        Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(folder / f'{name}.png')

    def pair(first, second, splits, across, identical, correlation=0.99):
        paths = [str(folder / f'{name}.png') for name in (first, second)]
        return {
            'names': [first, second], 'splits': splits, 'paths': paths, 'correlation': correlation,
            'identical': identical, 'across_split': across, 'across_labels': False,
        }  # fmt: skip

    pairs = [
        pair('a', 'b', ['train', 'train'], False, True, 1.0),
        pair('a', 'c', ['train', 'test'], True, False),
        pair('b', 'd', ['train', 'test'], True, True, 1.0),
    ]
    near = {'pairs': pairs, 'groups': 1, 'images': 4, 'largest_group': 4, 'across_split': 2, 'across_labels': 0}
    near |= {'across_folds': 0, 'near_training': {'test': 2}}
    return {'dataset': NASTY, 'window': None, 'near_duplicates': near | more}


def test_the_counts_of_duplicates_come_first_then_the_worst_pairs(tmp_path):
    counts = [
        {'splits': ['train', 'test'], 'identical': 1, 'near': 11},
        {'splits': ['train'] * 2, 'identical': 12, 'near': 0},
    ]
    page = duplicates_page(near_duplicates(tmp_path, counts=counts))
    words = text_of(page)
    parts = ['train and test 1 11', 'train 12 0', '3 pairs of near-duplicates']
    parts += [
        'byte for byte the same, across the split',
        'correlation 0.990, across the split',
        'byte for byte the same a',
    ]
    places = [words.index(part) for part in parts]
    assert places == sorted(places)
    tags = Tags(page).found
    assert [attributes.get('class') for tag, attributes in tags if tag == 'section'] == ['across', 'across', None]
    assert sum(tag == 'img' for tag, _ in tags) == 6
    assert '<script' not in page
    assert text_of(duplicates_page(near_duplicates(tmp_path))).count('train and test') == 0  # a report without counts


def test_ten_worst_and_five_best_cases_are_four_pictures_each(page):
    tags = Tags(page).found
    cases = [attributes for tag, attributes in tags if tag == 'figure' and attributes.get('class') == 'case']
    assert len(cases) == 10 + 5 + 1 + 1  # and the lesion-free image of either set, in which a lesion is claimed
    pictures = [attributes for tag, attributes in tags if tag == 'img']
    assert len(pictures) == 4 * len(cases)
    assert all(attributes['alt'] for attributes in pictures)


def test_every_figure_has_a_caption_and_every_chart_a_name(page):
    assert page.count('<figure') == page.count('<figcaption>')
    for chart in re.findall('<svg [^>]*role="img"[^>]*>', page):
        assert re.search('aria-label="[^"]+"', chart)
    for path in re.findall(' (?:d|cx|cy|x|y)="([^"]*)"', page):
        assert 'nan' not in path
        assert 'inf' not in path


def test_the_table_as_text_has_the_same_figures(scores):
    words = text(scores.summary)
    for name in ('released/Dice', 'pranet/meanDic', 'hard/IoU', 'pooled/Dice'):
        assert f'{scores.figures["test/" + name]:.4f}' in words
    assert 'M²SNet .7921±.0138 [P]' in words
    assert '±: mean and standard deviation over folds' in words
    assert 'Not the released recipe: batch 16 → 8' in words
    assert 'epochs 50 → 14' in words


def test_the_command_writes_the_same_page_and_card(folder, scores, page, capsys):
    card = write_card(scores, folder).read_text(encoding='utf-8')
    for name in ('report.html', 'model_card.md'):
        (folder / name).unlink(missing_ok=True)
    assert main(['', 'report', str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / 'report.html'), str(folder / 'model_card.md')]
    assert (folder / 'report.html').read_text(encoding='utf-8') == page
    assert (folder / 'model_card.md').read_text(encoding='utf-8') == card
    assert main(['', 'report']) == 2
    assert main(['', 'report', '--unknown']) == 2


def test_a_folder_without_sheets_is_refused(tmp_path, capsys):
    assert main(['', 'report', str(tmp_path)]) == 2
    assert 'no readable score sheet' in capsys.readouterr().err


def test_pixels_of_each_level_give_the_pooled_scores_when_cut_at_one_half(scores):
    pixels, lesion = np.array(scores.details['test']['levels'][0])
    assert pixels.sum() == 18 * 40 * 50
    assert scores.figures['test/pooled/recall'] == pytest.approx(lesion[128:].sum() / lesion.sum())
    assert scores.figures['test/pooled/precision'] == pytest.approx(lesion[128:].sum() / pixels[128:].sum())


def test_the_card_says_what_the_model_is_and_is_not(folder, scores):
    card = write_card(scores, folder).read_text(encoding='utf-8')
    for words in (
        'Not a medical device', 'M²SNet with the encoder Res2Net-50, run at 128×128 pixels', f'`{"a" * 64}`',
        '`busi`: Breast tumours in ultrasound images (BUSI), in folds. Fold 0 is the test.', '`manifest`',
        '| test | 18 |', '### test: 18 images', '**released**', '**pranet**', '**hard**', '95% interval',
        '| `optimizer.peak_lr` | 0.05 | 0.02 |', '12 steps of 8 images',
        'Weights at the start: random', '## Limits', 'marks pixels in 100% of the images without a lesion',
        '## Licence', 'arXiv:2303.10894',
    ):  # fmt: skip
        assert words in card, words
    low, high = (f'{bound:.4f}' for bound in scores.summary['intervals']['test/hard/Dice'])
    assert f'| Dice | {scores.figures["test/hard/Dice"]:.4f} | {low} … {high} |' in card
    assert 'nan' not in card.lower()


def test_the_card_counts_what_the_manifest_lists_and_keeps_names_from_being_marks(scores, tmp_path):
    folder = tmp_path / '<b>|run*'
    folder.mkdir()
    (folder / 'manifest.csv').write_text('split,name\ntrain,a\ntrain,b\ntest,c\n')
    card = write_card(scores, folder).read_text(encoding='utf-8')
    assert '| train | 2 |\n| test | 1 |' in card
    assert '# Model card: &lt;b>&#124;run&#42;' in card


@pytest.mark.parametrize('name', ['seed0', 'fold2-seed13'])
def test_a_run_of_a_study_is_named_with_its_variant(folder, scores, tmp_path, name):
    run = shutil.copytree(folder, tmp_path / 'no_filters' / name)
    card = write_card(scores, run).read_text(encoding='utf-8')
    assert f'# Model card: no_filters/{name}\n' in card
    assert f"load_model('no_filters/{name}')" in card
    assert f'<title>Scores of no_filters/{name}' in write_report(scores, run).read_text(encoding='utf-8')


def test_the_card_of_an_evaluation_does_not_describe_training(scores, tmp_path):
    summary = {key: value for key, value in scores.summary.items() if key != 'step'} | {'model': 'authors.pth'}
    card = write_card(dataclasses.replace(scores, summary=summary), tmp_path).read_text(encoding='utf-8')
    assert '## Training' not in card
    assert "load_model('authors.pth')" in card


def test_the_card_of_several_models_loads_all_of_them(scores, tmp_path):
    summary = {**scores.summary, 'model': 'runs/a, runs/b', 'models': ['runs/a', 'runs/b']}
    card = write_card(dataclasses.replace(scores, summary=summary), tmp_path).read_text(encoding='utf-8')
    assert "load_model(['runs/a', 'runs/b'])('image.png')" in card


def test_a_copy_without_the_pictures_of_its_cases_has_a_page_that_says_so(folder, page, tmp_path, capsys):
    shutil.copytree(folder / 'scores', tmp_path / 'scores')
    shutil.rmtree(tmp_path / 'scores' / 'cases' / 'normal')
    assert main(['', 'report', str(tmp_path)]) == 0
    again = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert 'normal: scores/cases lacks the pictures of 1 cases: <script>alert(1)' in text_of(again)
    assert again.count('<img') == page.count('<img') - 4
    shutil.rmtree(tmp_path / 'scores' / 'cases')
    assert main(['', 'report', str(tmp_path)]) == 0
    again = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert 'test: scores/cases lacks the pictures of 16 cases' in text_of(again)
    assert '<img' not in again
    assert 'lacks the pictures' not in page


def test_points_that_are_not_finite_are_left_out():
    chart = charts.line_chart([('a', [0, 1, 2, 3], [0, np.nan, np.inf, 1])], 'x', 'y')
    assert 'nan' not in chart
    assert chart.count('<circle') == 2
    assert charts.line_chart([('a', [], [])], 'x', 'y').startswith('<svg')
    assert charts.line_chart([('a', [1], [5])], 'x', 'y').startswith('<svg')
    assert charts.scatter([0, 5], [0.1, 0.2], 'x', 'y').count('<circle') == 1


def test_bars_of_a_histogram_are_as_high_as_their_counts():
    chart = charts.histogram([0.01] * 4 + [0.99] * 2, 'x', 'y', bins=2)
    heights = [float(height) for height in re.findall('class="bar"[^>]*height="([^"]*)"', chart)]
    assert heights[0] == pytest.approx(2 * heights[1], rel=1e-2)
