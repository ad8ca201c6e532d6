"""The pages: commands are parsed or run, blocks of Python run, links, file names and published figures are right.

A command that cannot run here is in a block with `<!-- not run: REASON -->` on the line above.
"""

import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from compilation_cache import CACHE
from data_trees import image_of, make_pairs, mask_of, write
from test_notebooks import NOTEBOOKS, TEST_SETS, polyps
from torch_files import dict_of, storage, tensor, write_zip

from m2snet_jax import commands
from m2snet_jax.__main__ import main
from m2snet_jax.build import check_config, create_model
from m2snet_jax.evaluation.published import published
from m2snet_jax.weights import state_dict

pytestmark = pytest.mark.usefixtures('compiled_quickly')

ROOT = Path(__file__).parents[2]
EXTRAS = set(tomllib.loads((ROOT / 'pyproject.toml').read_text())['project'].get('optional-dependencies', {}))
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r'(?:<!-- not run: ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r'(?:\S*/)?python3? (?:train\.py|-m m2snet_jax) ?')
TINY = ['--config.model.encoder=res2net14', '--config.data.size=48', '--config.evaluate.bootstrap=20']
TRAINING = [
    '--config.batch=2',
    '--config.steps=2',
    '--config.data.sizes=(48,)',
    '--config.loss.lossnet=0',
    '--config.model.encoder_weights=none',  # there is no network here
]
# The commands that run here, quick ones and slow ones. The others are only parsed, and have tests of their own.
QUICK = ('compare', 'convert', 'evaluate', 'export', 'predict', 'report', 'validate')
SLOW = ('train', 'benchmark')
# Pages whose commands need more than the folder below, and the tests that run them; here they are parsed only.
ELSEWHERE = {'docs/clinic.md': 'data/test_volumes.py'}


class Block(NamedTuple):
    """A fenced block: its page, language ('' is the shell), text, and why it is not run, or None."""

    page: str
    language: str
    text: str
    not_run: str


def blocks(page):
    text = page.read_text(encoding='utf-8')
    return [Block(str(page.relative_to(ROOT)), match[2], match[3], match[1]) for match in FENCE.finditer(text)]


BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ('', 'sh', 'bash', 'console')]


def lines(block):
    """The single commands of a shell block; where one follows a `$`, what follows none is output."""
    typed = block.text.replace('\\\n', ' ').splitlines()
    if any(line.startswith('$ ') for line in typed):
        typed = [line.removeprefix('$ ') for line in typed if line.startswith('$ ')]
    return [part.strip() for line in typed for part in line.split('&&') if part.strip()]


def arguments(line):
    """['train', '--config=…'] of a command of ours, None for another program's."""
    match = PYTHON.match(line)
    if not match:
        return None
    words = shlex.split(line[match.end() :], comments=True)
    return ['train', *words] if 'train.py' in match[0] else words


COMMANDS = [(block, line, arguments(line)) for block in SHELL for line in lines(block)]
OURS = []  # (page, why it is not run, words) of each command once, under the first page that has it
for block, _, words in COMMANDS:
    if words and words not in [known for _, _, known in OURS]:
        OURS.append((block.page, block.not_run, words))
NAMES = [f'{page}: {" ".join(words)}' for page, _, words in OURS]


class Parsed(BaseException):
    """Raised in place of what a command does once its command line is parsed."""


@pytest.mark.parametrize(('page', 'not_run', 'words'), OURS, ids=NAMES)
def test_every_command_is_understood(page, not_run, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(f'm2snet_jax.commands.{words[0].replace("-", "_")}')

    def parse_and_stop(*values, **keys):
        config = commands.parse(*values, **keys).config
        if config is not None:
            check_config(config)
        raise Parsed

    monkeypatch.setattr(module, 'parse', parse_and_stop)
    words = [word.replace('gs://', '/') for word in words]  # the library of buckets is optional
    with pytest.raises(Parsed):
        main(['', *words])


def test_other_programs_are_those_of_setting_up():
    for block, line, words in COMMANDS:
        if words is not None or block.not_run:
            continue
        first, *others = shlex.split(line, comments=True)
        program = Path(first).name
        assert program in ('python', 'python3', 'pip', 'ruff', 'pyright', 'git', 'docker'), f'{block.page}: {line}'
        for flag, value in itertools.pairwise(others):
            assert flag != '-r' or (ROOT / value).is_file(), f'{block.page}: {value}'
        for extras in re.findall(r'(?:^\.|m2snet_jax)\[([\w,-]+)\]', '\n'.join(others), re.MULTILINE):
            assert set(extras.split(',')) <= EXTRAS, f'{block.page}: {line}'


def test_pages_with_tests_of_their_own_have_them():
    for page, name in ELSEWHERE.items():
        test = ROOT / 'tests' / name
        assert not (ROOT / page).exists() or page in test.read_text(encoding='utf-8')


def test_blocks_that_are_not_run_say_why():
    assert all(len(block.not_run) > 8 for block in BLOCKS if block.not_run)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder where what the pages name exists, small: runs, images, masks, maps, datasets, weights."""
    folder, before = tmp_path_factory.mktemp('docs'), Path.cwd()
    model = create_model('m2snet', 'res2net14')
    arrays = {name: np.asarray(array, np.float32) for name, array in state_dict(model).items()}
    stored = {
        name: tensor(storage('FloatStorage', str(key), array.size), 0, array.shape, strides(array))
        for key, (name, array) in enumerate(arrays.items())
    }
    write_zip(
        folder / 'authors.pth', dict_of(stored), {str(key): one.tobytes() for key, one in enumerate(arrays.values())}
    )
    make_pairs(folder / 'my' / 'images', folder / 'my' / 'masks', [f'case{number}' for number in range(8)])
    for name in ('maps', 'masks'):
        shutil.copytree(folder / 'my' / 'masks', folder / name)
    shutil.copy(folder / 'my' / 'images' / 'case0.png', folder / 'image.png')
    polyps(folder / 'data' / 'polyp')
    for test_set in TEST_SETS:
        shutil.copytree(
            folder / 'data' / 'polyp' / 'TestDataset' / test_set / 'masks', folder / 'polyp_maps' / test_set
        )
    for start, label, count in ((100, 'benign', 5), (110, 'malignant', 5), (120, 'normal', 1)):
        for number in range(count):
            write(folder / 'data' / 'busi' / label / f'{label} ({number}).png', image_of(start + number))
            write(
                folder / 'data' / 'busi' / label / f'{label} ({number})_mask.png', mask_of(number * (label != 'normal'))
            )
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    shutil.copytree(ROOT / 'tests' / 'golden', folder / 'tests' / 'golden')
    shutil.copytree(ROOT / 'docs' / 'reproduction', folder / 'docs' / 'reproduction')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TFDS_DATA_DIR', str(folder / 'tfds'))
        patch.setenv('JAX_COMPILATION_CACHE_DIR', os.path.abspath(CACHE))  # else commands keep theirs with the user's
        patch.setenv('PYTHONPATH', str(ROOT))  # of processes that a command starts
        patch.chdir(folder)
        (folder / 'runs').mkdir()
        # What a run records is what the commands take from it, so that they stay small without further flags.
        phantoms = ['--config=quickstart', *TINY, '--config.data.count=4', '--config.data.test_count=3']
        run(['convert', 'authors.pth', 'runs/quickstart', *phantoms])
        run(['evaluate', '--model=runs/quickstart', '--output=runs/quickstart'])
        for name in ('kvasir', 'folder', 'first', 'second'):
            shutil.copytree('runs/quickstart', f'runs/{name}')
        yield folder
    os.chdir(before)


def strides(array):
    return [stride // array.itemsize for stride in array.strides]


def run(words):
    assert main(['', *words]) == 0, ' '.join(words)


def commands_of(kinds, pages=IDS):
    """The commands of the pages that run here: as they stand, but for the flags that make a config small."""
    pages = set(pages) - set(ELSEWHERE)
    found = [words for page, not_run, words in OURS if not not_run and page in pages and words[0] in kinds]
    training = TRAINING if kinds == SLOW else []
    return [[*words, *TINY, *training] if any('--config=' in word for word in words) else words for words in found]


def written_by(words):
    """The paths that a command makes."""
    named = [word.partition('=')[2] for word in words if word.startswith(('--output=', '--workdir='))]
    return words[2:3] if words[0] == 'convert' else named


@pytest.mark.parametrize('pages', [['README.md'], pytest.param(IDS, marks=pytest.mark.slow)], ids=['README', 'all'])
def test_quick_commands_run(pages, folder):
    for words in commands_of(QUICK, pages):
        for path in written_by(words):  # several pages write to the same names
            shutil.rmtree(path, ignore_errors=True)
            Path(path).unlink(missing_ok=True)
        run(words)
        assert all(Path(path).exists() for path in written_by(words)), ' '.join(words)


@pytest.mark.slow
def test_slow_commands_run(folder):
    jax.config.update('jax_disable_most_optimizations', True)  # compiling is most of the time
    try:
        for number, words in enumerate(commands_of(SLOW)):
            run([*words, f'--workdir=runs/slow{number}'] if words[0] == 'train' else words)
    finally:
        jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_blocks_of_python_run(page, folder):
    names = {}
    for block in blocks(page):
        if block.language == 'python' and not recipe(block) and not block.not_run:
            exec(compile(block.text, block.page, 'exec'), names)


def recipe(block):
    """The path of the file that a block shows, None for a block that is run."""
    match = re.match(r'# (m2snet_jax/\S+\.py)\n', block.text)
    return match and match[1]


def apply(difference, top):
    """Changes files as a diff without line numbers says: each hunk fits at one place, or it is out of date."""
    for part in re.split(r'^--- ', difference, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition('\n')
        text = (top / name).read_text()
        for hunk in hunks.split('@@\n'):
            before, after = ('\n'.join(x[1:] for x in hunk.splitlines() if x[0] != sign) for sign in '+-')
            assert text.count(before) == 1, f'{name}: {before}'
            text = text.replace(before, after)
        (top / name).write_text(text)


USES = """
import csv, json
from pathlib import Path
import jax, numpy as np
from flax import nnx
from m2snet_jax import M2SNet, load_config, load_model, metrics
from m2snet_jax.__main__ import main
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.weights import load_state_dict, state_dict

def run(*words):
    assert main(['', *words]) == 0, words

# the dataset
run('validate', '--config=default', '--config.data.name=cells', '--root=cells')
dataset = open_dataset(load_config('default', **{'data.name': 'cells', 'data.root': 'cells'}))
assert (len(dataset.train), len(dataset.tests['test']), len(dataset.manifest)) == (5, 5, 10)

# the encoder
model = M2SNet('plain', rngs=nnx.Rngs(0))
maps = jax.eval_shape(lambda images: M2SNet('plain', rngs=nnx.Rngs(0)).encoder(images), np.zeros((2, 47, 50, 3), 'f4'))
assert [one.shape[1:] for one in maps] == [(12, 13, 64), (12, 13, 64), (6, 7, 128), (3, 4, 256), (2, 2, 512)]
arrays = state_dict(model)
assert len(arrays) == len(nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
other = load_state_dict(M2SNet('plain', rngs=nnx.Rngs(1)), arrays)
assert all(np.array_equal(array, arrays[name]) for name, array in state_dict(other).items())

changes = {'model.encoder': 'plain', 'steps': 4, 'batch': 2, 'data.count': 4, 'data.test_count': 3, 'data.size': 48,
           'data.sizes': '(48,)', 'loss.lossnet': 0, 'evaluate.bootstrap': 20}
run('train', '--config=quickstart', '--workdir=run', *(f'--config.{key}={value}' for key, value in changes.items()))
run('evaluate', '--model=run', '--output=scored')
run('report', 'run', 'scored')
for folder in ('run', 'scored'):
    pages = [(Path(folder) / name).read_text() for name in ('report.html', 'model_card.md')]
    assert all('plain' in page and 'F2' in page for page in pages), folder
assert load_model('run')(np.zeros((50, 60, 3), 'u1')).shape == (50, 60)

# the score
prediction, mask = np.zeros((9, 9), 'u1'), np.zeros((9, 9), 'u1')
prediction[:2], mask[1:3] = 255, 255  # TP = FP = FN = 9
scores = [metrics.score(prediction, mask, 'hard')]
summary = metrics.aggregate(scores, 'hard')
assert scores[0]['F2'] == summary['F2'] == summary['pooled/F2'] == 0.5
sheet = json.loads(Path('run/scores/summary.json').read_text())
assert {'test/hard/F2', 'test/pooled/F2'} <= sheet['scores'].keys() & sheet['intervals'].keys()
assert all('hard/F2' in row for row in csv.DictReader(Path('run/scores/per_image.csv').open()))
print('COMPARED')
run('compare', 'run', 'scored')
"""


@pytest.mark.slow
def test_the_recipes_for_contributors_work(tmp_path):
    for name in ('m2snet_jax', 'configs'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    for block in blocks(ROOT / 'CONTRIBUTING.md'):
        if path := recipe(block):
            assert not (tmp_path / path).exists()
            (tmp_path / path).write_text(block.text)
        elif block.language == 'diff':
            apply(block.text, tmp_path)
    for split in ('train', 'test'):
        start = 0 if split == 'train' else 5
        for number in range(start, start + 5):
            write(tmp_path / 'cells' / split / 'images' / f'{number}.png', image_of(number))
            write(tmp_path / 'cells' / split / 'masks' / f'{number}.png', mask_of(number))
    environment = {
        **os.environ,
        'PYTHONPATH': str(tmp_path),
        'TFDS_DATA_DIR': str(tmp_path / 'tfds'),
        'JAX_COMPILATION_CACHE_DIR': os.path.abspath(CACHE),
    }
    done = subprocess.run([sys.executable, '-c', USES], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scored, _, compared = done.stdout.partition('COMPARED')
    assert re.search(r'^ +F2 +0\.\d', scored, re.MULTILINE), scored
    assert re.search(r'^ +hard/F2 +0\.\d', compared, re.MULTILINE), compared


def slug(heading):
    """The anchor that GitHub gives a heading."""
    text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).replace('`', '').strip().lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


def without_code(text):
    return re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    text = without_code(path.read_text(encoding='utf-8'))
    return {slug(heading) for heading in re.findall(r'^#+ (.+)$', text, re.MULTILINE)}


LINKING = [*PAGES, ROOT / 'CHANGELOG.md', *NOTEBOOKS.values()]


@pytest.mark.parametrize('page', LINKING, ids=[page.name for page in LINKING])
def test_links_lead_somewhere(page):
    text = page.read_text(encoding='utf-8')
    if page.suffix == '.ipynb':
        cells = json.loads(text)['cells']
        text = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', without_code(text))):
        if re.match(r'https?://|mailto:', target):
            continue
        path, _, anchor = target.partition('#')
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f'{page.name} links to {target}'
        assert not anchor or anchor in anchors(found), f'{page.name} links to {target}: no such heading'
        assert found.is_relative_to(ROOT), f'{page.name} links to {target}, outside the repository'


def test_the_page_on_architecture_lists_every_file():
    listed = re.findall(r'[\w.]+\.py\b', ''.join(block.text for block in blocks(ROOT / 'docs' / 'architecture.md')))
    grouped = ('commands', 'datasets')  # one line each on the page
    files = {path for path in (ROOT / 'm2snet_jax').rglob('*.py') if path.parent.name not in grouped}
    names = {path.name for path in files if path.name != '__init__.py'}
    assert sorted(name for name in listed if name != '__init__.py') == sorted(names)


def test_every_page_of_docs_is_linked_from_the_index():
    text = (ROOT / 'docs' / 'index.md').read_text(encoding='utf-8')
    assert [page.name for page in PAGES[2:] if page.name != 'index.md' and f']({page.name})' not in text] == []


def test_every_page_of_docs_is_linked_from_the_readme():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert [page.name for page in PAGES[2:] if f'](docs/{page.name})' not in text] == []


SETS = {'CVC-300-TV': ('video_polyp', 'CVC-300-TV'), 'COVID-19': ('covid19', 'test'), 'BUSI': ('busi', 'test')}


@pytest.mark.parametrize('page', ['README.md', 'docs/scores.md'])
def test_published_figures_are_those_of_the_package(page):
    rows = [line.strip('| ').split(' | ') for line in (ROOT / page).read_text(encoding='utf-8').splitlines()]
    (header,) = (row for row in rows if row[:2] == ['set', 'model'])
    found = {(row[0], row[1]): row[2:] for row in rows if len(row) == len(header) and row[1] in ('MSNet', 'M²SNet')}
    known = {}
    for name in ('Kvasir', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB', 'CVC-300', *SETS):
        figures = published(*SETS.get(name, ('polyp', name)))
        for model in ('MSNet', 'M²SNet'):
            entries = [figures.get(f'released/{score}', {}).get(model) for score in header[2:]]
            known[name, model] = [f'{one["figure"]} {one["sources"]}' if one else '—' for one in entries]
    assert found
    assert found == {key: known[key] for key in found}
    assert {name for name, model in found if model == 'M²SNet'} == {name for name, _ in known}
    assert page == 'README.md' or found == known
