"""Every config loads, every key is documented and read, and the command line refuses what it does not know."""

import re
import tokenize
from pathlib import Path

import pytest

from m2snet_jax import InputError, load_config
from m2snet_jax.build import check_config
from m2snet_jax.commands import parse, run_name
from m2snet_jax.config import changed_keys, find_config, flatten, to_json

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))


def variants(name):
    """The variants that a config file names, beside none."""
    text = (ROOT / 'configs' / f'{name}.py').read_text()
    return [None, *sorted(set(re.findall(r"variant == '(\w+)'", text)))]


@pytest.mark.parametrize('spec', [f'{name}:{v}' if v else name for name in CONFIGS for v in variants(name)])
def test_every_config_loads_and_passes_its_checks(spec):
    config = load_config(spec)
    check_config(config)
    assert flatten(config).keys() == flatten(load_config('default')).keys()


def test_the_recipes_have_a_paper_variant_that_differs_where_the_text_does():
    changed = changed_keys(load_config('kvasir:paper'), to_json(load_config('kvasir')))
    assert {key: (before, now) for key, before, now in changed} == {
        'loss.bce': ('mean', 'weighted'),
        'optimizer.encoder_lr_factor': (1.0, 0.1),
    }


def code_without_strings():
    """The package's source, strings and comments left out."""
    pieces = []
    for path in sorted((ROOT / 'm2snet_jax').rglob('*.py')):
        with tokenize.open(path) as file:
            tokens = tokenize.generate_tokens(file.readline)
            kept = [token.string for token in tokens if token.type not in (tokenize.STRING, tokenize.COMMENT)]
        pieces.append(' '.join(kept))
    return '\n'.join(pieces)


def unread(keys):
    """The keys that no code reads, as `config.a.b`, or `a.b` where `a` was taken out of the config."""
    code = code_without_strings()
    return [
        key for key in keys if not re.search(r'\b' + r'\s*\.\s*'.join(map(re.escape, key.split('.'))) + r'\b', code)
    ]


def test_every_key_is_read():
    keys = [key if '.' in key else f'config.{key}' for key in flatten(load_config('default'))]
    assert unread(keys) == []
    assert unread(['data.nonsense', 'config.nonsense']) == ['data.nonsense', 'config.nonsense']


def test_every_key_is_documented_where_it_is_defined():
    lines = (ROOT / 'configs' / 'default.py').read_text().splitlines()
    for key in flatten(load_config('default')):
        defined = [index for index, line in enumerate(lines) if line.strip().startswith(f'config.{key} = ')]
        assert defined, key
        here, above = lines[defined[0]], lines[defined[0] - 1]
        assert '  # ' in here or above.strip().startswith('# '), key


def test_a_file_by_path_and_by_bare_name():
    path = ROOT / 'configs' / 'kvasir.py'
    assert find_config(f'{path}:paper')[1] == 'paper'
    assert find_config('kvasir')[0].samefile(path)
    assert run_name('kvasir:paper') == 'kvasir-paper'


def command_line(*arguments):
    config = parse(['train', *arguments], 'about').config
    return config


def test_keys_and_root_on_the_command_line():
    config = command_line(
        '--config', 'quickstart', '--config.batch=4', '--config.data.sizes=(48, 64)', '--root=/data',
        '--config.steps=7', '--config.loss.lossnet_weights=none',
    )  # fmt: skip
    assert (config.batch, config.data.sizes, config.data.root, config.steps) == (4, (48, 64), '/data', 7)
    assert command_line('--config=quickstart', '--config.steps=none').steps is None
    for text, sizes in (('()', ()), ('(3,)', (3,)), ('(3, 5, 7)', (3, 5, 7)), ('none', None)):
        config = command_line('--config=quickstart', f'--config.model.filters={text}')
        assert config.model.filters == sizes
        check_config(config)
    assert load_config('kvasir').model.encoder_weights == 'res2net50'
    assert command_line('--config=kvasir', '--config.model.encoder_weights=none').model.encoder_weights is None
    twice = [f'--config.model.encoder_weights={value}' for value in ('res2net101', 'none')]
    assert command_line('--config=kvasir', *twice).model.encoder_weights is None  # the last one counts
    assert command_line('--config=kvasir', *reversed(twice)).model.encoder_weights == 'res2net101'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--config is missing'),
        (['--config=nowhere'], '--config=nowhere: no such file'),
        (['--config=kvasir:nothing'], "no variant 'nothing'"),
        (['--config=quickstart:small'], 'has no variants'),
        (['--config=quickstart', '--config.optimizer.peek=1'], 'no such key; did you mean optimizer.peak_lr'),
        (['--config=quickstart', '--config.nonsense=1'], '--config.nonsense: no such key'),
        (['--config=quickstart', '--config.optimizer.peak=1'], 'this key is now called optimizer.peak_lr'),
        (['--config=quickstart', '--config.recalibrate=none'], 'this key is now called precise_batch_norm'),
        (['--config=quickstart', '--config.batch=many'], '--config.batch=many'),
        (['--config=quickstart', '--config.batch=none'], '--config.batch=none: this key cannot be unset'),
        (['--config=quickstart', '--nonsense=1'], "Unknown command line flag 'nonsense'"),
    ],
)
def test_bad_command_lines_are_one_line(arguments, message):
    with pytest.raises(InputError) as caught:
        command_line(*arguments)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('batch', 0, 'must be at least 1'),
        ('dtype', 'float16', 'must be one of float32, bfloat16'),
        ('model.name', 'unet', 'must be one of m2snet, msnet'),
        ('loss.bce', 'sum', 'must be one of mean, weighted'),
        ('data.sizes', (32, 64), '32 found, the least side is 33 pixels'),
        ('data.sizes', (), 'give at least one size'),
        ('data.size', 20, 'must be at least 33'),
        ('optimizer.momentum', 1.0, 'must be from 0 up to 1'),
        ('seed', -1, 'must be at least 0'),
        ('ema', 1.0, 'must be between 0 and 1'),
        ('gradient_accumulation', 0, 'must be at least 1'),
        ('select', 'best', 'must be one of last, validation, test'),
        ('select', 'test', 'insist with --config.select_on_test=true'),
        ('select', 'validation', 'set --config.data.validation'),
        ('model.columns', 6, '--config.model.columns=6: must be from 1 to 5'),
        ('model.filters', (3, 4), '--config.model.filters=(3, 4): 4 found, a size must be an odd number'),
        ('model.operation', 'multiply', '--config.model.operation=multiply: must be one of subtract, add, concatenate'),
        ('model.drop_path', 0.1, '--config.model.drop_path=0.1: res2net14 has no drop path'),
        ('optimizer.name', 'adam', 'must be one of sgd, adamw'),
        ('optimizer.schedule', 'linear', 'must be one of triangular, cosine'),
        ('optimizer.warmup', 5.0, 'only with optimizer.schedule=cosine'),
        ('optimizer.warmup', -1.0, 'must be at least 0'),
        ('optimizer.clip', 0.0, 'must be above 0'),
        ('data.normalisation', 'mean', 'must be one of released, imagenet'),
    ],
)
def test_values_that_cannot_be_used(key, value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_config(load_config('quickstart', **{key: value}))


def test_only_keys_that_shape_the_result_stand_against_going_on():
    recorded = to_json(load_config('quickstart'))
    free = {'data.root': '/other', 'data.threads': 4, 'log.every': 3, 'checkpoint.keep': 5, 'evaluate.batch': 2}
    assert changed_keys(load_config('quickstart', **free), recorded) == []
    changed = changed_keys(load_config('quickstart', seed=3, **{'data.sizes': (64, 96)}), recorded)
    assert {key for key, _, _ in changed} == {'seed', 'data.sizes'}


def test_keys_of_lossnet_shape_the_result_only_with_lossnet():
    other = {'loss.lossnet_size': 64, 'loss.lossnet_weights': '/vgg16.safetensors'}

    def changed(before, now):
        recorded = to_json(load_config('quickstart', **{'loss.lossnet': before}))
        return {key for key, *_ in changed_keys(load_config('quickstart', **{'loss.lossnet': now}, **other), recorded)}

    assert changed(0.0, 0.0) == set()
    assert changed(0.1, 0.1) == set(other)
    assert changed(0.0, 0.1) == changed(0.1, 0.0) == {'loss.lossnet', *other}


def test_a_level_is_not_added_to_itself():
    config = load_config('quickstart', **{'model.columns': 1, 'model.add_level': True})
    with pytest.raises(InputError, match=r'--config\.model\.add_level=True: with columns=1'):
        check_config(config)
