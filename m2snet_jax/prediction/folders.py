"""Folders of images in, folders of maps out: finds the images and predicts a few at a time; one model a folder."""

import concurrent.futures
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from m2snet_jax.data.patterns import ENDINGS, describe_content, describe_link, find_files
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import CLINICAL_ENDINGS, addresses, load_image, locate
from m2snet_jax.prediction.series import group_series
from m2snet_jax.storage import write_json

if TYPE_CHECKING:
    from m2snet_jax.prediction.predictor import Predictor
    from m2snet_jax.prediction.writer import Writer


def predict_files(
    predictor: 'Predictor', images: Sequence[tuple[str, Path]], writer: 'Writer', batch: int
) -> tuple[int, int, list[str]]:
    """Predicts and writes the maps of image files, with a progress bar on stderr.

    Args:
        images: (name, address), see `find_images`.
        writer: images whose files it has already written are skipped.
        batch: images in memory at once; as many again are read meanwhile. One volume and the maps of one series are
            held beside them.

    Returns:
        (done, before, faults): the number predicted, the number skipped, and a line for each file that cannot be read.

    Raises:
        InputError: a file would be written for two images; nothing is predicted.
    """
    every = group_series(images)
    writer.check_paths(every)
    left = [series for series in every if not writer.is_done(series)]
    todo = [(series, name, path) for series in left for name, path in series.images]
    done, faults = 0, []
    with tqdm(total=len(todo), unit='image', disable=None, file=sys.stderr) as bar:
        predicted = _predicted(predictor, todo, batch, faults, bar, writer.agreements)
        for series, members in itertools.groupby(predicted, lambda member: member[0]):
            maps = {}
            for _, name, pixels, probability in members:
                if pixels is not None and probability is not None:
                    written = writer.write(name, series, pixels, probability)
                    done += 1
                    if series.reader is not None:
                        maps[name] = written
            try:
                writer.write_results(series, maps)
            except InputError as error:
                faults.append(str(error))
    return done, len(images) - len(todo), list(dict.fromkeys(faults))


def _predicted(predictor, images, batch, faults, bar, agreements=None):
    """Yields (series, name, pixels, probability) of [(series, name, path)] in order, None for what cannot be read.

    `agreements`, a dict or None, gets how far the averaged maps of each image agree. The next images are read
    while the network runs on the last ones.
    """
    with concurrent.futures.ThreadPoolExecutor(min(batch, os.cpu_count() or 1)) as threads:
        remaining = iter(images)
        pieces = iter(lambda: list(itertools.islice(remaining, batch)), [])
        ahead = []
        for piece in itertools.chain(pieces, [[]]):
            reading = [(*image, threads.submit(_read, image[-1], predictor)) for image in piece]
            for_now, ahead = ahead, reading
            pixels_of = {}
            for _, name, path, future in for_now:
                try:
                    pixels_of[name], turned = future.result()
                except InputError as error:
                    faults.append(str(error))
                    continue
                if turned:
                    bar.write(f'{path}: turned upright, as its EXIF data ask', file=sys.stderr)
            if agreements is None:
                probabilities = dict(zip(pixels_of, predictor.probabilities(list(pixels_of.values())), strict=True))
            else:
                predictions = dict(zip(pixels_of, predictor.predictions(list(pixels_of.values())), strict=True))
                agreements |= {name: one.agreement for name, one in predictions.items()}
                probabilities = {name: one.probability for name, one in predictions.items()}
            for series, name, _, _ in for_now:
                yield series, name, pixels_of.get(name), probabilities.get(name)
            bar.update(len(for_now))


def _read(path, predictor):
    """Returns (pixels, whether they were turned by EXIF)."""
    if path.is_symlink() and not path.exists():
        raise InputError(describe_link(path))
    return load_image(path, predictor.window, predictor.reading)


READABLE = (*ENDINGS, *CLINICAL_ENDINGS)

MARK = 'model.json'  # in a folder of maps: which model wrote them, and how


def claim_folder(folder: str | Path, about: dict[str, Any]) -> None:
    """Marks a folder, which is made where it is missing, as holding the maps of one model and its settings.

    `about` has JSON values, the model's hash among them; a folder marked with the same values may be continued.

    Raises:
        InputError: the folder cannot be written, holds maps of another model or settings, or maps without a mark.
    """
    folder = Path(folder)
    path = folder / MARK
    try:
        if path.exists():
            before = json.loads(path.read_text())
            if 'classes' in about:  # they follow from the model; folders of version 0.1 lack them
                before.setdefault('classes', about['classes'])
            changed = [key for key in {**before, **about} if before.get(key) != about.get(key)]
            if changed:
                raise InputError(
                    f'{folder}: holds maps written with another {", ".join(changed)}; name another --output, or '
                    'remove that folder'
                )
            return
        if folder.is_dir() and (strange := find_files(folder, READABLE).paths):
            raise InputError(f'{folder}: holds {min(strange)}, of unknown origin; name a new or empty --output')
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, about)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'{folder}: cannot be used for maps ({reason}); name another --output') from None


def find_images(given: Sequence[str | Path], output: str | Path) -> list[tuple[str, Path]]:
    """Lists image files and the images below folders, slices and frames of a file one by one.

    Args:
        given: files, folders and patterns (see data/patterns.py).
        output: folder of the maps, which is not searched.

    Returns:
        (name, address) of each image (see formats.py). Names are paths below the folder given, without ending, what `*`
        is in a pattern, or stems of single files; a file with several images has NAME_000, NAME_001 …. Links that lead
        nowhere are among them, so that they are reported where they are read.

    Raises:
        InputError: nothing there, no images, or two of one name, whose maps would overwrite one another.
    """
    found, left_out, inside = {}, [], Path(os.path.realpath(output))

    def is_inside(path: Path) -> bool:
        is_below = Path(os.path.realpath(path)).is_relative_to(inside)
        if is_below and path.suffix.lower() in ENDINGS:
            left_out.append(path)
        return is_below

    for top in map(Path, given):
        if os.path.realpath(top) == str(inside):
            raise InputError(f'--output={output}: is the folder of the images; name another')
        if not top.exists() and '*' not in str(top):
            raise InputError(f'--images={top}: no such file or folder')
        index = index_of(top, 'images', is_inside)
        for name, path in index.items():
            if name in found:
                raise InputError(f'{path}: {found[name]} has the same name up to the ending; predict them apart')
            found[name] = path
    if not found and left_out:
        raise InputError(f'--output={output}: holds {left_out[0]} and all other images; name a folder without images')
    if not found:
        raise InputError(
            f'--images={given[0]}: no images found; looked for files ending in {", ".join(READABLE)}; '
            f'{describe_content(given[0])}'
        )
    return list(found.items())


def _images(name, path):
    """Returns [(name, path)] of the images of a file."""
    try:
        every = addresses(path)
    except InputError:  # reported when it is read, so that the other files are predicted
        every = [path]
    return [(name if locate(address)[1] is None else f'{name}_{address.name}', address) for address in every]


def index_of(where: str | Path, flag: str, leave_out: Callable[[Path], bool] = lambda path: False) -> dict[str, Path]:
    """Returns {name: address} of the images of a folder or a pattern (see data/patterns.py and formats.py).

    Links that lead nowhere are among them, so that they are reported where they are read; a link with the name of a
    file is only printed.

    Args:
        where: a folder, a pattern or a file.
        flag: what gave it, for the message.
        leave_out: whether a path does not count.

    Raises:
        InputError: no such folder, or two files of one name.
    """
    endings = READABLE if flag == 'images' else (*READABLE, '.npy')
    files = find_files(where, endings, flag=flag, leave_out=leave_out)
    if files.duplicates:
        raise InputError(files.duplicates[0])
    for line in files.loops:
        print(f'warning: {line}', file=sys.stderr)
    for name in files.paths.keys() & files.dangling.keys():
        print(f'warning: {describe_link(files.dangling[name])}', file=sys.stderr)
    index = {}
    for name, path in (one for member in {**files.dangling, **files.paths}.items() for one in _images(*member)):
        if name in index:
            raise InputError(f'{path}: {index[name]} has the same name; rename one')
        index[name] = path
    return index


def map_paths(folder: Path, name: str, classes: int) -> list[Path]:
    """Returns the paths of the maps of one image: `<name>.png`, or `<name>_<class>.png` of several classes."""
    suffixes = [''] if classes == 1 else [f'_{number}' for number in range(1, classes + 1)]
    return [folder / f'{name}{suffix}.png' for suffix in suffixes]
