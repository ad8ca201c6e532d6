"""The notebooks in colab/: thin, stripped, and running top to bottom in their smoke mode."""

import copy
import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from compilation_cache import CACHE
from data_trees import image_of, make_pairs, mask_of, write
from tiny_models import write_model

from m2snet_jax.__main__ import main

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / 'colab').glob('*.ipynb'))}
REPOSITORY = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['urls']['Repository']
TEST_SETS = ('Kvasir', 'ETIS-LaribPolypDB')


def cells(name, kind):
    """The sources of a notebook's cells of one kind."""
    book = json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))
    return [''.join(cell['source']) for cell in book['cells'] if cell['cell_type'] == kind]


def test_there_are_four():
    assert set(NOTEBOOKS) == {'quickstart', 'kvasir', 'predict', 'reproduce'}


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_outputs_are_stripped(name):
    book = json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))
    code = [cell for cell in book['cells'] if cell['cell_type'] == 'code']
    assert [(cell['outputs'], cell['execution_count']) for cell in code] == [([], None)] * len(code)
    assert not any(cell['metadata'] for cell in book['cells'])


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_opens_with_a_badge_to_itself_and_says_device_and_time(name):
    first = cells(name, 'markdown')[0]
    path = REPOSITORY.removeprefix('https://github.com/')
    assert f'](https://colab.research.google.com/github/{path}/blob/main/colab/{name}.ipynb)' in first.splitlines()[0]
    assert '**Device:**' in first
    assert '**Time:**' in first
    assert re.search(r'T4 \(an estimate\)|T4\. This is an estimate', first), 'no estimate for a T4'
    assert re.search(r'two\s+CPU cores \(measured\)', first), 'no measured time on a CPU'
    assert len(re.findall(r'\d [^.:]*\(measured\)', first)) == first.count('(measured)'), 'no figure was measured'
    assert 'After a restart' in first
    assert any(REPOSITORY in cell for cell in cells(name, 'code')), 'it does not install the package'


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_its_text_fits_a_screen(name):
    book = json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))
    between = 0  # lines of text since the last cell of code
    for cell in book['cells']:
        between = between + len(cell['source']) if cell['cell_type'] == 'markdown' else 0
        assert between <= 15, ''.join(cell['source'])


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_holds_no_logic(name):
    code = cells(name, 'code')
    assert sum('M2SNET_SMOKE' in cell for cell in code) == 1
    for cell in code:
        assert not re.search(r'^\s*(def|class|while|try|with) ?', cell, re.MULTILINE), cell
        assert len(cell.splitlines()) <= 14, cell


def polyps(root):
    """A tree in PraNet's layout with 4 training images and 2 in each of two test sets."""
    make_pairs(root / 'TrainDataset' / 'image', root / 'TrainDataset' / 'mask', [f'train{i}' for i in range(4)])
    for start, test_set in enumerate(TEST_SETS):
        for number in range(2):
            seed = 10 * (start + 1) + number
            write(root / 'TestDataset' / test_set / 'images' / f'{number}.png', image_of(seed))
            write(root / 'TestDataset' / test_set / 'masks' / f'{number}.png', mask_of(seed))


def prepare(name, folder):
    """Puts into a notebook's folder what its smoke mode reads."""
    if name in ('kvasir', 'reproduce'):
        polyps(folder / 'data')
    if name == 'reproduce':
        for test_set in TEST_SETS:
            shutil.copytree(folder / 'data' / 'TestDataset' / test_set / 'masks', folder / 'maps' / test_set)
    if name == 'predict':
        weights = write_model(folder / 'tiny.safetensors')
        flags = ['--config=quickstart', '--config.data.size=48']
        assert main(['', 'convert', str(weights), str(folder / 'model'), *flags]) == 0
        for number in range(2):
            write(folder / 'images' / f'{number}.png', image_of(number))


# What each leaves behind, so that a cell that does nothing is found out.
LEAVES = {
    'quickstart': ['runs/quickstart/report.html', 'runs/quickstart/scores/summary.json'],
    'kvasir': ['runs/kvasir/report.html', 'runs/kvasir-evaluation/scores/summary.json'],
    'predict': ['maps/0.png', 'maps/overlays/1.png'],
    'reproduce': ['evaluations/authors/report.html'],
}
# What the second kernel prints where the first one has done the work already.
REPEATED = {
    'quickstart': 'this run is finished (4 steps); nothing to do',
    'kvasir': 'this run is finished (4 steps); nothing to do',
    'predict': '0 of 2 images predicted, 2 were there already',
    'reproduce': 'Kvasir: 2 images',  # scores are computed again
}


@pytest.mark.parametrize(
    'name', [*(pytest.param(name, marks=pytest.mark.slow) for name in ('quickstart', 'kvasir', 'predict')), 'reproduce']
)
# Threads of the kernel's client outlive the test, and zmq tells of it on some platforms.
@pytest.mark.filterwarnings('default')
def test_it_runs_top_to_bottom_after_a_restart_in_the_middle(name, tmp_path, monkeypatch):
    reason = 'notebooks run where requirements-dev.txt is installed'
    nbclient, nbformat = (pytest.importorskip(module, reason=reason) for module in ('nbclient', 'nbformat'))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
    prepare(name, tmp_path)
    environment = {
        'M2SNET_SMOKE': '1',
        'JAX_COMPILATION_CACHE_DIR': os.path.abspath(CACHE),
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compiling is most of the time
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': str(ROOT),
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'IPYTHONDIR': str(tmp_path / 'ipython'),
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        commands = re.findall(r'^!', cell.source, re.MULTILINE)
        assert len(commands) <= 1, 'a cell runs one command, whose exit status can then be checked'
        if commands:
            cell.source += "\nassert _exit_code == 0, 'the command failed'"
    half = copy.deepcopy(book)
    (middle,) = (
        at for at, cell in enumerate(book.cells) if re.search('m2snet_jax (train|predict|parity) ', cell.source)
    )
    half.cells = half.cells[: middle + 1]
    for part in (half, book):  # each in a kernel of its own
        nbclient.NotebookClient(
            part, timeout=600, kernel_name='python3', resources={'metadata': {'path': tmp_path}}
        ).execute()
    for path in LEAVES[name]:
        assert (tmp_path / path).is_file(), path
    printed = ''.join(output.get('text', '') for cell in book.cells for output in cell.get('outputs', ()))
    assert REPEATED[name] in printed
    if name == 'reproduce':
        scores = json.loads((tmp_path / 'evaluations/authors/scores/summary.json').read_text())['scores']
        assert np.allclose([scores[f'{test_set}/hard/Dice'] for test_set in TEST_SETS], 1)
