"""Maps that any program wrote: finding them and their masks by name, and scoring them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m2snet_jax.config import to_json
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.source import Source
from m2snet_jax.data.pairs import ENDINGS
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.cases import draw_cases
from m2snet_jax.evaluation.image_scores import MaskFile, score_files
from m2snet_jax.evaluation.scores import Scores, summarise
from m2snet_jax.evaluation.sheets import FOLDER
from m2snet_jax.evaluation.test_sets import chosen_sets, with_bar
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.decisions import map_reading, mask_reading
from m2snet_jax.images.formats import read_image
from m2snet_jax.images.reading import UNDECIDED, Reading
from m2snet_jax.metrics.workers import in_processes
from m2snet_jax.prediction.folders import MARK, index_of
from m2snet_jax.storage import versions

Found = dict[str, list[tuple[int, str, list[Path]]]]  # {test set: [(index, name of the image, paths of its maps)]}


def find_maps(
    folder: str | Path, names: Mapping[str, Sequence[str]], classes: int
) -> tuple[Found, dict[str, list[str]], list[str]]:
    """Finds the maps of test sets by name, in `folder/<set>/`, or in `folder` itself where no set has a folder there.

    Args:
        names: {test set: names of its masks}.
        classes: maps of an image; several are `<name>_1`, `<name>_2` ….

    Returns:
        (found, missing, extra): the maps, {test set: names of masks without all maps}, names of files without a mask.

    Raises:
        InputError: no folder, not a single map in it, or a name that two sets share.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'--maps={folder}: no such folder')
    files, by_set = index_of(folder), any((folder / test_set).is_dir() for test_set in names)
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
    """Masks below a folder as a test set, and the images of the same names below another."""

    def __init__(self, folder: str | Path, images: str | Path | None, data: Any):
        for flag, path in (('masks', folder), ('images', images)):
            if path is not None and not Path(path).is_dir():
                raise InputError(f'--{flag}={path}: no such folder')
        self._masks = index_of(Path(folder))
        self._images = {} if images is None else index_of(Path(images))
        self.names = sorted(self._masks)
        if not self.names:
            raise InputError(f'--masks={folder}: no images found; looked for files ending in {", ".join(ENDINGS)}')
        colors = parse_colors(data.colors, data.classes)
        reading = mask_reading(list(self._masks.values()), data.classes, colors)
        if reading.problem:
            raise InputError(reading.problem)
        self.source = Source('', str(folder), {}, data.classes, colors=colors, reading=reading)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = read_image(self._images[name]) if name in self._images else None
        return {'name': name, 'mask': MaskFile(self._masks[name], self.source), 'image': image}


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
        folder: of maps, see `find_maps`.
        config: whose test sets have the masks, unless `masks` is given.
        output: gets `scores/cases/`.
        sets: names of some test sets, by default all.
        masks, images: folders of masks, in place of the config's, and of their images, for the report.

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
    reading = map_reading(paths, is_own=(Path(folder) / MARK).exists())
    notes = [*reading.notes, *(test.source.reading.notes if masks is not None else ())]
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    scores, unreadable = score_maps_on_disk(found, tests, config, output, about, reading, notes)
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
    """Returns the scores of the maps found, and a line for each file that cannot be used.

    `tests[test_set][index]` is a dict of mask, an array or a MaskFile, and image or None; `reading` is that of the maps,
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
    cases = {test_set: draw_cases(test_set, rows, tests[test_set], folder, reading) for test_set, rows in results.items()}
    return summarise(results, config, cases, about, notes), faults
