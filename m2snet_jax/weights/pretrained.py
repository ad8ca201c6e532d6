"""Weights that other authors published, under short names: download and cache.

Each file is published under a name that ends in the first eight digits of its SHA-256.
"""

import hashlib
import http.client
import os
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from m2snet_jax import storage
from m2snet_jax.errors import InputError
from m2snet_jax.models.encoders import ENCODERS


@dataclass(frozen=True)
class PretrainedFile:
    """A published weights file.

    `sha256` has the first digits. `without` has the config keys that may name the file, and describes a run without it.
    """

    url: str
    sha256: str
    licence: str
    without: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.url.rpartition('/')[2]


_RES2NET = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/'
_RES2NET_LICENCE = 'Res2Net authors, CC BY-NC-SA 4.0: not for commercial use; trained on ImageNet'
_TORCHVISION = 'https://download.pytorch.org/models/'
_TORCHVISION_LICENCE = (
    'torchvision, BSD 3-Clause, no licence of its own for the weights; trained on ImageNet, whose terms may apply'
)
_ENCODER, _LOSSNET = 'model.encoder_weights', 'loss.lossnet_weights'
_FOR_ENCODER, _FOR_LOSSNET = {_ENCODER: 'random encoder'}, {_LOSSNET: "random frozen VGG, not the papers' LossNet"}


def _published(name: str, folder: str, licence: str, without: Mapping[str, str]) -> PretrainedFile:
    file: Any = ENCODERS[name].weights
    return PretrainedFile(folder + file, file.removesuffix('.pth').rpartition('-')[2], licence, without)


PRETRAINED = {
    'res2net50': _published('res2net50', _RES2NET, _RES2NET_LICENCE, _FOR_ENCODER),
    'res2net101': _published('res2net101', _RES2NET, _RES2NET_LICENCE, _FOR_ENCODER),
    'resnet50': _published('resnet50', _TORCHVISION, _TORCHVISION_LICENCE, _FOR_ENCODER),
    'vgg16': _published('vgg16', _TORCHVISION, _TORCHVISION_LICENCE, _FOR_ENCODER | _FOR_LOSSNET),
}


def weights_path(name_or_path: str | Path) -> Path:
    """Returns the path of a weights file; a key of `PRETRAINED` is downloaded into the cache if it is not there.

    The cache is the folder that the environment variable M2SNET_JAX_CACHE names, by default `m2snet_jax` in the user's
    cache folder.

    Raises:
        InputError: neither a known name nor an existing path; no network; or a file that is not the published one.
    """
    if name_or_path not in PRETRAINED:
        path = storage.local_path(name_or_path)
        if not path.exists():
            names = f', nor one of the names {", ".join(PRETRAINED)}' if len(path.parts) == 1 else ''
            raise InputError(f'{path}: no such file or folder{names}')
        return path
    file = PRETRAINED[str(name_or_path)]
    path = weights_folder() / file.name
    if not path.exists():
        _download([file])
    elif _sha256(path)[: len(file.sha256)] != file.sha256:
        raise InputError(f'{path}: its SHA-256 should begin with {file.sha256}: damaged or another file, delete it')
    return path


def fetch_weights(config: Any) -> None:
    """Downloads the weights that a training starts from and that are not on this computer.

    Raises:
        InputError: no such file, a name for another key or encoder, or no network; the message then describes all
            files that are missing.
    """
    named = _named(config)
    for key, name in named.items():
        if name not in PRETRAINED and not storage.local_path(name, f'--config.{key}').exists():
            raise InputError(f'--config.{key}={name}: no such file, nor one of the names {", ".join(PRETRAINED)}')
        if name in PRETRAINED and key not in PRETRAINED[name].without:
            keys = ' and '.join(f'--config.{known}' for known in PRETRAINED[name].without)
            raise InputError(f'--config.{key}={name}: that file is for {keys}')
        if key == _ENCODER and name in PRETRAINED and name != config.model.encoder:
            found = f'the encoder is {config.model.encoder}'
            raise InputError(f'--config.{key}={name}: {found}; name the file of the same name, a path, or none')
    files = {name: PRETRAINED[name] for name in named.values() if name in PRETRAINED}
    _download([file for file in files.values() if not (weights_folder() / file.name).exists()], named)


def weight_warnings(config: Any) -> list[str]:
    """Returns a line for each part of a training that starts from random weights where the papers' start from ImageNet.

    Every score sheet of such a run shows them.
    """
    named, lines = _named(config), []
    if config.model.weights is None and _ENCODER not in named:
        lines.append('the encoder started from random weights, in the papers from ImageNet (model.encoder_weights)')
    if config.loss.lossnet and _LOSSNET not in named:
        lines.append("LossNet was a VGG with random weights, the papers' is ImageNet's VGG-16 (loss.lossnet_weights)")
    return lines


def _named(config: Any) -> dict[str, str]:
    """Returns {config key: name or path} of the weights that a training of `config` reads."""
    encoder = config.model.encoder_weights if config.model.weights is None else None
    lossnet = config.loss.lossnet_weights if config.loss.lossnet else None
    named = {_ENCODER: encoder, 'model.weights': config.model.weights, _LOSSNET: lossnet}
    return {key: name for key, name in named.items() if name is not None}


def weights_folder() -> Path:
    """Returns the folder of downloaded weights; it need not exist."""
    named = os.environ.get('M2SNET_JAX_CACHE')
    return storage.local_path(named, 'M2SNET_JAX_CACHE') if named else storage.cache_folder()


def _download(files: Sequence[PretrainedFile], named: Mapping[str, str] | None = None) -> None:
    """Downloads to `<name>.part`, resuming an earlier attempt, and renames it if its hash is right.

    Of the config keys that may name a missing file, the message names those that do in `named`, {key: name}; None: all.
    """
    for number, file in enumerate(files):
        path = weights_folder() / file.name
        part = path.with_name(f'{path.name}.part')
        logging.info('downloading %s to %s (%s)', file.url, path, file.licence)
        try:
            _fetch(file.url, part)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(_unreachable(files[number:], named, error)) from error
        found = _sha256(part)
        if not found.startswith(file.sha256):
            part.unlink()
            raise InputError(
                f'{file.url}: the SHA-256 of what came begins with {found[: len(file.sha256)]}, not {file.sha256}; '
                f'nothing was kept: try again, or put the right file at {path}'
            )
        os.replace(part, path)


def _fetch(url: str, part: Path) -> None:
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={begin}-'} if begin else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete; if it is too long, its hash is wrong
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            begin = 0
        length = int(response.headers.get('Content-Length', 0))
        part.parent.mkdir(parents=True, exist_ok=True)
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


def _unreachable(files: Sequence[PretrainedFile], named: Mapping[str, str] | None, error: Exception) -> str:
    """Returns the message for missing files, the first of which could not be downloaded."""
    lines = [f'weights are not on this computer and cannot be downloaded ({str(error).strip("<>")})']
    for file in files:
        lines += [
            f'  {file.name}',
            f'    from:      {file.url}',
            f'    put it at: {weights_folder() / file.name}',
            f'    licence:   {file.licence}',
        ]
    lines.append('  or set M2SNET_JAX_CACHE to the folder that holds them')
    without = {
        key: words
        for file in files
        for key, words in file.without.items()
        if named is None or PRETRAINED.get(named.get(key, '')) == file
    }
    flags = tuple(f'--config.{key}=' for key in without)
    words = [word for word in sys.orig_argv if not word.startswith(flags)] + [f'{flag}none' for flag in flags]
    lines += [f'to run without ({"; ".join(without.values())}):', f'  {shlex.join(words)}']
    return '\n'.join(lines)


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
