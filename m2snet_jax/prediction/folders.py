"""Folders of images in, folders of maps out: finds the images and predicts a few at a time; one model a folder."""

import concurrent.futures
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from m2snet_jax.data.pairs import ENDINGS
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import CLINICAL_ENDINGS, addresses, load_image, locate, split_name
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
    """
    left = [series for series in group_series(images) if not writer.is_done(series)]
    todo = [(series, name, path) for series in left for name, path in series.images]
    done, faults = 0, []
    with tqdm(total=len(todo), unit='image', disable=None, file=sys.stderr) as bar:
        predicted = _predicted(predictor, todo, batch, faults, bar)
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


def _predicted(predictor, images, batch, faults, bar):
    """Yields (series, name, pixels, probability) of [(series, name, path)] in order, None for what cannot be read.

    The next images are read while the network runs on the last ones.
    """
    with concurrent.futures.ThreadPoolExecutor(min(batch, os.cpu_count() or 1)) as threads:
        remaining = iter(images)
        pieces = iter(lambda: list(itertools.islice(remaining, batch)), [])
        ahead = []
        for piece in itertools.chain(pieces, [[]]):
            reading = [
                (*image, threads.submit(load_image, image[-1], predictor.window, predictor.reading)) for image in piece
            ]
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
            probabilities = dict(zip(pixels_of, predictor.probabilities(list(pixels_of.values())), strict=True))
            for series, name, _, _ in for_now:
                yield series, name, pixels_of.get(name), probabilities.get(name)
            bar.update(len(for_now))


READABLE = (*ENDINGS, '.webp', '.gif', '.ppm', '.pgm', '.jp2', *CLINICAL_ENDINGS)

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
            changed = [key for key in {**before, **about} if before.get(key) != about.get(key)]
            if changed:
                raise InputError(
                    f'{folder}: holds maps written with another {", ".join(changed)}; name another --output, or '
                    'remove that folder'
                )
            return
        if folder.is_dir() and (strange := index_of(folder)):
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
        given: files and folders; in a folder, files are found by their ending, hidden ones left out.
        output: folder of the maps, which is not searched.

    Returns:
        (name, address) of each image (see formats.py). Names are paths below the folder given, without ending, or
        stems of single files; a file with several images has NAME_000, NAME_001 ….

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
    except InputError:  # reported when it is read, so that the other files are predicted
        every = [path]
    return [(name if locate(address)[1] is None else f'{name}_{address.name}', address) for address in every]


def index_of(folder: Path) -> dict[str, Path]:
    """Returns {path below the folder without its ending: path} of all images; hidden files are left out."""
    files = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() in ENDINGS and not path.name.startswith('.') and path.is_file():
            key = path.relative_to(folder).with_suffix('').as_posix()
            if key in files:
                raise InputError(f'{path}: {files[key].name} has the same name up to the ending; keep one')
            files[key] = path
    return files


def map_paths(folder: Path, name: str, classes: int) -> list[Path]:
    """Returns the paths of the maps of one image: `<name>.png`, or `<name>_<class>.png` of several classes."""
    suffixes = [''] if classes == 1 else [f'_{number}' for number in range(1, classes + 1)]
    return [folder / f'{name}{suffix}.png' for suffix in suffixes]
