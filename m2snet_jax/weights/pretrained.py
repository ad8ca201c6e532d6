"""Weights of other authors under short names: where they come from, and their place on this computer.

Each file is published under a name that ends in the first eight digits of its SHA-256.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from absl import logging
from tqdm import tqdm

from m2snet_jax.errors import InputError


@dataclass(frozen=True)
class PretrainedFile:
    """A published weights file: `sha256` holds the first digits, `without` says how to do without it."""

    url: str
    sha256: str
    licence: str
    without: str

    @property
    def name(self):
        return self.url.rpartition('/')[2]


_RES2NET = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/'
_RES2NET_LICENCE = 'Res2Net authors, CC BY-NC-SA 4.0: not for commercial use; trained on ImageNet'
_NO_ENCODER = '--config.model.encoder_weights=none (random encoder)'

PRETRAINED = {
    'res2net50': PretrainedFile(
        _RES2NET + 'res2net50_v1b_26w_4s-3cf99910.pth', '3cf99910', _RES2NET_LICENCE, _NO_ENCODER
    ),
    'res2net101': PretrainedFile(
        _RES2NET + 'res2net101_v1b_26w_4s-0812c246.pth', '0812c246', _RES2NET_LICENCE, _NO_ENCODER
    ),
    'vgg16': PretrainedFile(
        'https://download.pytorch.org/models/vgg16-397923af.pth',
        '397923af',
        'torchvision, BSD 3-Clause, no licence of its own for the weights; trained on ImageNet, whose terms may apply',
        '--config.loss.lossnet_weights=none (random frozen VGG; the papers use this file)',
    ),
}


def weights_path(name_or_path):
    """Returns the path of a weights file, downloaded into the cache if need be.

    Args:
        name_or_path: a key of `PRETRAINED`, or a path, which is returned as it is. The cache is the folder that the
            environment variable M2SNET_JAX_CACHE names, by default `m2snet_jax` in the user's cache folder.

    Raises:
        InputError: neither a known name nor an existing path; no network; or a file that is not the published one.
    """
    if name_or_path not in PRETRAINED:
        path = Path(name_or_path)
        if not path.exists():
            raise InputError(f'{path}: no such file, nor one of the names {", ".join(PRETRAINED)}')
        return path
    file = PRETRAINED[name_or_path]
    path = cache_folder() / file.name
    if not path.exists():
        _download(file, path)
    elif _sha256(path)[: len(file.sha256)] != file.sha256:
        raise InputError(f'{path}: its SHA-256 should begin with {file.sha256}: damaged or another file, delete it')
    return path


def cache_folder():
    """Returns the folder of downloaded weights; it need not exist."""
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(os.environ.get('M2SNET_JAX_CACHE') or home / 'm2snet_jax')


def _download(file, path):
    """Downloads to `<path>.part`, going on where an earlier attempt ended, and renames it once its hash is right."""
    part = path.with_name(f'{path.name}.part')
    logging.info('downloading %s to %s (%s)', file.url, path, file.licence)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(file.url, part)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(_unreachable(file, path, error)) from error
    found = _sha256(part)
    if not found.startswith(file.sha256):
        part.unlink()
        raise InputError(
            f'{file.url}: the SHA-256 of what came begins with {found[: len(file.sha256)]}, not {file.sha256}; '
            f'nothing was kept: try again, or put the right file at {path}'
        )
    os.replace(part, path)


def _fetch(url, part):
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={begin}-'} if begin else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; if there is too much, the hash will tell
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            begin = 0
        length = int(response.headers.get('Content-Length', 0))
        with (
            part.open('ab' if begin else 'wb') as output,
            tqdm(
                desc=part.stem, initial=begin, total=begin + length or None, unit='B', unit_scale=True, mininterval=1
            ) as bar,
        ):
            while piece := response.read(2**18):
                output.write(piece)
                bar.update(len(piece))
    if part.stat().st_size < begin + length:
        raise ConnectionError(
            f'it ended after {part.stat().st_size:,} of {begin + length:,} bytes; the same command goes on from there'
        )


def _unreachable(file, path, error):
    return '\n'.join(
        [
            f'{file.name} is not on this computer and cannot be downloaded ({str(error).strip("<>")})',
            f'  from:       {file.url}',
            f'  put it at:  {path}   (or set M2SNET_JAX_CACHE to the folder that holds it)',
            f'  or without: {file.without}',
            f'  licence:    {file.licence}',
        ]
    )


def _sha256(path):
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
