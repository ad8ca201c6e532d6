"""Paths as people write them: `~`, variables, addresses, accents, links that lead to themselves; and any console."""

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from m2snet_jax import InputError, load_config, storage
from m2snet_jax.__main__ import main
from m2snet_jax.commands import PATH_FLAGS, parse, use_any_console
from m2snet_jax.config import PATH_KEYS, changed_keys, find_config, flatten, to_json
from m2snet_jax.data.download import data_dir
from m2snet_jax.storage import local_path
from m2snet_jax.training.run_folder import check_writable
from m2snet_jax.weights.pretrained import weights_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / 'home'
    folder.mkdir()
    monkeypatch.setenv('HOME', str(folder))
    monkeypatch.setenv('DATA', str(tmp_path / 'data'))
    monkeypatch.chdir(tmp_path)
    return folder


def test_home_and_variables_are_expanded(home, tmp_path):
    assert local_path('~/a b') == home / 'a b'
    assert local_path('$DATA/x') == local_path('${DATA}/x') == tmp_path / 'data' / 'x'
    assert local_path(Path('~')) == home
    assert local_path('a~/b') == Path('a~/b')
    Path('$price').mkdir()
    assert local_path('$price') == Path('$price')  # there is such a folder
    for path, message in {
        '$NOWHERE/x': '--root=$NOWHERE/x: the environment variable NOWHERE is not set',
        '${NOWHERE}': 'the environment variable NOWHERE is not set',
        '~nobody_of_this_name/x': 'there is no home folder for ~nobody_of_this_name',
    }.items():
        with pytest.raises(InputError) as caught:
            local_path(path, '--root')
        assert message in str(caught.value)


@pytest.mark.parametrize('address', ['az://box/a', 's3://bucket', 'https://a.org/b.pth', 'hdfs://a', 's3:/bucket/a'])
def test_addresses_are_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (address, Path(address)):
        with pytest.raises(InputError, match=r'--output=\w+:/.*an address \(\w+://\) where a local folder is needed'):
            local_path(path, '--output')
        with pytest.raises(InputError, match='an address'):
            storage.write(path, 'text')
        with pytest.raises(InputError, match='an address'):
            check_writable(path)
    monkeypatch.setenv('BUCKET', address)
    with pytest.raises(InputError, match='an address'):
        local_path('$BUCKET/a')
    assert local_path('C:/data/a') == Path('C:/data/a')
    assert list(tmp_path.iterdir()) == []


def test_every_path_flag_and_word_is_expanded(home, tmp_path):
    def define(values):
        from absl import flags

        for flag in set(PATH_FLAGS) - {'images', 'root'}:
            flags.DEFINE_string(flag, None, '', flag_values=values)
        flags.DEFINE_multi_string('images', [], '', flag_values=values)

    given = [f'--{flag}=~/{flag}' for flag in PATH_FLAGS]
    line = parse(['x', *given, '--images=$DATA/b', '~/word', '$DATA'], '', define, config='default', words=True)
    for flag in set(PATH_FLAGS) - {'images'}:
        assert line.flags[flag].value == str(home / flag)
    assert line.flags.images == [str(home / 'images'), str(tmp_path / 'data' / 'b')]
    assert line.words == [str(home / 'word'), str(tmp_path / 'data')]
    assert line.config.data.root == str(home / 'root')


def test_every_command_declares_its_path_flags():
    """A new flag that holds a path is added to the list."""
    import re

    named = {'folder', 'file'}
    for path in sorted((ROOT / 'm2snet_jax' / 'commands').glob('*.py')):
        for flag, about in re.findall(
            r"DEFINE_(?:multi_)?string\(\s*'(\w+)', [^,]+, '?(.*?)'?, flag_values", path.read_text()
        ):
            if named & set(re.findall(r'\w+', about)):
                assert flag in PATH_FLAGS, (path.name, flag)


def test_every_path_key_is_expanded(home):
    keys = [key for key in PATH_KEYS if key in flatten(load_config('default'))]
    assert {'data.root', 'model.weights', 'loss.lossnet_weights'} <= set(keys)
    config = load_config('default', **{key: f'~/{key}' for key in keys})
    line = parse(['x', '--config=default', *(f'--config.{key}=~/{key}' for key in keys)], '').config
    for key in keys:
        assert flatten(config)[key] == flatten(line)[key] == str(home / key)
    recorded = to_json(load_config('default'))
    recorded['data']['exclude'] = '~/data.exclude'  # as version 0.1 recorded it
    assert 'data.exclude' not in {key for key, *_ in changed_keys(config, recorded)}
    with pytest.raises(InputError, match=r'data\.root=s3://a: an address .* use gs://'):
        load_config('default', **{'data.root': 's3://a'})


def test_a_config_file_in_the_home_folder(home):
    (home / 'mine.py').write_text((ROOT / 'configs' / 'default.py').read_text())
    assert find_config('~/mine.py:paper') == (home / 'mine.py', 'paper')
    with pytest.raises(InputError, match='an address'):
        find_config('gs://bucket/mine.py')


def test_environment_variables_of_folders(home, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', '~/tfds')
    monkeypatch.setenv('M2SNET_JAX_CACHE', '$DATA/cache')
    assert data_dir() == home / 'tfds'
    assert weights_folder() == tmp_path / 'data' / 'cache'
    monkeypatch.setenv('TFDS_DATA_DIR', 's3://bucket/tfds')
    with pytest.raises(InputError, match='TFDS_DATA_DIR=s3://bucket/tfds: an address'):
        data_dir()


def test_without_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # as where the user has no entry in passwd
    monkeypatch.setattr('platformdirs.unix.expand_user', lambda path, **_: path, raising=False)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
    assert storage.cache_folder().parent == tmp_path
    assert storage.cache_folder().stat().st_mode & 0o777 == 0o700
    with pytest.raises(InputError, match='TFDS_DATA_DIR=~/tensorflow_datasets: there is no home folder'):
        data_dir()


@pytest.mark.parametrize(('written', 'stored'), [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_accents_in_the_other_form(written, stored, tmp_path):
    name = 'Données é'
    (tmp_path / unicodedata.normalize(stored, name)).mkdir()
    given = tmp_path / unicodedata.normalize(written, name)
    assert local_path(given).samefile(next(tmp_path.iterdir()))
    assert local_path(given / 'new').name == 'new'


def test_a_link_that_leads_to_itself(tmp_path, capsys):
    (tmp_path / 'a').symlink_to(tmp_path / 'b')
    (tmp_path / 'b').symlink_to(tmp_path / 'a')
    for path in (tmp_path / 'a', tmp_path / 'a' / 'more'):
        assert main(['m2snet_jax', 'report', str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'error: {path}: cannot be opened (')
        assert error.count('\n') == 1


def test_any_console(monkeypatch):
    """What an encoding lacks is replaced, on stdout and stderr, never an error."""
    for encoding in ('ascii', 'cp1252', 'latin-1', 'utf-8'):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors='strict') for _ in range(2)]
        monkeypatch.setattr(sys, 'stdout', streams[0])
        monkeypatch.setattr(sys, 'stderr', streams[1])
        use_any_console()
        for stream in streams:
            print('step 1 … 3×3 → 96 % caf\udce9 médecin 漢', file=stream, flush=True)
            text = stream.buffer.getvalue().decode(encoding)
            assert r'caf\xe9' in text
            assert 'decin' in text
        if encoding == 'ascii':
            assert text == 'step 1 ... 3?3 ? 96 % caf\\xe9 medecin ?\n'


def test_help_on_an_ascii_console():
    environment = {**os.environ, 'PYTHONIOENCODING': 'ascii', 'LC_ALL': 'C', 'PYTHONPATH': str(ROOT)}
    for words in (['--help'], ['compare', '--help']):
        command = [sys.executable, '-m', 'm2snet_jax', *words]
        done = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
