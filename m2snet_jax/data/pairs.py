"""Image and mask files as datasets lay them out: finding the folder, pairing by stem, reading, hashes."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import locate, read_image, read_mask, split_name

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')  # in any case


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: the stem that both share, below its clip where there are clips: 'clip/frame'.
        image: path, or the address of one image in a file of several (see images.py).
        masks: paths; several where each lesion has a file of its own, to be united.
        label: the class of the whole image, as 'benign', where the dataset has such classes.
        group: what no split may divide, as the volume of a slice; '' for an image by itself.
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    label: str = ''
    group: str = ''


def find_root(root: str | Path | None, is_root: Callable[[Path], Any], expected: str | None) -> Path:
    """Returns the folder of a dataset: `root` itself, or the one below it for which `is_root` holds.

    Looked at are the subfolders of `root`, and in each the one of the same name, as some zip tools double it.

    Args:
        root: `config.data.root`, or the folder of a download.
        is_root: function of a folder.
        expected: text on the expected tree and where the data come from, shown when nothing is found.
    """
    if root is None:
        raise InputError(f'--config.data.root is not set: give the folder of the data\n\n{expected}')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f'--config.data.root={root}: no such folder\n\n{expected}')
    if is_root(root):
        return root
    candidates = [(folder, find_subfolder(folder, folder.name)) for folder in subfolders(root)]
    tops = [next((top for top in pair if top and is_root(top)), None) for pair in candidates]
    tops = [top for top in tops if top]
    if len(tops) > 1:
        found = join_names(top.name for top in tops)
        raise InputError(f'--config.data.root={root}: {len(tops)} datasets found ({found}); name one of them')
    if not tops:
        found = join_names(path.name for path in _entries(root)) or 'nothing'
        raise InputError(f'--config.data.root={root}: not the expected tree, found {found}\n\n{expected}')
    return tops[0]


def subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders of a folder in order, without hidden ones and what Macs add to zip files."""
    return [path for path in _entries(folder) if path.is_dir() and not path.name.startswith(('.', '__MACOSX'))]


def find_subfolder(folder: Path, *names: str) -> Path | None:
    """Returns the subfolder that has one of the names, whatever their case, or None.

    Raises:
        InputError: there are several.
    """
    found = [path for path in subfolders(folder) if path.name.lower() in {name.lower() for name in names}]
    if len(found) > 1:
        raise InputError(f'{folder}: holds both {found[0].name} and {found[1].name}; keep one')
    return found[0] if found else None


def unwrap_subfolder(top: Path, name: str) -> Path | None:
    """Returns a named subfolder, or the one of the same name in it where it is doubled, or None."""
    found = find_subfolder(top, name)
    return found and (find_subfolder(found, name) or found)


def image_and_mask_folders(
    folder: Path, images: tuple[str, ...], masks: tuple[str, ...], expected: str | None
) -> tuple[Path, Path]:
    """Returns the subfolders of a folder that have one of the names `images` and one of the names `masks`.

    Raises:
        InputError: one of them is missing; shows `expected`.
    """
    found = []
    for names in (images, masks):
        path = find_subfolder(folder, *names)
        if path is None:
            raise InputError(f'{folder}: no folder {names[0]} in it\n\n{expected}')
        found.append(path)
    return found[0], found[1]


def pairs_in(
    images: Path,
    masks: Path,
    root: Path,
    problems: list[str],
    prefix: str = '',
    endings: tuple[str, ...] = ENDINGS,
) -> list[Pair]:
    """Returns the pairs of two folders in the order of their names.

    Args:
        images, masks: folders.
        root: the folder of the dataset, which no file may lie outside of.
        problems: list that gets a line for each image without mask, mask without image, two files of one stem, file
            that lies outside `root` (a link), and for folders without images.
        prefix: put before every name.
        endings: of the files that count, in lower case.
    """
    image_files, mask_files = (images_by_stem(folder, root, problems, endings) for folder in (images, masks))
    if not image_files and not mask_files:
        problems.append(f'{images}: no images found; looked for files ending in {", ".join(endings)}')
    for have, lack, folder, kind in (
        (image_files, mask_files, masks, 'mask'),
        (mask_files, image_files, images, 'image'),
    ):
        problems += [
            f'{path}: no {kind} named {stem!r} in {folder}; an image and its mask share their name up to the ending'
            for stem, path in have.items()
            if stem not in lack
        ]
    return [Pair(prefix + stem, path, (mask_files[stem],)) for stem, path in image_files.items() if stem in mask_files]


def images_by_stem(
    folder: Path, root: Path, problems: list[str], endings: tuple[str, ...] = ENDINGS
) -> dict[str, Path]:
    """Returns {stem: path} of the images in a folder, in order; `problems` gets a line for each unusable one."""
    files, inside = {}, root.resolve()
    for path in _entries(folder):
        stem, ending = split_name(path)
        if ending not in endings or path.name.startswith('.'):
            continue
        if not path.resolve().is_relative_to(inside):
            problems.append(f'{path}: leads to {path.resolve()}, outside {root}; put the file itself there')
        elif stem in files:
            problems.append(f'{path}: {files[stem].name} has the same name up to the ending; keep one')
        else:
            files[stem] = path
    return files


def read_pair(pair: Pair, window: str | None = None) -> tuple[np.ndarray | None, list, list[str]]:
    """Reads an image, through a window where it needs one, and its masks and compares their sizes.

    Returns:
        (image, masks, faults): uint8 [H, W, 3] or None, a uint8 [H, W] or None for each mask as it is stored, and a
        line for each file that is unreadable or of the wrong size.
    """
    faults = []

    def read(function, *arguments):
        try:
            return function(*arguments)
        except InputError as error:
            faults.append(str(error))

    image, masks = read(read_image, pair.image, window), [read(read_mask, path) for path in pair.masks]
    for mask, path in zip(masks, pair.masks, strict=True):
        if image is not None and mask is not None and image.shape[:2] != mask.shape:
            (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
            faults.append(
                f'{path}: {mask_width}x{mask_height} pixels, but its image {pair.image} has {width}x{height}; '
                'give both the same size'
            )
    return image, masks, faults


def sha256(*paths: Path) -> str:
    """Returns the SHA-256 of a file, or of several one after the other; of a slice, of its file's and its number."""
    digest = hashlib.sha256()
    for path in paths:
        file, number = locate(path)
        if number is None:
            digest.update(file.read_bytes())
        else:
            digest.update(f'{_sha256_of_volume(file, file.stat().st_mtime_ns)}/{number}'.encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def _sha256_of_volume(path, modified):
    """Returns the SHA-256 of a file that was modified at that time, once for all of its slices."""
    return sha256(path)


def tree_hash(pairs: Iterable[Pair], root: Path, *settings: Any) -> str:
    """Returns a hash of the names, sizes and times of the files of pairs, and of settings that shape the records."""
    digest = hashlib.sha256(repr(settings).encode())
    for pair in pairs:
        for path in (pair.image, *pair.masks):
            status = locate(path)[0].stat()
            line = f'{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n'
            digest.update(line.encode(errors='surrogateescape'))
    return digest.hexdigest()[:16]


def join_names(names: Iterable[str], most: int = 8) -> str:
    """Returns names as text, the first few of them."""
    names = list(names)
    return ', '.join(names[:most]) + (', …' if len(names) > most else '')


def _entries(folder):
    """Returns what lies in a folder, in order."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f'{folder}: cannot be opened ({error.strerror})') from None
