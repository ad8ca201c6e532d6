"""The page of a run: whole in itself, complete, and safe whatever the files are called."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest

from m2snet_jax import InputError, load_config, mesh
from m2snet_jax.__main__ import main
from m2snet_jax.config import to_json
from m2snet_jax.data.datasets import Dataset
from m2snet_jax.evaluation import evaluate, write_summary
from m2snet_jax.evaluation.table import text
from m2snet_jax.plot import charts
from m2snet_jax.report import write_card, write_report

pytestmark = pytest.mark.usefixtures('compiled_quickly')

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

    scores, _ = evaluate(predict, dataset, config, mesh.make_mesh(), folder)
    write_summary(folder, scores, {'config': to_json(config), 'model_hash': 'a' * 64, 'step': 12})
    rows = [{'step': step, 'loss': 1 / step, 'validation/Dice': step / 10} for step in range(1, 9)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows) + '{"step": 9, "lo')
    return folder


@pytest.fixture(scope='module')
def page(run):
    return write_report(run).read_text(encoding='utf-8')


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
        'reference', 'pranet', 'hard', 'pooled', 'lesion-free', 'M²SNet, published', '.7921±.0138', '95% interval',
        'Worst cases', 'Best cases', 'False alarms', 'Calibration', 'recall', 'threshold', 'lesion, % of the image',
        'optimizer.peak', 'All settings', 'image2',
    ):  # fmt: skip
        assert words in page, words


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


def test_the_table_in_words_has_the_same_figures(run):
    sheet = json.loads((run / 'scores' / 'summary.json').read_text())
    words = text(sheet)
    for name in ('reference/Dice', 'pranet/meanDic', 'hard/IoU', 'pooled/Dice'):
        assert f'{sheet["scores"]["test/" + name]:.4f}' in words
    assert 'M²SNet .7921±.0138(1)' in words
    assert '(1) mean and deviation over folds' in words
    assert 'Not the released recipe: batch 16 → 8' in words
    assert 'epochs 50 → 14' in words


def test_the_command_draws_it_anew(run, capsys):
    for name in ('report.html', 'model_card.md'):
        (run / name).unlink(missing_ok=True)
    assert main(['', 'report', str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(run / 'report.html'), str(run / 'model_card.md')]
    assert (run / 'report.html').exists()
    assert main(['', 'report']) == 2
    assert main(['', 'report', '--unknown']) == 2


def test_a_folder_without_sheets_is_refused(tmp_path):
    with pytest.raises(InputError, match='no readable score sheet'):
        write_report(tmp_path)


def test_pixels_of_each_level_give_the_pooled_scores_when_cut_at_one_half(run):
    pixels, lesion = np.array(json.loads((run / 'scores' / 'details.json').read_text())['test']['levels'][0])
    assert pixels.sum() == 18 * 40 * 50
    scores = json.loads((run / 'scores' / 'summary.json').read_text())['scores']
    assert scores['test/pooled/recall'] == pytest.approx(lesion[128:].sum() / lesion.sum())
    assert scores['test/pooled/precision'] == pytest.approx(lesion[128:].sum() / pixels[128:].sum())


def test_the_card_says_what_the_model_is_and_is_not(run):
    card = write_card(run).read_text(encoding='utf-8')
    sheet = json.loads((run / 'scores' / 'summary.json').read_text())
    for words in (
        'Not a medical device', 'M²SNet with the encoder Res2Net-50, run at 128×128 pixels', f'`{"a" * 64}`',
        '`busi`: Breast tumours in ultrasound images (BUSI), in folds. Fold 0 is the test.', '`manifest`',
        '| test | 18 |', '### test: 18 images', '**reference**', '**pranet**', '**hard**', '95% interval',
        '| `optimizer.peak` | 0.05 | 0.02 |', '12 steps of 8 images',
        'Weights at the start: random', '## Limits', 'claims a lesion in 100% of the images without any', '## Licence',
        'arXiv:2303.10894',
    ):  # fmt: skip
        assert words in card, words
    low, high = (f'{bound:.4f}' for bound in sheet['intervals']['test/hard/Dice'])
    assert f'| Dice | {sheet["scores"]["test/hard/Dice"]:.4f} | {low} … {high} |' in card
    assert 'nan' not in card.lower()


def test_the_card_counts_what_the_manifest_lists_and_keeps_names_from_being_marks(run, tmp_path):
    folder = tmp_path / '<b>|run*'
    shutil.copytree(run, folder)
    (folder / 'manifest.csv').write_text('split,name\ntrain,a\ntrain,b\ntest,c\n')
    card = write_card(folder).read_text(encoding='utf-8')
    assert '| train | 2 |\n| test | 1 |' in card
    assert '# Model card: &lt;b>&#124;run&#42;' in card


def test_an_evaluation_does_not_tell_of_a_training_that_it_does_not_know(run, tmp_path):
    folder = tmp_path / 'evaluation'
    shutil.copytree(run, folder)
    sheet = json.loads((folder / 'scores' / 'summary.json').read_text())
    del sheet['step']
    (folder / 'scores' / 'summary.json').write_text(json.dumps({**sheet, 'model': 'authors.pth'}))
    card = write_card(folder).read_text(encoding='utf-8')
    assert '## Training' not in card
    assert "load_model('authors.pth')" in card


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
