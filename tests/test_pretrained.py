"""Named weights: found in the cache, or downloaded from a small server that can misbehave."""

import contextlib
import hashlib
import http.server
import random
import re
import threading
from pathlib import Path

import pytest

from m2snet_jax.errors import InputError
from m2snet_jax.weights.pretrained import PRETRAINED, PretrainedFile, cache_folder, weights_path

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
        monkeypatch.setitem(PRETRAINED, 'net', PretrainedFile(url, SHA256, 'free', '--do=without'))
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
        'vgg16': 'https://download.pytorch.org/models/vgg16-397923af.pth',
    }
    for file in PRETRAINED.values():
        assert file.name == file.url.rpartition('/')[2]
        assert file.name.endswith(f'-{file.sha256}.pth')
        assert len(file.sha256) == 8
        assert '--config.' in file.without
        assert file.licence


def test_a_path_is_returned_as_it_is(tmp_path):
    path = tmp_path / 'mine.pth'
    path.touch()
    assert weights_path(str(path)) == path
    assert weights_path(path) == path
    with pytest.raises(
        InputError, match=r'absent\.pth: no such file, nor one of the names res2net50, res2net101, vgg16'
    ):
        weights_path(tmp_path / 'absent.pth')


def test_cache_folder(monkeypatch):
    monkeypatch.setenv('M2SNET_JAX_CACHE', '/a')
    monkeypatch.setenv('XDG_CACHE_HOME', '/b')
    monkeypatch.setenv('HOME', '/c')
    assert cache_folder() == Path('/a')
    monkeypatch.delenv('M2SNET_JAX_CACHE')
    assert cache_folder() == Path('/b/m2snet_jax')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert cache_folder() == Path('/c/.cache/m2snet_jax')


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
    for needed in (FILE, PRETRAINED['net'].url, str(server.path), 'M2SNET_JAX_CACHE', '--do=without', 'free'):
        assert needed in screen
    assert len(screen.splitlines()) == 5
    with contextlib.suppress(NotADirectoryError):
        assert not server.path.exists()
        assert not server.part.exists()
