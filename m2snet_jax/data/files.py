"""Image and mask files as datasets lay them out: finding the folder, pairing by stem, and the hash of a tree."""

import dataclasses
import hashlib
from pathlib import Path

from m2snet_jax.errors import InputError
from m2snet_jax.images import locate, split_name

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')  # in any case


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: the stem that both share, below its clip where there are clips: 'clip/frame'.
        image: path, or the address of one image in a file of several (see images.py).
        masks: paths; several where each lesion has a file of its own, to be united.
        label: the class of the whole image, as 'benign', where the dataset has such classes.
        group: what no split may divide, as the volume that a slice belongs to; '' for an image by itself.
    """

    name: str
    image: Path
    masks: tuple
    label: str = ''
    group: str = ''


def find_top(root, is_top, expected):
    """Returns the folder of a dataset: `root` itself, or the one below it for which `is_top` holds.

    Looked at are the subfolders of `root`, and in each the one of the same name, as some zip tools double it.

    Args:
        root: `config.data.root`, or where a download lies.
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
    candidates = [(folder, child(folder, folder.name)) for folder in subfolders(root)]
    tops = [next((top for top in pair if top and is_top(top)), None) for pair in candidates]
    tops = [top for top in tops if top]
    if len(tops) > 1:
        found = listed(top.name for top in tops)
        raise InputError(f'--config.data.root={root}: {len(tops)} datasets found ({found}); name one of them')
    if not tops:
        found = listed(path.name for path in _entries(root)) or 'nothing'
        raise InputError(f'--config.data.root={root}: not the expected tree, found {found}\n\n{expected}')
    return tops[0]


def subfolders(folder):
    """Returns the subfolders of a folder in order, without hidden ones and what Macs add to zip files."""
    return [path for path in _entries(folder) if path.is_dir() and not path.name.startswith(('.', '__MACOSX'))]


def child(folder, *names):
    """Returns the subfolder that has one of the names, whatever their case, or None.

    Raises:
        InputError: there are several.
    """
    found = [path for path in subfolders(folder) if path.name.lower() in {name.lower() for name in names}]
    if len(found) > 1:
        raise InputError(f'{folder}: holds both {found[0].name} and {found[1].name}; keep one')
    return found[0] if found else None


def part(top, name):
    """Returns a named subfolder, or the one of the same name in it where it is doubled, or None."""
    found = child(top, name)
    return found and (child(found, name) or found)


def image_and_mask_folders(folder, images, masks, expected):
    """Returns the subfolders of a folder that have one of the names `images` and one of the names `masks`.

    Raises:
        InputError: one of them is missing; shows `expected`.
    """
    found = child(folder, *images), child(folder, *masks)
    for path, names in zip(found, (images, masks), strict=True):
        if path is None:
            raise InputError(f'{folder}: no folder {names[0]} in it\n\n{expected}')
    return found


def pairs_in(images, masks, root, problems, prefix='', endings=ENDINGS):
    """Returns the pairs of two folders in the order of their names.

    Args:
        images, masks: folders.
        root: the folder of the dataset, which no file may lie outside of.
        problems: list that gets a line for each image without mask, mask without image, two files of one stem, file
            that lies outside `root` (a link), and for folders without images.
        prefix: put before every name.
        endings: of the files that count, in lower case.
    """
    image_files, mask_files = (by_stem(folder, root, problems, endings) for folder in (images, masks))
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


def by_stem(folder, root, problems, endings=ENDINGS):
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


def tree_hash(pairs, root, *settings):
    """Returns a hash of the names, sizes and times of the files of pairs, and of settings that shape the records."""
    digest = hashlib.sha256(repr(settings).encode())
    for pair in pairs:
        for path in (pair.image, *pair.masks):
            status = locate(path)[0].stat()
            digest.update(f'{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()[:16]


def listed(names, most=8):
    """Returns names as text, the first few of them."""
    names = list(names)
    return ', '.join(names[:most]) + (', …' if len(names) > most else '')


def _entries(folder):
    """Returns what lies in a folder, in order."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f'{folder}: cannot be opened ({error.strerror})') from None
