"""Image and mask files as datasets lay them out: finding the folder, pairing by name, reading, hashes."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from m2snet_jax.data.affixes import match_names
from m2snet_jax.data.patterns import ENDINGS, describe_link, find_files, is_hidden
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import locate


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
    return [path for path in _entries(folder) if path.is_dir() and not is_hidden(path.name)]


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
    images: str | Path,
    masks: str | Path,
    problems: list[str],
    warnings: list[str],
    prefix: str = '',
    endings: tuple[str, ...] = ENDINGS,
) -> list[Pair]:
    """Returns the pairs of two folders or patterns (see patterns.py) in the order of the paths of the images.

    Names are equal, or differ in what all of one kind share (see affixes.py). A file that both patterns match is a
    mask.

    Args:
        images, masks: folders or patterns.
        problems: list that gets a line for each image without mask, mask without image, two files of one name, link
            that leads nowhere, and for folders without images.
        warnings: list that gets a line for each prefix or suffix that is left out, and each link that is not followed.
        prefix: put before every name.
        endings: of the files that count, in lower case.
    """
    mask_files = find_files(masks, endings)
    image_files = find_files(images, endings, leave_out=set(mask_files.paths.values()).__contains__)
    partners, lines = match_names(image_files.paths, mask_files.paths)
    warnings += [line for line in lines + image_files.loops + mask_files.loops if line not in warnings]
    for files in (image_files, mask_files):
        problems += files.duplicates
        problems += [describe_link(path) for name, path in files.dangling.items() if name not in files.paths]
    problems += _unpaired(image_files, mask_files, partners, endings)
    return [
        Pair(prefix + name, path, (mask_files.paths[partners[name]],))
        for name, path in image_files.paths.items()
        if name in partners
    ]


def _unpaired(images, masks, partners, endings):
    """Returns a line for each file without partner, or a single one where no two files are paired."""
    if not partners:
        return _nothing_paired(images, masks, endings)
    lines = []
    for have, lack, kind, paired in (
        (images, masks, 'mask', partners.keys()),
        (masks, images, 'image', set(partners.values())),
    ):
        for name, path in have.paths.items():
            if name in paired or name in lack.dangling:
                continue
            if (unread := lack.unread.get(name)) is not None:
                lines.append(f'{path}: no {kind}; {unread} has its name, but that kind of file is not read; convert it')
            else:
                lines.append(
                    f'{path}: no {kind} named {name!r} in {lack.where}; an image and its mask share their name up to '
                    'the ending'
                )
    return lines


def _nothing_paired(images, masks, endings):
    """Returns a line on folders of which no two files are paired, with what was found; none if links are the reason."""
    if images.where == masks.where:
        return [f'{images.where}: named for the images and for the masks; give each a pattern of its own']
    empty = [files for files in (images, masks) if not files.paths and not files.dangling]
    if empty:
        unread = next(iter(empty[0].unread.values()), None)
        other = (
            '' if unread is None else f'; {len(empty[0].unread)} others, as {unread.name}, are not read: convert them'
        )
        return [f'{empty[0].where}: no images found; looked for files ending in {", ".join(endings)}{other}']
    if not images.paths or not masks.paths:
        return []
    return [
        f'{images.where}: no image has the name of a mask in {masks.where}; {len(images.paths)} images found '
        f'({join_names(images.paths, 3)}) and {len(masks.paths)} masks ({join_names(masks.paths, 3)})'
    ]


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
            below = path.relative_to(root) if path.is_relative_to(root) else path
            digest.update(f'{below} {status.st_size} {status.st_mtime_ns}\n'.encode('utf-8', 'surrogateescape'))
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
