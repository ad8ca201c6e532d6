"""The command `parity`: passes what is right, finds what is wrong, and shows both as text, JSON and a page."""

import functools
import html.parser
import json
import math
import os
import shutil

import jax
import numpy as np
import pytest
from compilation_cache import CACHE
from flax import nnx
from golden import seeded
from golden_cases import FOLDER
from safetensors.numpy import load_file, save_file

from m2snet_jax import LossNet
from m2snet_jax.__main__ import main
from m2snet_jax.build import create_model
from m2snet_jax.models import batch_norm, subtraction
from m2snet_jax.parity import differences, goldens
from m2snet_jax.parity.outcomes import Outcomes
from m2snet_jax.parity.parity_page import page
from m2snet_jax.parity.tolerances import TOLERANCE
from m2snet_jax.weights import state_dict

SIZE = [2, 40, 40]
UNITS = len(subtraction.UNITS)


@pytest.fixture(scope='module', autouse=True)
def small_lossnet():
    """A LossNet at 32 pixels, whose cost would be all of these tests'; and the tests' own compilation cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('JAX_COMPILATION_CACHE_DIR', os.path.abspath(CACHE))
        patch.setattr(goldens, 'LossNet', functools.partial(LossNet, size=32))
        yield


def seeded_arrays():
    """The weights that the seed stands for, of an M2SNet with a Res2Net-14, and its running statistics."""
    model = nnx.eval_shape(lambda: create_model('m2snet', 'res2net14'))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), nnx.state(model))
    nnx.update(model, zeros)
    shapes = {name: array.shape for name, array in state_dict(model).items()}
    statistics = {name: np.ones(shape, 'f4') for name, shape in shapes.items() if name.endswith(('mean', 'var'))}
    return seeded.state_dict(shapes, 1) | statistics


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """A folder of goldens that says what to run, without any truth."""
    folder, arrays = tmp_path_factory.mktemp('inputs'), seeded_arrays()
    shapes = json.loads((FOLDER / 'state_dict_shapes.json').read_text())
    shapes['m2snet'] = {name: array.shape for name, array in arrays.items()}
    (folder / 'state_dict_shapes.json').write_text(json.dumps(shapes))
    statistics = {name: array for name, array in arrays.items() if name.endswith(('mean', 'var'))}
    np.savez(folder / 'm2snet_buffers.npz', **statistics)
    sizes = {'eval': [SIZE], 'train': SIZE, 'size2': SIZE, 'steps': 2}
    np.savez(folder / 'm2snet_golden.npz')
    (folder / 'm2snet_golden.json').write_text(json.dumps({'seed': 1, 'sizes': sizes, 'encoder': 'res2net14'}))
    return folder


@pytest.fixture(scope='module')
def folder(inputs, tmp_path_factory):
    """Goldens made by our own code: truths about it as it is now, not about PyTorch's.

    That our code is right is for the real goldens to say; here it is enough to know what changes.
    """
    folder = tmp_path_factory.mktemp('golden') / 'm2snet'
    shutil.copytree(inputs, folder)
    with jax.enable_x64(True):
        case = goldens.Goldens(folder, 'm2snet')
        outcomes = Outcomes(case, 'float64')
        found, step_values = outcomes.training_step()
        found |= outcomes.evaluation(outcomes.model(), [SIZE])
        trained, trained_values = outcomes.trajectory(outcomes.model())
    np.savez(folder / 'm2snet_golden.npz', **found, **trained)
    (folder / 'm2snet_golden.json').write_text(json.dumps(case.values | step_values | trained_values))
    return folder


def run(folder, *arguments):
    flags = () if any(word.startswith('--dtypes') for word in arguments) else ('--dtypes=float64',)
    return main(['m2snet_jax', 'parity', f'--golden={folder}', '--models=m2snet', *flags, *map(str, arguments)])


def failed(capsys):
    report = json.loads(capsys.readouterr().out)
    return {row['what']: row for row in report['models']['m2snet'] if not row['passed']}


@pytest.mark.slow
def test_everything_is_within_tolerance_and_printed(folder, capsys):
    assert run(folder) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[-1].endswith('within tolerance')
    passed, total = (int(word) for word in lines[-1].split()[:3:2])
    assert passed == total == sum('  pass' in line for line in lines)
    assert 'FAIL' not in out
    for _, _, unit in subtraction.UNITS:
        assert any(line.startswith(f'gradients, unit {unit} ') for line in lines)
        assert any(line.startswith(f'running statistics, unit {unit} ') for line in lines)
    for part in ('encoder stem', 'encoder stage 4', 'reduction', 'full-one filters', 'enhancement', 'decoder'):
        assert sum(f', {part} ' in line for line in lines) == 2
    assert sum(' after ' in line for line in lines) >= 4


@pytest.mark.slow
def test_numbers_are_the_same_as_json_and_as_a_page(folder, tmp_path, capsys):
    assert run(folder, '--dtypes=float64,float32,bfloat16', '--json', '--html', f'--output={tmp_path}') == 0
    report = json.loads(capsys.readouterr().out)
    rows = report['models']['m2snet']
    assert report['passed'] is True
    for row in rows:
        assert row['float64'] <= row['tolerance'] <= 1e-6
    logits = rows[0]
    assert logits['what'] == 'logits, evaluation, 2x40x40'
    assert logits['float64'] < 1e-12 < logits['float32'] < 1e-4 < logits['bfloat16'] < 0.5
    assert (tmp_path / 'parity.html').read_text() == page(report)


@pytest.mark.slow
def test_without_float64_nothing_is_judged(folder, capsys):
    assert run(folder, '--dtypes=float32') == 0
    out = capsys.readouterr().out
    assert 'without float64 there is no tolerance' in out
    assert 'pass' not in out


def weights_file(path, change=None):
    """The seeded weights as a file, with one value of one tensor changed by a thousandth of it."""
    arrays = seeded_arrays()
    if change:
        arrays[change].flat[17] *= np.float32(1 + 1e-3)
    save_file(arrays, path)
    return path


@pytest.mark.slow
def test_a_weight_that_is_off_is_found(folder, tmp_path, capsys):
    right = weights_file(tmp_path / 'right.safetensors')
    assert run(folder, f'--weights={right}', '--json') == 0
    assert failed(capsys) == {}
    wrong = weights_file(tmp_path / 'wrong.safetensors', 'x5_x4_x3.0.weight')
    assert run(folder, f'--weights={wrong}', '--json') == 1
    found = failed(capsys)
    assert {'logits, training', 'gradient of the logits'} <= found.keys()
    assert 'running statistics, unit x5_x4_x3' in found
    assert 'running statistics, unit x5_x4' not in found  # which comes before it
    assert found['running statistics, unit x5_x4_x3']['worst'].startswith('x5_x4_x3.1.running_')


@pytest.mark.slow
def test_an_epsilon_that_is_off_is_found(folder, capsys, monkeypatch):
    monkeypatch.setattr(batch_norm, 'EPSILON', 1.001e-5)
    assert run(folder) == 1
    out = capsys.readouterr().out
    assert 'FAIL' in out
    line = next(line for line in out.splitlines() if line.startswith('logits, evaluation'))
    assert 'FAIL' in line


@pytest.mark.slow
def test_another_call_order_of_the_shared_batch_norm_is_found(folder, capsys, monkeypatch):
    """Two units of one column change places: nothing but the running statistics of the shared filters can tell."""
    first, second, *others = subtraction.UNITS
    monkeypatch.setattr(subtraction, 'UNITS', (second, first, *others))
    assert run(folder, '--json') == 1
    found = failed(capsys)
    wrong = found.pop('running statistics, full-one filters')
    assert wrong['worst'].startswith(('conv_3.norm.running_', 'conv_5.norm.running_'))
    assert all(' after ' in what and what.startswith('logits') for what in found), found


@pytest.mark.slow
def test_errors_that_are_not_numbers_fail(folder, tmp_path, capsys):
    path = weights_file(tmp_path / 'weights.safetensors')
    arrays = load_file(path)
    arrays['output1.0.bias'][0] = math.nan
    save_file(arrays, path)
    assert run(folder, f'--weights={path}', '--json') == 1
    found = failed(capsys)
    assert found['logits, training']['float64'] == 'nan'
    assert len(found) > 10


class Cells(html.parser.HTMLParser):
    """The rows of all tables of a page, each under the title of its table."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.title, self.tag = [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tag = tag
        if tag == 'tr':
            self.rows.append([self.title])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_data(self, data):
        if self.tag == 'b':
            self.title = data
        elif self.tag in ('td', 'th'):
            self.rows[-1][-1] = data

    def handle_endtag(self, tag):
        self.tag = None


def a_report(**changes):
    names = ('logits, training', 'gradients, unit x5_x4', 'running statistics, unit x5_x4', 'logits after 4 updates')
    errors = {'float64': 1.25e-12, 'float32': 3e-6, 'bfloat16': 2e-2}
    rows = [{'what': name, 'tolerance': 1e-9, **errors, 'worst': 'a<b.0.weight', 'passed': True} for name in names]
    rows[1] |= changes
    about = {'golden': 'folder <of goldens>', 'weights': None, 'device': '1 × cpu', 'versions': {'jax': '0.0'}}
    return {**about, 'passed': all(row['passed'] is not False for row in rows), 'models': {'msnet': rows}}


def test_the_page_shows_every_row_of_the_report():
    shown = page(a_report())
    heads = [row for row in Cells(shown).rows if row[-2:] == ['tolerance', '']]
    assert [row[0] for row in heads] == ['Maps and losses', 'Updates', 'Gradients', 'Running statistics']
    assert {tuple(row[1:]) for row in heads} == {('', 'float64', 'float32', 'bfloat16', 'tolerance', '')}
    figures = ['1.2e-12', '3.0e-06', '2.0e-02', '1.0e-09', 'pass']
    assert [row for row in Cells(shown).rows if row not in heads] == [
        ['Maps and losses', 'logits, training', *figures],
        ['Updates', 'logits after 4 updates', *figures],
        ['Gradients', 'unit x5_x4', *figures],
        ['Running statistics', 'unit x5_x4', *figures],
    ]
    assert 'folder &lt;of goldens&gt;' in shown
    assert '4 of 4 within tolerance' in shown
    assert 'warning">' not in shown
    for outside in ('<script', 'http:', 'https:', 'url('):
        assert outside not in shown


def test_a_row_that_failed_is_highlighted_on_the_page():
    shown = page(a_report(float64=math.nan, passed=False))
    (row,) = (row for row in Cells(shown).rows if row[-1] == 'FAIL')
    assert row == ['Gradients', 'unit x5_x4 (a<b.0.weight)', 'nan', '3.0e-06', '2.0e-02', '1.0e-09', 'FAIL']
    assert shown.count('<tr class="failed">') == shown.count('class="warning"') == 1
    assert '3 of 4 within tolerance' in shown


def test_without_tolerances_the_page_says_so():
    report = a_report()
    for row in report['models']['msnet']:
        del row['float64'], row['bfloat16']
        row |= {'tolerance': None, 'passed': None}
    shown = page(report)
    assert 'without float64 there is no tolerance' in shown
    assert Cells(shown).rows[1] == ['Maps and losses', 'logits, training', '3.0e-06', '', '']


@pytest.mark.parametrize('gone', ['m2snet_golden.npz', 'm2snet_golden.json', 'm2snet_buffers.npz', 'all'])
def test_goldens_that_are_not_there_are_named(gone, inputs, tmp_path, capsys):
    copy = tmp_path / 'copy'
    shutil.copytree(inputs, copy)
    shutil.rmtree(copy) if gone == 'all' else (copy / gone).unlink()
    assert run(copy) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert f'--golden={copy}: no golden values of m2snet found' in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--models=net'], '--models=net: give some of msnet, m2snet'),
        (['--dtypes=float16'], '--dtypes=float16: give some of'),
        (['--weights=a.pth'], '--weights: name the model of these weights'),
        (['--weights=absent.pth', '--models=msnet'], 'absent.pth: no such file'),
        (['--config=kvasir'], 'parity takes no config'),
        (['word'], 'word: not understood'),
        (['--html', '--output=/dev/null/page'], '--output=/dev/null/page: cannot be made'),
    ],
)
def test_flags_that_cannot_be_used_are_named(arguments, message, capsys):
    assert main(['m2snet_jax', 'parity', *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_planted_errors_show_in_evaluation(inputs, tmp_path, monkeypatch, float64):
    def logits(change=None):
        arrays = load_file(weights_file(tmp_path / f'{change}.safetensors', change))
        outcomes = Outcomes(goldens.Goldens(inputs, 'm2snet', arrays), 'float64')
        (found,) = outcomes.evaluation(outcomes.model(), [SIZE]).values()
        return found

    right = logits()
    assert differences.array_error(logits(), right) == 0
    assert differences.array_error(logits('resnet.conv1.0.weight'), right) > TOLERANCE
    monkeypatch.setattr(batch_norm, 'EPSILON', 1.001e-5)
    assert differences.array_error(logits(), right) > TOLERANCE


def test_errors_are_relative_to_the_golden_and_see_what_is_missing():
    truths = {'x5_x4.0.bias': [2.0, 1.0], 'resnet.bn1.weight': [0.0, 0.0]}
    ours = {'x5_x4.0.bias': [2.0, 1.5], 'resnet.bn1.weight': [1e-6, 0.0]}
    errors = differences.projection_errors(ours, truths)
    assert errors == {'x5_x4.0.bias': 0.25, 'resnet.bn1.weight': 0.5}
    assert differences.by_part(errors) == {
        'encoder stem': (0.5, 'resnet.bn1.weight'),
        'unit x5_x4': (0.25, 'x5_x4.0.bias'),
    }
    assert differences.projection_errors({}, truths) == dict.fromkeys(truths, math.inf)
    assert differences.moment_errors({'a': [1.0, 4.0]}, {'a': [2.0, 4.0]}) == {'a': 0.25}
    assert differences.array_error(np.ones(3), np.ones(4)) == math.inf
    nothing = differences.by_part({'level1.0.bias': 1.0, 'level2.0.bias': math.nan})
    assert math.isnan(nothing['enhancement'][0])


def test_seeded_values_are_those_of_the_goldens():
    for name, shape in (('a.weight', (3, 5, 2, 2)), ('a.weight', (7,)), ('b.bias', (7,)), ('fc.weight', (4, 6))):
        np.testing.assert_array_equal(goldens.seeded_tensor(name, shape, 3), seeded.tensor(name, shape, 3), strict=True)
        ours, truth = goldens.seeded_direction(name, shape, 3), seeded.direction(name, shape, 3)
        np.testing.assert_array_equal(ours, truth, strict=True)
    for ours, truth in (
        (goldens.seeded_images('t', 2, 9, 7, 3), seeded.images('t', 2, 9, 7, 3)),
        (goldens.seeded_masks('t', 3, 40, 30, 3), seeded.masks('t', 3, 40, 30, 3)),
    ):
        np.testing.assert_array_equal(ours, truth.transpose(0, 2, 3, 1), strict=True)


@pytest.mark.slow
def test_everything_is_within_tolerance_on_the_goldens_of_the_released_program(capsys):
    assert main(['m2snet_jax', 'parity', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report['models']) == ['msnet', 'm2snet']
    for rows in report['models'].values():
        assert all(row['passed'] for row in rows)
        assert all(row['tolerance'] == 1e-9 for row in rows if ' after ' not in row['what'])
