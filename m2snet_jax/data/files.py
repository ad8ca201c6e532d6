"""Image and mask files as datasets lay them out: finding the folder, pairing by stem, and the hash of a tree."""

import dataclasses
import hashlib
from pathlib import Path

from m2snet_jax.errors import InputError

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')  # in any case


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: the stem that both share.
        image, mask: paths.
    """

    name: str
    image: Path
    mask: Path


def find_top(root, is_top, expected):
    """Returns the folder of a dataset: `root` itself, or its one subfolder for which `is_top` holds.

    Args:
        root: `config.data.root`.
        is_top: function of a folder.
        expected: text on the expected tree and where the data come from, shown when nothing is found.
    """
    if root is None:
        raise InputError(f'--config.data.root is not set: give the folder of the data\n\n{expected}')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f'--config.data.root={root}: no such folder\n\n{expected}')
    if is_top(root):
        return root
    tops = [folder for folder in subfolders(root) if is_top(folder)]
    if len(tops) > 1:
        found = _listed(top.name for top in tops)
        raise InputError(f'--config.data.root={root}: {len(tops)} datasets found ({found}); name one of them')
    if not tops:
        found = _listed(path.name for path in sorted(root.iterdir())) or 'nothing'
        raise InputError(f'--config.data.root={root}: not the expected tree, found {found}\n\n{expected}')
    return tops[0]


def subfolders(folder):
    """Returns the subfolders of a folder in order, without hidden ones and what Macs add to zip files."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(('.', '__MACOSX')))


def child(folder, *names):
    """Returns the subfolder that has one of the names, whatever their case, or None.

    Raises:
        InputError: there are several.
    """
    found = [path for path in subfolders(folder) if path.name.lower() in {name.lower() for name in names}]
    if len(found) > 1:
        raise InputError(f'{folder}: holds both {found[0].name} and {found[1].name}; keep one')
    return found[0] if found else None


def pairs_in(images, masks, root):
    """Returns the pairs of two folders in the order of their names.

    Raises:
        InputError: an image without mask, a mask without image, two files of one stem, none at all, or a file that
            lies outside `root` (a link).
    """
    image_files, mask_files = _by_stem(images, root), _by_stem(masks, root)
    if not image_files and not mask_files:
        raise InputError(f'{images}: no images found; looked for files ending in {", ".join(ENDINGS)}')
    for have, lack, folder, kind in (
        (image_files, mask_files, masks, 'mask'),
        (mask_files, image_files, images, 'image'),
    ):
        alone = [stem for stem in have if stem not in lack]
        if alone:
            more = f' ({len(alone) - 1} more like it)' if len(alone) > 1 else ''
            raise InputError(
                f'{have[alone[0]]}: no {kind} named {alone[0]!r} in {folder}{more}; '
                'an image and its mask share their name up to the ending'
            )
    return [Pair(stem, path, mask_files[stem]) for stem, path in image_files.items()]


def tree_hash(pairs, root, *settings):
    """Returns a hash of the names, sizes and times of the files of pairs, and of settings that shape the records."""
    digest = hashlib.sha256(repr(settings).encode())
    for pair in pairs:
        for path in (pair.image, pair.mask):
            status = path.stat()
            digest.update(f'{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()[:16]


def _by_stem(folder, root):
    """Returns {stem: path} of the images in a folder, in order."""
    files, inside = {}, root.resolve()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith('.'):
            continue
        if not path.resolve().is_relative_to(inside):
            raise InputError(f'{path}: leads to {path.resolve()}, outside {root}; put the file itself there')
        if path.stem in files:
            raise InputError(f'{path}: {files[path.stem].name} has the same name up to the ending; keep one')
        files[path.stem] = path
    return files


def _listed(names, most=8):
    """Returns names as text, the first few of them."""
    names = list(names)
    return ', '.join(names[:most]) + (', …' if len(names) > most else '')
