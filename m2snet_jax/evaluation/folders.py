"""Folders of images, masks and maps as users have them: finding files by name, and saying whose maps they are."""

import json
import os
from pathlib import Path

from m2snet_jax.data.files import ENDINGS
from m2snet_jax.errors import InputError
from m2snet_jax.images import CLINICAL_ENDINGS, addresses, locate, read_image, split_name

READABLE = (*ENDINGS, '.webp', '.gif', '.ppm', '.pgm', '.jp2', *CLINICAL_ENDINGS)
MARK = 'model.json'  # in a folder of maps: which model wrote them, and how


def claim_folder(folder, about):
    """Marks a folder of maps as written in one way, so that maps of two models are never mixed.

    Args:
        folder: made when it is not there.
        about: dict of JSON values, the model's hash among them; a folder marked with the same may be gone on with.

    Raises:
        InputError: the folder cannot be written, holds maps of another model or settings, or maps without a mark.
    """
    folder = Path(folder)
    path = folder / MARK
    try:
        if path.exists():
            before = json.loads(path.read_text())
            changed = [key for key in {**before, **about} if before.get(key) != about.get(key)]
            if changed:
                raise InputError(
                    f'{folder}: holds maps written with another {", ".join(changed)}; name another --output, or '
                    'remove that folder'
                )
            return
        if folder.is_dir() and (strange := _index(folder)):
            raise InputError(f'{folder}: holds {min(strange)}, of unknown origin; name a new or empty --output')
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{MARK}')
        temporary.write_text(json.dumps(about, indent=1) + '\n')
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'{folder}: cannot be used for maps ({reason}); name another --output') from None


def find_maps(folder, names, classes):
    """Finds the maps of test sets by name.

    They lie in `folder/<set>/`, or straight in `folder` where no set has a folder there.

    Args:
        folder: of maps.
        names: {test set: names of its images, as their masks are named}.
        classes: maps of an image; several are `<name>_1`, `<name>_2` ….

    Returns:
        (found, missing, extra): {test set: [(index of the name, name, paths)]}, {test set: names, where any}, names of
        files that belong to no mask.

    Raises:
        InputError: no folder, not a single map in it, or a name that two sets share.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'--maps={folder}: no such folder')
    files, by_set = _index(folder), any((folder / test_set).is_dir() for test_set in names)
    shared = {}
    for test_set, members in names.items():
        for name in members:
            if not by_set and shared.setdefault(name, test_set) != test_set:
                raise InputError(
                    f'--maps={folder}: {name!r} is in {shared[name]} and {test_set}; put the maps of each set into a '
                    'folder of its name, or choose with --sets'
                )
    found, missing, used = {test_set: [] for test_set in names}, {}, set()
    for test_set, members in names.items():
        for index, name in enumerate(members):
            stems = [name] if classes == 1 else [f'{name}_{number}' for number in range(1, classes + 1)]
            keys = [f'{test_set}/{stem}' if by_set else stem for stem in stems]
            if all(key in files for key in keys):
                found[test_set].append((index, name, [files[key] for key in keys]))
                used.update(keys)
            else:
                missing.setdefault(test_set, []).append(name)
    if not used:
        wanted = next((members[0] for members in names.values() if members), '')
        raise InputError(f'--maps={folder}: no map has the name of a mask, as {wanted!r}; {len(files)} images found')
    return found, missing, sorted(set(files) - used)


class MaskFolder:
    """Masks below a folder as a test set: `names`, `len()` and `[i]` → dict of name, mask (a path) and image or None.

    Args:
        folder: of masks.
        images: folder of images with the same names, None without.
    """

    def __init__(self, folder, images=None):
        for flag, path in (('masks', folder), ('images', images)):
            if path is not None and not Path(path).is_dir():
                raise InputError(f'--{flag}={path}: no such folder')
        self._masks = _index(Path(folder))
        self._images = {} if images is None else _index(Path(images))
        self.names = sorted(self._masks)
        if not self.names:
            raise InputError(f'--masks={folder}: no images found; looked for files ending in {", ".join(ENDINGS)}')

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        name = self.names[index]
        image = read_image(self._images[name]) if name in self._images else None
        return {'name': name, 'mask': self._masks[name], 'image': image}


def find_images(given, output):
    """Lists the images that are named, or lie below a folder that is; slices and frames of a file one by one.

    Args:
        given: paths of folders and files; in a folder, files are taken by their ending, hidden ones left out.
        output: folder of the maps, left out where it lies below one of them.

    Returns:
        [(name, path)]: names are paths below the folder given, without ending, and stems of single files; of a file
        with several images NAME_000, NAME_001 … and their addresses (see images.py).

    Raises:
        InputError: nothing there, no images, or two of one name, whose maps would overwrite one another.
    """
    found, inside = {}, Path(output).resolve()
    for top in map(Path, given):
        if top.resolve() == inside:
            raise InputError(f'--output={output}: is the folder of the images; name another')
        if top.is_dir():
            paths = [path for path in sorted(top.rglob('*')) if split_name(path)[1] in READABLE and path.is_file()]
            paths = [path for path in paths if not path.name.startswith('.')]
            paths = [path for path in paths if not path.resolve().is_relative_to(inside)]
            members = [(path.relative_to(top).with_name(split_name(path)[0]).as_posix(), path) for path in paths]
        elif top.exists():
            members = [(split_name(top)[0], top)]
        else:
            raise InputError(f'--images={top}: no such file or folder')
        for name, path in (one for member in members for one in _images(*member)):
            if name in found:
                raise InputError(f'{path}: {found[name]} has the same name up to the ending; predict them apart')
            found[name] = path
    if not found:
        raise InputError(f'--images={given[0]}: no images found; looked for files ending in {", ".join(READABLE)}')
    return list(found.items())


def _images(name, path):
    """Returns [(name, path)] of the images of a file."""
    try:
        every = addresses(path)
    except InputError:  # told when its turn comes, so that the other files are done
        every = [path]
    return [(name if locate(address)[1] is None else f'{name}_{address.name}', address) for address in every]


def _index(folder):
    """Returns {path below the folder without its ending: path} of all images; hidden files are left out."""
    files = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() in ENDINGS and not path.name.startswith('.') and path.is_file():
            key = path.relative_to(folder).with_suffix('').as_posix()
            if key in files:
                raise InputError(f'{path}: {files[key].name} has the same name up to the ending; keep one')
            files[key] = path
    return files
