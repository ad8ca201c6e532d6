import http.server
import io
import os
import re
import stat
import sys
import threading
import types
import zipfile

import pytest
from data_trees import config_of, image_of, mask_of, names_of
from PIL import Image

from m2snet_jax.data import download
from m2snet_jax.data.datasets import busi, covid19, open_dataset, polyp, video_polyp
from m2snet_jax.errors import InputError


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, 'png')
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def slices(folder, names):
    members = {}
    for number, name in enumerate(names):
        members[f'{folder}/images/{name}.png'] = png(image_of(number))
        members[f'{folder}/masks/{name}.png'] = png(mask_of(number))
    return members


TRAIN, TEST = zipped(slices('train/train', 'abc')), zipped({**slices('Some Test', 'de'), '__MACOSX/x': b''})


class Drive:
    """Takes the place of gdown and of Google Drive; `contents` are bytes, or an error to raise, by id."""

    def __init__(self, monkeypatch, contents):
        self.contents, self.asked = contents, []
        monkeypatch.setitem(sys.modules, 'gdown', types.SimpleNamespace(download=self.download))

    def download(self, url, output, *, resume, **options):
        assert resume
        (identifier,) = re.findall(r'id=(\S+)', url)
        self.asked.append(identifier)
        content = self.contents[identifier]
        if isinstance(content, Exception):
            raise content
        with open(output, 'wb') as file:
            file.write(content)


def drive(monkeypatch, train=TRAIN, test=TEST):
    return Drive(monkeypatch, dict(zip(covid19.ARCHIVES.values(), (train, test), strict=True)))


# The published downloads


def test_a_download_is_unpacked_and_prepared_once(prepared, monkeypatch):
    remote = drive(monkeypatch)
    for _ in range(2):
        dataset = open_dataset(config_of('covid19'))
        assert names_of(dataset.train) == ['a', 'b', 'c']
        assert names_of(dataset.tests['test']) == ['d', 'e']
    assert remote.asked == list(covid19.ARCHIVES.values())
    folder = prepared / 'downloads/m2snet_jax/covid19'
    assert sorted(path.name for path in folder.iterdir()) == ['test', 'train']


def test_an_interrupted_download_goes_on(prepared, monkeypatch):
    broken = drive(monkeypatch, test=ConnectionError('the line went dead'))
    with pytest.raises(InputError, match='the line went dead'):
        open_dataset(config_of('covid19'))
    assert not (prepared / 'covid19').exists()
    remote = drive(monkeypatch)
    assert len(open_dataset(config_of('covid19')).train) == 3
    assert broken.asked + remote.asked == [*covid19.ARCHIVES.values(), covid19.ARCHIVES['test']]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'<html>Quota exceeded</html>', 'no zip file'),
        (TEST[: len(TEST) // 2], 'no zip file'),
        (TEST.replace(b'IDAT', b'IDAX', 1), 'no whole zip file'),
        (zipped({'test/../../../evil': b'x'}), 'outside'),
        (ConnectionError('Name or service not known'), 'Name or service not known'),
    ],
)
def test_a_failed_download_tells_in_one_screen_what_to_do(prepared, monkeypatch, content, words):
    drive(monkeypatch, test=content)
    monkeypatch.setattr(sys, 'orig_argv', ['python', 'train.py', '--config=covid19', '--workdir=my run'])
    with pytest.raises(InputError) as caught:
        open_dataset(config_of('covid19'))
    message = str(caught.value)
    assert words in message.splitlines()[0]
    assert f'id={covid19.ARCHIVES["test"]}' in message
    assert f'id={covid19.ARCHIVES["train"]}' not in message
    assert "python train.py --config=covid19 '--workdir=my run' --config.data.root=FOLDER" in message
    assert str(prepared / 'downloads/m2snet_jax/covid19/test.zip') in message
    assert 'train/  images/ *.jpg   masks/ *.png' in message
    assert len(message.splitlines()) <= 40
    assert not (prepared / 'downloads/m2snet_jax/covid19/test').exists()
    assert not list(prepared.rglob('evil'))
    assert not (prepared / 'covid19').exists()


def test_an_archive_fetched_by_hand_is_taken(prepared, monkeypatch):
    remote = drive(monkeypatch, test=ConnectionError('no network'))
    folder = prepared / 'downloads/m2snet_jax/covid19'
    folder.mkdir(parents=True)
    (folder / 'test.zip').write_bytes(TEST)
    assert len(open_dataset(config_of('covid19')).tests['test']) == 2
    assert remote.asked == [covid19.ARCHIVES['train']]


@pytest.mark.parametrize('module', [polyp, video_polyp, covid19, busi])
def test_what_is_downloaded_without_a_root(module, monkeypatch):
    remote = Drive(monkeypatch, dict.fromkeys(module.ARCHIVES.values(), ConnectionError('no network')))
    with pytest.raises(InputError, match='no network'):
        open_dataset(config_of(module.__name__.rpartition('.')[2]))
    assert remote.asked == list(module.ARCHIVES.values())[:1]
    assert all(identifier in module.__doc__ for identifier in module.ARCHIVES.values())


def test_without_gdown(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    with pytest.raises(InputError, match='pip install gdown'):
        open_dataset(config_of('covid19'))


# Over the wire, by gdown


@pytest.fixture
def server(monkeypatch):
    """Serves two archives, in ranges when asked, and cuts the first answer for the second, of 2 MB, short."""
    large = zipped({**slices('test', 'de'), 'test/notes': os.urandom(2**21)})
    contents, log = dict(zip(covid19.ARCHIVES.values(), (TRAIN, large), strict=True)), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = contents[self.path.lstrip('/')]
            start = int((self.headers['Range'] or 'bytes=0-').removeprefix('bytes=').rstrip('-'))
            cut = content is large and not any(entry[0] == self.path for entry in log)
            log.append((self.path, start))
            self.send_response(206 if start else 200)
            if start:
                self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
            self.send_header('Content-Length', str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : len(content) // 2 if cut else None])

        def log_message(self, *arguments):
            pass

    running = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    monkeypatch.setattr(download, 'URL', f'http://127.0.0.1:{running.server_port}/{{}}')
    yield log
    running.shutdown()
    thread.join()
    running.server_close()


def test_gdown_goes_on_where_a_download_ended(server, prepared, monkeypatch):
    pytest.importorskip('gdown')
    monkeypatch.setattr(download, 'RETRIES', 0)
    with pytest.raises(InputError, match='incomplete'):
        open_dataset(config_of('covid19'))
    dataset = open_dataset(config_of('covid19'))
    assert names_of(dataset.tests['test']) == ['d', 'e']
    train, test = (f'/{identifier}' for identifier in covid19.ARCHIVES.values())
    ((path, start),) = [entry for entry in server if entry[1]]
    assert path == test
    assert 2**19 <= start <= 2**20 + 2**16
    assert [path for path, _ in server].count(train) == 1
    assert sorted(path.name for path in (prepared / 'downloads/m2snet_jax/covid19').iterdir()) == ['test', 'train']


# Unpacking


def test_unpack_leaves_one_folder_around_everything_away(tmp_path):
    (tmp_path / 'a.zip').write_bytes(zipped({'x/y/one.txt': b'1', 'x/y/z/two.txt': b'2', '__MACOSX/x/._y': b''}))
    download.unpack(tmp_path / 'a.zip', tmp_path / 'a')
    assert {str(path.relative_to(tmp_path / 'a')) for path in (tmp_path / 'a').rglob('*.txt')} == {
        'one.txt',
        'z/two.txt',
    }
    assert sorted(os.listdir(tmp_path)) == ['a', 'a.zip']


def link():
    member = zipfile.ZipInfo('data/link')
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ('member', 'words'),
    [
        ('../evil', 'outside its folder'),
        ('data/../../evil', 'outside its folder'),
        ('/evil', 'outside its folder'),
        ('..\\evil', 'outside its folder'),
        ('C:\\evil', 'outside its folder'),
        (link(), 'is a link'),
    ],
)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, member, words):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        file.writestr('data/good.txt', b'1')
        file.writestr(member, b'/etc')
    with pytest.raises(InputError, match=r'a\.zip: .*' + words):
        download.unpack(tmp_path / 'a.zip', tmp_path / 'folder')
    assert os.listdir(tmp_path) == ['a.zip']
