"""Named weights: found in the cache, or downloaded from a small server that can misbehave."""

import contextlib
import hashlib
import http.server
import random
import re
import sys
import threading
from pathlib import Path

import pytest

from m2snet_jax.config import flatten, load_config
from m2snet_jax.errors import InputError
from m2snet_jax.weights.pretrained import (
    PRETRAINED,
    PretrainedFile,
    fetch_weights,
    weight_warnings,
    weights_folder,
    weights_path,
)

CONTENT = random.Random(0).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()[:8]
FILE = f'net-{SHA256}.pth'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, begin = self.server, 0
        asked = self.headers.get('Range')
        server.asked.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        if asked and server.resumes:
            begin = int(re.fullmatch(r'bytes=(\d+)-', asked)[1])
            if begin >= len(server.content):
                return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header('Content-Length', str(len(server.content) - begin))
        self.end_headers()
        self.wfile.write(server.content[begin : server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('M2SNET_JAX_CACHE', str(tmp_path / 'new' / 'cache'))
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        server.asked, server.status, server.resumes = [], 200, True
        server.content, server.breaks_after = CONTENT, None
        server.path = tmp_path / 'new' / 'cache' / FILE
        server.part = server.path.with_name(FILE + '.part')
        url = f'http://127.0.0.1:{server.server_address[1]}/{FILE}'
        published = PretrainedFile(url, SHA256, 'free', {'loss.lossnet_weights': 'random VGG'})
        monkeypatch.setitem(PRETRAINED, 'net', published)
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def put_part(server, data):
    server.part.parent.mkdir(parents=True)
    server.part.write_bytes(data)


def test_published_names_hold_the_hash_that_is_checked():
    names = {name: file.url for name, file in PRETRAINED.items()}
    assert names == {
        'res2net50': 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/res2net50_v1b_26w_4s-3cf99910.pth',
        'res2net101': 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/res2net101_v1b_26w_4s-0812c246.pth',
        'resnet50': 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
        'vgg16': 'https://download.pytorch.org/models/vgg16-397923af.pth',
    }
    for file in PRETRAINED.values():
        assert file.name == file.url.rpartition('/')[2]
        assert file.name.endswith(f'-{file.sha256}.pth')
        assert len(file.sha256) == 8
        assert file.without
        assert file.without.keys() <= flatten(load_config('default')).keys()
        assert file.licence
        assert all(file.without.values())


def test_a_path_is_returned_as_it_is(tmp_path):
    path = tmp_path / 'mine.pth'
    path.touch()
    assert weights_path(str(path)) == path
    assert weights_path(path) == path
    with pytest.raises(InputError, match=r'absent\.pth: no such file or folder$'):
        weights_path(tmp_path / 'absent.pth')
    with pytest.raises(InputError, match=r'res2net5: .*nor one of the names res2net50, res2net101, resnet50, vgg16'):
        weights_path('res2net5')


def test_weights_folder(monkeypatch):
    monkeypatch.setenv('M2SNET_JAX_CACHE', '/a')
    monkeypatch.setenv('XDG_CACHE_HOME', '/b')
    monkeypatch.setenv('HOME', '/c')
    assert weights_folder() == Path('/a')
    monkeypatch.delenv('M2SNET_JAX_CACHE')
    assert weights_folder() == Path('/b/m2snet_jax')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert weights_folder() == Path('/c/.cache/m2snet_jax')


def test_downloads_once(server, capsys):
    assert weights_path('net') == server.path
    assert server.path.read_bytes() == CONTENT
    assert weights_path('net') == server.path
    assert server.asked == [None]
    assert [path.name for path in server.path.parent.iterdir()] == [FILE]
    assert capsys.readouterr().out == ''


def test_a_broken_connection_is_taken_up_where_it_ended(server):
    server.breaks_after = 300_000
    with pytest.raises(InputError, match='300,000 of 700,000 bytes; the same command goes on'):
        weights_path('net')
    assert not server.path.exists()
    server.breaks_after = None
    assert weights_path('net').read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=300000-']
    assert not server.part.exists()


def test_a_server_that_cannot_resume_starts_over(server):
    put_part(server, b'something else')
    server.resumes = False
    assert weights_path('net').read_bytes() == CONTENT
    assert server.asked == ['bytes=14-']


def test_a_part_that_is_already_whole_is_taken(server):
    put_part(server, CONTENT)
    assert weights_path('net').read_bytes() == CONTENT
    assert server.asked == ['bytes=700000-']


@pytest.mark.parametrize('part', [None, b'wrong beginning', CONTENT + b'too much'])
def test_a_wrong_hash_leaves_nothing(part, server):
    if part:
        put_part(server, part)
    else:
        server.content = CONTENT[:-1] + b'!'
    with pytest.raises(InputError, match=f'not {SHA256}; nothing was kept'):
        weights_path('net')
    assert list(server.path.parent.iterdir()) == []
    server.content = CONTENT
    assert weights_path('net').read_bytes() == CONTENT


def test_a_wrong_file_in_the_cache_is_named(server):
    server.path.parent.mkdir(parents=True)
    server.path.write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match=f'{FILE}: its SHA-256 should begin with {SHA256}'):
        weights_path('net')
    assert server.asked == []
    server.path.write_bytes(CONTENT)  # as put there by hand
    assert weights_path('net') == server.path


@pytest.mark.parametrize('trouble', [403, 404, 500, 'offline', 'no folder'])
def test_without_the_file_one_screen_says_all(trouble, server, tmp_path, monkeypatch):
    if trouble == 'offline':
        server.shutdown()
        server.server_close()
    elif trouble == 'no folder':
        (tmp_path / 'new').write_text('a file where the folder should be')
    else:
        server.status = trouble
    with pytest.raises(InputError) as caught:
        weights_path('net')
    screen = str(caught.value)
    without = '--config.loss.lossnet_weights=none'
    for needed in (FILE, PRETRAINED['net'].url, str(server.path), 'M2SNET_JAX_CACHE', without, 'random VGG', 'free'):
        assert needed in screen
    assert len(screen.splitlines()) == 8
    with contextlib.suppress(NotADirectoryError):
        assert not server.path.exists()
        assert not server.part.exists()


RECIPES = ('kvasir', 'video_polyp', 'covid19', 'busi', 'goals')


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_name_the_papers_files_and_small_ones_none(name):
    for variant in ('', ':paper'):
        config = load_config(name + variant)
        assert (config.model.encoder_weights, config.loss.lossnet_weights) == ('res2net50', 'vgg16')
        assert weight_warnings(config) == []
    small = load_config(f'{name}:small')
    assert (small.model.encoder_weights, small.loss.lossnet_weights, small.loss.lossnet) == (None, None, 0)


def test_random_weights_are_warned_of():
    def warned(name, **keys):
        lines = weight_warnings(load_config(name, **keys))
        assert len(lines) == len(set(lines)) <= 2
        return {part for part in ('encoder', 'LossNet') for line in lines if line.startswith((part, f'the {part}'))}

    assert warned('quickstart') == {'encoder', 'LossNet'}
    assert warned('kvasir:small') == warned('folder') == {'encoder'}
    assert warned('quickstart', **{'model.weights': 'a.pth'}) == {'LossNet'}
    assert warned('quickstart', **{'model.encoder_weights': 'a.pth'}) == {'LossNet'}
    assert warned('quickstart', **{'loss.lossnet_weights': 'vgg16'}) == {'encoder'}
    assert warned('quickstart', **{'loss.lossnet_weights': 'vgg16', 'model.weights': 'runs/a'}) == set()


@pytest.fixture
def two_files(server, monkeypatch):
    """The encoder's file and LossNet's at the same server, one after the other in one config."""
    for name in ('res2net50', 'vgg16'):
        url = f'{PRETRAINED["net"].url}/{name}-{SHA256}.pth'
        without = {key: f'random {name}' for key in PRETRAINED[name].without}
        monkeypatch.setitem(PRETRAINED, name, PretrainedFile(url, SHA256, f'free {name}', without))
    return {name: server.path.with_name(PRETRAINED[name].name) for name in ('res2net50', 'vgg16')}


def test_what_a_training_starts_from_is_fetched_once(server, two_files):
    fetch_weights(load_config('kvasir'))
    assert all(path.read_bytes() == CONTENT for path in two_files.values())
    fetch_weights(load_config('kvasir'))
    assert len(server.asked) == 2


def test_one_vgg_file_serves_encoder_and_lossnet(server, two_files, monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', ['python', 'train.py', '--config=kvasir:vgg16'])
    server.status = 503
    with pytest.raises(InputError, match='cannot be downloaded') as caught:
        fetch_weights(load_config('kvasir:vgg16'))
    command = 'python train.py --config=kvasir:vgg16 --config.model.encoder_weights=none '
    assert str(caught.value).splitlines()[-1].strip() == command + '--config.loss.lossnet_weights=none'
    server.status, server.asked = 200, []
    fetch_weights(load_config('kvasir:vgg16'))
    assert server.asked == [None]
    assert two_files['vgg16'].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ('keys', 'wanted'),
    [
        ({'model.encoder_weights': None}, ['vgg16']),
        ({'loss.lossnet': 0.0}, ['res2net50']),
        ({'loss.lossnet_weights': None}, ['res2net50']),
        ({'model.weights': 'somewhere'}, ['vgg16']),
    ],
)
def test_only_what_is_needed_is_fetched(keys, wanted, two_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('somewhere').touch()
    fetch_weights(load_config('kvasir', **keys))
    assert [name for name, path in two_files.items() if path.exists()] == wanted


@pytest.mark.parametrize('there', [[], ['res2net50'], ['vgg16']])
def test_one_screen_names_all_missing_files_and_the_command_without_them(there, server, two_files, monkeypatch):
    given = ['python', 'train.py', '--config=kvasir', '--workdir=my run', '--config.model.encoder_weights=res2net50']
    monkeypatch.setattr(sys, 'orig_argv', given)
    for name in there:
        two_files[name].parent.mkdir(parents=True, exist_ok=True)
        two_files[name].write_bytes(CONTENT)
    server.status = 503
    with pytest.raises(InputError, match='cannot be downloaded') as caught:
        fetch_weights(load_config('kvasir'))
    screen = str(caught.value)
    for name, path in two_files.items():
        for needed in (PRETRAINED[name].url, str(path), f'free {name}', f'random {name}'):
            assert (needed in screen) == (name not in there)
    command = "python train.py --config=kvasir '--workdir=my run'"
    command += ' --config.model.encoder_weights=' + ('res2net50' if 'res2net50' in there else 'none')
    command += '' if 'vgg16' in there else ' --config.loss.lossnet_weights=none'
    assert screen.splitlines()[-1].strip() == command
    assert len(screen.splitlines()) <= 20
    assert not server.part.parent.exists() or all(name in there for name, path in two_files.items() if path.exists())


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'model.encoder': 'res2net101'}, '--config.model.encoder_weights=res2net50: the encoder is res2net101'),
        ({'model.encoder_weights': 'vgg16'}, '--config.model.encoder_weights=vgg16: the encoder is res2net50'),
        ({'loss.lossnet_weights': 'resnet50'}, 'weights=resnet50: that file is for --config.model.encoder_weights'),
        (
            {'model.weights': 'vgg16'},
            'weights=vgg16: that file is for --config.model.encoder_weights and --config.loss.lossnet_weights',
        ),
        ({'model.encoder_weights': 'a.pth'}, '--config.model.encoder_weights=a.pth: no such file'),
        ({'model.weights': 'runs/a'}, '--config.model.weights=runs/a: no such file'),
        ({'model.weights': 'res2net50'}, 'weights=res2net50: that file is for --config.model.encoder_weights'),
        ({'loss.lossnet_weights': 'b.pth'}, '--config.loss.lossnet_weights=b.pth: no such file'),
    ],
)
def test_names_that_cannot_be_used_are_refused_before_anything_is_fetched(keys, message, server, two_files, tmp_path):
    with pytest.raises(InputError) as caught:
        fetch_weights(load_config('kvasir', **keys))
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)
    assert server.asked == []
