"""Published downloads: archives from Google Drive, unpacked into the TFDS data folder.

An archive or a folder appears under its final name only when it is whole, so what was interrupted is taken up again
and is never used as the data.
"""

import os
import shlex
import shutil
import stat
import sys
import zipfile
import zlib
from pathlib import Path

from absl import logging

from m2snet_jax.errors import InputError
from m2snet_jax.storage import local_path

URL = 'https://drive.google.com/uc?id={}'
TIMEOUT = 30  # seconds without an answer
RETRIES = 3


def fetch(name: str, archives: dict[str, str], expected: str | None) -> Path:
    """Returns the folder that holds the published data of a dataset, downloading what is missing of it.

    Args:
        name: of the dataset.
        archives: {folder: id on Google Drive}; every archive is unpacked into a folder of that name.
        expected: text on the expected tree and where the data come from, shown when it fails.

    Raises:
        InputError: no network, a dead link, a quota, a damaged archive, no space: what was tried and what to do.
    """
    top = data_dir() / 'downloads' / 'm2snet_jax' / name
    for folder, identifier in archives.items():
        if (top / folder).is_dir():
            continue
        archive = top / f'{folder}.zip'
        try:
            top.mkdir(parents=True, exist_ok=True)
            if not archive.exists():
                _download(URL.format(identifier), archive)
            unpack(archive, top / folder)
        except (InputError, OSError) as error:
            raise InputError(_help(error, URL.format(identifier), archive, expected)) from None
        archive.unlink()
    return top


def data_dir() -> Path:
    """Returns the folder of downloads and prepared records: `TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return local_path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets', 'TFDS_DATA_DIR')


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip file as `folder`; one folder around everything, as zip tools add it, is left away.

    Raises:
        InputError: the archive is damaged, or a member of it would lie outside `folder` or is a link; `folder` is not
            made then.
    """
    temporary = folder.with_name(f'.{folder.name}.{os.getpid()}')
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                _check_member(member, archive)
            for member in file.infolist():
                file.extract(member, temporary)  # raises BadZipFile where a checksum is wrong
        inner = temporary
        while len(children := _children(inner)) == 1 and children[0].is_dir():
            inner = children[0]
        if not folder.is_dir():  # another process may have been faster
            os.replace(inner, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f'{archive}: is no whole zip file ({error}); remove it and run again') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(url, archive):
    """Downloads one archive, going on where an earlier attempt ended."""
    try:
        import gdown  # here, because only downloads need it
    except ImportError:
        raise InputError('gdown is not installed; pip install gdown') from None
    logging.info('Downloading %s to %s', url, archive)
    partial = archive.with_suffix('.partial')  # gdown adds an ending of its own while it is not whole
    try:
        gdown.download(
            url, str(partial), quiet=not sys.stderr.isatty(), use_cookies=False, resume=True, timeout=TIMEOUT,
            retries=RETRIES,
        )  # fmt: skip
    except Exception as error:  # gdown's own kinds and those of requests
        raise InputError(' '.join(str(error).split())) from None
    if not zipfile.is_zipfile(partial):  # as the page that Google Drive shows when a quota is used up
        partial.unlink()
        raise InputError('what came is no zip file')
    os.replace(partial, archive)


def _check_member(member, archive):
    """Raises InputError for a member that is a link or would lie outside the folder."""
    parts = member.filename.replace('\\', '/').split('/')
    if parts[0] == '' or '..' in parts or ':' in parts[0]:
        raise InputError(f'{archive}: {member.filename!r} would lie outside its folder; do not use this archive')
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f'{archive}: {member.filename!r} is a link; do not use this archive')


def _children(folder):
    """Returns what lies in a folder, without hidden files and what Macs add."""
    return [path for path in folder.iterdir() if not path.name.startswith(('.', '__MACOSX'))]


def _help(error, url, archive, expected):
    """Returns one screen: what was tried and why it failed, and how to go on by hand."""
    command = shlex.join([argument for argument in sys.orig_argv if not argument.startswith('--config.data.root')])
    return (
        f'--config.data.root is not set, and the published download failed: {error}\n'
        f'Tried: {url}\n'
        f'Run the same command again to go on with the download. Or get the files by hand: save that archive as\n'
        f'  {archive}\n'
        'or lay them out in a folder of yours as shown below, and run\n'
        f'  {command} --config.data.root=FOLDER\n\n{expected}'
    )
