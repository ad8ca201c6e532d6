"""Folders and patterns: which files they hold, and the name of each file.

A folder holds the files below it, also those in subfolders. The name of a file is its path below the folder, without
its ending. A pattern is a path in which `*` is the name: `scans/*_scan.tif`. `*` is at least one character of a file or
a folder, `**` is any number of folders; what several of them are is joined by '/'. A pattern without one of the endings
that are read, or with `.*`, takes all of them.

Hidden files and folders are left out, but only below what was named. Links are followed.
"""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from m2snet_jax.errors import InputError
from m2snet_jax.images import dicom
from m2snet_jax.images.formats import reader_of, split_name

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.gif', '.webp', '.ppm', '.pgm', '.jp2')  # in any case
HIDDEN = ('.', '__MACOSX', '@eaDir')  # what Macs add to zip files, and some file servers to folders


@dataclasses.dataclass
class Files:
    """The files of a folder or a pattern.

    Attributes:
        where: the folder or the pattern.
        paths: {name: path}, in the order of the paths.
        unread: {name: path} of files that have an ending which is not read.
        dangling: {name: path} of links that lead nowhere.
        duplicates: a line for each file whose name another one has.
        loops: a line for each link that leads back to a folder above it, which is not followed.
    """

    where: Path
    paths: dict[str, Path] = dataclasses.field(default_factory=dict)
    unread: dict[str, Path] = dataclasses.field(default_factory=dict)
    dangling: dict[str, Path] = dataclasses.field(default_factory=dict)
    duplicates: list[str] = dataclasses.field(default_factory=list)
    loops: list[str] = dataclasses.field(default_factory=list)


def find_files(
    where: str | Path,
    endings: tuple[str, ...] = ENDINGS,
    *,
    flag: str = '',
    leave_out: Callable[[Path], bool] = lambda path: False,
) -> Files:
    """Returns the Files of a folder or of a pattern, or the one file that `where` names.

    Args:
        where: a folder, a pattern or a file.
        endings: of the files that are read, in lower case.
        flag: the flag or key that gave `where`, for the message.
        leave_out: whether a path does not count.

    Raises:
        InputError: there is no such folder, or one that cannot be opened.
    """
    where = Path(where).expanduser()
    files = Files(where)
    if where.is_file():
        files.paths[name_of(split_name(where)[0])] = where
        return files
    base, pattern = _split(where, f'--{flag}={where}' if flag else str(where))
    naming = _naming(pattern, endings)
    for path in sorted(_walk(base, _depth(pattern), files), key=lambda path: path.parts):
        name, read = naming(path.relative_to(base))
        if name is None or leave_out(path):
            continue
        if not read and not _is_dicom(path, endings):
            files.unread.setdefault(name, path)
        elif not path.exists():
            files.dangling[name] = path
        elif name in files.paths:
            files.duplicates.append(
                f'{path}: {files.paths[name].name} has the same name up to the ending; keep one'
                if files.paths[name].parent == path.parent
                else f'{path}: has the name {name!r}, as {files.paths[name]} has; keep one'
            )
        else:
            files.paths[name] = path
    return files


def holds_files(where: str | Path, endings: tuple[str, ...] = ENDINGS) -> bool:
    """Returns whether a folder or a pattern has any file that is read."""
    where = Path(where).expanduser()
    if where.is_file():
        return True
    try:
        base, pattern = _split(where, '')
        naming = _naming(pattern, endings)
        for path in _walk(base, _depth(pattern), Files(where)):
            name, read = naming(path.relative_to(base))
            if name is not None and (read or _is_dicom(path, endings)):
                return True
        return False
    except InputError:
        return False


def image_paths(folder: Path, depth: int, endings: tuple[str, ...] = ENDINGS) -> Iterator[Path]:
    """Yields the paths of the image files below a folder, down to `depth` levels of folders."""
    return (path for path in _walk(folder, depth, Files(folder)) if split_name(path)[1] in endings and path.exists())


def name_of(path: str | Path) -> str:
    """Returns a path as valid text, by which names are compared and written: see `valid_text`."""
    return valid_text(Path(path).as_posix())


def valid_text(text: str) -> str:
    """Returns text in Unicode's composed form (NFC), with bytes that are no UTF-8 written as %E9."""
    text = re.sub('[\udc80-\udcff]', lambda byte: f'%{ord(byte[0]) - 0xDC00:02X}', text)
    return unicodedata.normalize('NFC', text)


def top_folder(where: str | Path) -> Path:
    """Returns the folder of a pattern that comes before its first `*`; a folder or a file itself."""
    where = Path(where)
    if where.exists() or '*' not in str(where):
        return where
    parts = where.parts
    return Path(*parts[: next(number for number, part in enumerate(parts) if '*' in part)])


def describe_content(where: str | Path) -> str:
    """Returns the first few files below a folder, or below that of a pattern, as text."""
    folder = top_folder(where)
    try:
        paths = [
            str(path.relative_to(folder)) for _, path in zip(range(4), _walk(folder, 5, Files(folder)), strict=False)
        ]
    except InputError:
        paths = []
    more = ', …' if len(paths) > 3 else ''
    return f'found {", ".join(paths[:3])}{more} in {folder}' if paths else f'found nothing in {folder}'


def describe_link(path: Path) -> str:
    """Returns a line on a link that leads nowhere."""
    return f'{path}: is a link to {os.readlink(path)}, which is not there; restore that file or remove the link'


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of that name is left out."""
    return name.startswith(HIDDEN)


def _is_dicom(path, endings):
    """Returns whether DICOM is looked for and a file of another ending, or of none, is DICOM by its content."""
    is_index = path.name.upper() == 'DICOMDIR'  # of a disc: it holds no image
    return not is_index and set(dicom.ENDINGS) <= set(endings) and reader_of(path) is dicom


def _split(where, shown):
    """Returns (folder, the parts of the pattern below it), no parts where a folder was named."""
    base = top_folder(where)
    if not base.is_dir():
        raise InputError(f'{shown}: no such folder or file' if base == where else f'{shown}: no such folder as {base}')
    return base, where.parts[len(base.parts) :]


def _depth(pattern):
    """Returns how many levels of folders a pattern has, counting that of the files; infinity without a bound."""
    return len(pattern) if pattern and not any(part == '**' for part in pattern) else float('inf')


def _naming(pattern, endings):
    """Returns a function of a relative path that returns (name, whether its ending is read); the name may be None."""
    if not pattern:
        return lambda path: (name_of(path.with_name(split_name(path)[0])), split_name(path)[1] in endings)
    *folders, last = pattern
    stem, ending = split_name(last)
    if ending in endings:
        endings = (ending,)
    else:
        stem = last.removesuffix('.*')
    if stem == '**':
        folders, stem = [*folders, '**'], '*'
    regex = re.compile(''.join(map(_regex, folders)) + _regex(stem).removesuffix('/'))

    def name(path):
        stem, ending = split_name(path)
        match = regex.fullmatch(name_of(path.with_name(stem)))
        if match is None and ending not in endings:
            match = regex.fullmatch(name_of(path))  # of a pattern with an ending that is not read
        if match is None:
            return None, False
        parts = [part.strip('/') for part in match.groups() if part]
        return '/'.join(parts) if parts else name_of(stem), ending in endings

    return name


def _regex(part):
    """Returns the regular expression of one part of a pattern and the '/' after it."""
    if part == '**':
        return '((?:[^/]+/)*)'
    part = unicodedata.normalize('NFC', re.sub(r'\*+', '*', part))
    return '([^/]+)'.join(map(re.escape, part.split('*'))) + '/'


def _walk(folder, depth, files, above=()):
    """Yields the paths of the files below a folder, also of links that lead nowhere; notes loops in `files`."""
    above = (*above, os.path.realpath(folder))
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f'{folder}: cannot be opened ({error.strerror})') from None
    for entry in entries:
        path = folder / entry.name
        if is_hidden(entry.name):
            continue
        if not os.path.isdir(path):  # unlike the entry's own method, it bears a link to itself
            yield path
        elif entry.is_symlink() and os.path.realpath(path) in above:
            files.loops.append(f'{path}: is a link to {os.path.realpath(path)}, a folder above it; not followed')
        elif depth > 1:
            yield from _walk(path, depth - 1, files, above)
