"""Maps that any program wrote: finding them and their masks by name, and scoring them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m2snet_jax.config import to_json
from m2snet_jax.data.affixes import match_names
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.pairs import join_names
from m2snet_jax.data.patterns import describe_content, top_folder
from m2snet_jax.data.source import Source
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.cases import draw_cases
from m2snet_jax.evaluation.image_scores import MaskFile, score_files
from m2snet_jax.evaluation.scores import Scores, summarise
from m2snet_jax.evaluation.sheets import FOLDER
from m2snet_jax.evaluation.test_sets import chosen_sets, with_bar
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.decisions import image_reading, map_reading, mask_reading
from m2snet_jax.images.formats import locate, read_image, reader_of, split_name
from m2snet_jax.images.reading import UNDECIDED, Reading, joined
from m2snet_jax.metrics.workers import in_processes
from m2snet_jax.prediction.folders import MARK, READABLE, index_of
from m2snet_jax.storage import versions

Found = dict[str, list[tuple[int, str, list[Path]]]]  # {test set: [(index, name of the image, paths of its maps)]}


def find_maps(
    folder: str | Path, names: Mapping[str, Sequence[str]], classes: int
) -> tuple[Found, dict[str, list[str]], list[str]]:
    """Finds the maps of test sets by name, in `folder/<set>/`, or in `folder` itself where no set has a folder there.

    Names are equal, or differ in what all maps or all masks share (see data/affixes.py), which is printed once.

    Args:
        folder: a folder, a pattern or a file (see data/patterns.py).
        names: {test set: names of its masks}.
        classes: maps of an image; several are `<name>_1`, `<name>_2` ….

    Returns:
        (found, missing, extra): the maps, {test set: names of masks without all maps}, names of files without a mask.

    Raises:
        InputError: no folder, not a single map in it, or a name that two sets share.
    """
    files = _with_raw_volumes(index_of(folder, 'maps'))
    by_set = any(name.startswith(f'{test_set}/') for name in files for test_set in names)
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
        maps = _complete_maps(files, f'{test_set}/' if by_set else '', classes)
        partners, lines = match_names(members, maps, ('masks', 'maps'))
        for line in lines:
            print(f'{folder}: {line}', file=sys.stderr)
        for index, name in enumerate(members):
            if name in partners:
                keys = maps[partners[name]]
                found[test_set].append((index, name, [files[key] for key in keys]))
                used.update(keys)
            else:
                missing.setdefault(test_set, []).append(name)
    if not used:
        wanted = [name for members in names.values() for name in members]
        raise InputError(
            f'--maps={folder}: no map has the name of a mask, as {join_names(map(repr, wanted), 3)}; {len(files)} '
            f'images found ({join_names(map(repr, files), 3)})'
        )
    return found, missing, sorted(set(files) - used)


def _with_raw_volumes(files):
    """Returns {name: path} with the probabilities NAME_raw.nii.gz of `predict` in place of the mask that was cut."""
    raw = {}
    for name, path in files.items():
        file, number = locate(path)
        base = name.removesuffix(f'_{path.name}')
        if number is not None and base.endswith('_raw') and split_name(file)[0].endswith('_raw'):
            raw[name] = f'{base.removesuffix("_raw")}_{path.name}'
    raw = {name: cut for name, cut in raw.items() if cut in files}
    others = {name: path for name, path in files.items() if name not in raw}
    return others | {cut: files[name] for name, cut in raw.items()}


def _complete_maps(files, prefix, classes):
    """Returns {name of an image: names of its maps} where all classes have one; `prefix` is that of its set.

    A volume and an array hold the maps of all classes in one file.
    """
    names = [name.removeprefix(prefix) for name in files if name.startswith(prefix)]
    if classes == 1:
        return {name: [prefix + name] for name in names}
    images = [name.removesuffix('_1') for name in names if name.endswith('_1')]
    maps = {image: [f'{prefix}{image}_{number}' for number in range(1, classes + 1)] for image in images}
    maps = {image: keys for image, keys in maps.items() if all(key in files for key in keys)}
    whole = [name for name in names if reader_of(files[prefix + name]) or files[prefix + name].suffix.lower() == '.npy']
    return {**{name: [prefix + name] for name in whole}, **maps}


class MaskFolder:
    """Masks of a folder or a pattern as a test set, and the images of the same names of another."""

    def __init__(self, folder: str | Path, images: str | Path | None, data: Any):
        self._masks = index_of(folder, 'masks')
        self._images = {} if images is None else index_of(images, 'images')
        self._image_of, _ = match_names(self._masks, self._images, ('masks', 'images'))
        self.names = sorted(self._masks)
        if not self.names:
            raise InputError(
                f'--masks={folder}: no images found; looked for files ending in {", ".join(READABLE)}; '
                f'{describe_content(folder)}'
            )
        colors = parse_colors(data.colors, data.classes)
        reading = mask_reading(list(self._masks.values()), data.classes, colors)
        if reading.problem:
            raise InputError(reading.problem)
        images_read = image_reading(list(self._images.values()), data.window)
        reading = joined([images_read, reading])
        self.source = Source('', str(folder), {}, data.classes, None, data.window, colors, reading)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = self._image(name) if name in self._image_of else None
        return {'name': name, 'mask': MaskFile(self._masks[name], self.source), 'image': image}

    def _image(self, name):
        return read_image(self._images[self._image_of[name]], self.source.window, self.source.reading)


def evaluate_maps(
    folder: str | Path,
    config: Any,
    output: str | Path,
    sets: Sequence[str] | None = None,
    masks: str | Path | None = None,
    images: str | Path | None = None,
) -> tuple[Scores, list[str]]:
    """Scores the maps in a folder, whichever program wrote them.

    Args:
        folder: folder or pattern of maps, see `find_maps`.
        config: whose test sets have the masks, unless `masks` is given.
        output: gets `scores/cases/`.
        sets: names of some test sets, by default all.
        masks, images: folders or patterns of masks, in place of the config's, and of their images, for the report.

    Returns:
        The scores, and a line for the missing maps of each set and for each that is unreadable.

    Raises:
        InputError: no masks, or not a single map.
    """
    if masks is not None:
        test = MaskFolder(masks, images, config.data)
        tests, names, about = {'test': test}, {'test': test.names}, {'config': None, 'masks': masks}
    else:
        dataset = chosen_sets(open_dataset(config), sets)
        tests = dataset.tests
        names = {test_set: [row['name'] for row in dataset.manifest if row['split'] == test_set] for test_set in tests}
        about = {'config': to_json(config), 'manifest_hash': dataset.manifest_hash}
    found, missing, extra = find_maps(folder, names, config.data.classes)
    if extra:
        shown = ', '.join(extra[:8]) + (', …' if len(extra) > 8 else '')
        print(f'warning: {folder}: {len(extra)} files belong to no mask and are left out: {shown}', file=sys.stderr)
    about |= {'maps': str(folder), 'missing': missing, 'extra': len(extra), 'versions': versions()}
    faults = [
        f'{folder}: {len(absent)} of {len(names[test_set])} maps of {test_set} are missing: {", ".join(absent)}'
        for test_set, absent in missing.items()
    ]
    paths = [path for members in found.values() for _, _, files in members for path in files]
    reading = map_reading(paths, is_own=(top_folder(folder) / MARK).exists())
    notes = [*reading.notes, *(test.source.reading.notes if masks is not None else ())]
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    scores, unreadable = score_maps_on_disk(found, tests, config, output, about, reading, notes)
    if masks is not None:  # they need not be those of the config, whose published figures these are
        scores.summary.pop('published', None)
    return scores, faults + unreadable


def score_maps_on_disk(
    found: Found,
    tests: Mapping[str, Any],
    config: Any,
    output: str | Path,
    about: dict[str, Any],
    reading: Reading = UNDECIDED,
    notes: Sequence[str] = (),
) -> tuple[Scores, list[str]]:
    """Returns the scores of the maps found, and a line for each file that cannot be used, also a warning of the scores.

    `tests[test_set][index]` is a dict of mask, an array or a MaskFile, and image or None; `reading` is that of the maps
    and `notes` are lines for the score sheet.

    Raises:
        InputError: not a single map can be scored.
    """
    results, faults, classes = {}, [], config.data.classes
    for test_set, members in found.items():
        jobs = ((paths, tests[test_set][index]['mask'], classes, reading) for index, _, paths in members)
        images = with_bar(in_processes(score_files, jobs, len(members)), len(members), test_set)
        results[test_set] = []
        for member, image in zip(members, images, strict=True):
            if 'fault' in image:
                faults.append(image['fault'])
            else:
                results[test_set].append((*member, image))
    results = {test_set: rows for test_set, rows in results.items() if rows}
    if not results:
        more = f' ({len(faults) - 1} more)' if len(faults) > 1 else ''
        raise InputError(f'{faults[0]}{more}')
    folder = Path(output) / FOLDER / 'cases'
    cases = {
        test_set: draw_cases(test_set, rows, tests[test_set], folder, reading) for test_set, rows in results.items()
    }
    warnings = [*notes, *(f'not in these scores: {fault}' for fault in faults)]
    return summarise(results, config, cases, about, warnings), faults
