"""The datasets, one `find(config)` a file, and `open_dataset`, which finds and prepares the one of a config."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import logging

from m2snet_jax.data.source import Source, apply_keys, read_pair
from m2snet_jax.errors import InputError
from m2snet_jax.images.reading import UNDECIDED, Reading
from m2snet_jax.storage import local_path


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One prepared dataset.

    Attributes:
        train: random access to the training examples: `len()`, and `[i]` → dict of name (str), image (uint8
            [H, W, 3]) and mask (uint8 [H, W]; levels 0…255 for one class, class indices 0…classes for more).
        validation: the same for the examples that `data.validation` holds out, None without it.
        tests: {name of the test set: the same kind of access}; the one name is 'test' unless the dataset has several.
            Empty where a dataset has no test masks.
        manifest: one row an example in use, {column: str}: split, name, height, width, foreground (share of pixels),
            image_sha256, mask_sha256 (of the files as found, or of the arrays as generated).
        manifest_hash: SHA-256 of the manifest; two datasets with equal hashes have equal files and splits.
        manifest_path: where the manifest of all prepared records lies.
        reading: how the files were read, decided on all of them.
    """

    train: Sequence
    validation: Sequence | None
    tests: dict[str, Sequence]
    manifest: list[dict[str, str]]
    manifest_hash: str
    manifest_path: Path
    reading: Reading = UNDECIDED


def open_dataset(config: Any, counted: Callable[[int], Any] = lambda count: None) -> Dataset:
    """Finds, checks and prepares (once) the dataset that `config.data` names.

    `counted` is called with the number of training images before the images are prepared.

    Raises:
        InputError: nothing usable at `config.data.root`; the message names the folder or the file.
    """
    from m2snet_jax.data import manifest, records, splits  # here, because TFDS takes half a second to import

    module, source, used = _find(config)
    counted(_count(used))
    builder = records.prepare(config.data.name, module.__doc__ or '', source)
    for note in source.reading.notes:
        logging.warning(note)
    rows, examples = manifest.manifest_of(builder, source.splits), {}
    for row, split in zip(rows, (split for members in used.values() for split in members), strict=True):
        row['split'] = split
    rows = [row for row in rows if row['split'] != splits.EXCLUDED]
    for stored, members in used.items():
        for split in dict.fromkeys(members):
            indices = [index for index, member in enumerate(members) if member == split]
            examples[split] = records.Examples(builder, stored, indices)
    return Dataset(
        examples.pop('train'),
        examples.pop(splits.VALIDATION, None),
        {split: examples[split] for split in source.splits if split != 'train'},
        rows,
        manifest.hash_of(rows),
        manifest.manifest_path(builder),
        source.reading,
    )


def count_training(config: Any) -> int:
    """Returns the number of training images, of which nothing is prepared; raises as `open_dataset`."""
    return _count(_find(config)[2])


def _find(config):
    """Returns the module of a config's dataset, its source, and {stored split: the split of each example}."""
    module = module_of(config)
    from m2snet_jax.data import splits

    source = module.find(config)
    apply_keys(source, config.data)
    if source.problems or source.split_problems:
        raise InputError(_first_problem(source))
    for warning in warnings_of(source):
        logging.warning(warning)
    return module, source, splits.assign_splits(source, config)


def _count(used):
    """Returns the number of training examples of the splits that `_find` returns."""
    return sum(members.count('train') for members in used.values())


def module_of(config: Any) -> ModuleType:
    """Returns the module of the dataset that `config.data.name` names; it has `find(config)`, whose files are fetched.

    A module that reads `data.fold` has HAS_FOLDS = True.

    Raises:
        InputError: there is none, or it has a layout or a split of its own and the config names another.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if config.data.name not in names:
        raise InputError(f'--config.data.name={config.data.name}: no such dataset; there are {", ".join(names)}')
    for key in ('images', 'masks'):
        if config.data[key] is not None and config.data.name != 'folder':
            raise InputError(
                f'--config.data.{key}={config.data[key]}: {config.data.name} has a layout of its own; set '
                '--config.data.name=folder'
            )
    module = importlib.import_module(f'{__name__}.{config.data.name}')
    for key in ('fold', 'folds_file'):
        if config.data[key] is not None and not getattr(module, 'HAS_FOLDS', False):
            raise InputError(
                f'--config.data.{key}={config.data[key]}: {config.data.name} has a split of its own and no folds; set '
                f'--config.data.{key}=none'
            )
    for key in ('root', 'images', 'masks', 'folds_file', 'exclude'):
        if config.data.get(key) is not None:
            local_path(config.data[key], f'--config.data.{key}')  # fetches what lies in a bucket
    return module


def warnings_of(source: Source) -> list[str]:
    """Returns a source's warnings and a line for each split whose count is not the published one."""
    counts = {split: len(source.splits[split]) for split in source.published if split in source.splits}
    return source.warnings + [
        f'{source.root}: {count} images in {split}, {source.published[split]} are published'
        for split, count in counts.items()
        if count != source.published[split]
    ]


def _first_problem(source):
    """Returns the first problem as text: files without partner, then unreadable files, then lists of splits."""
    count = len(source.problems) + len(source.split_problems)
    more = f' ({count - 1} more; the command validate lists them all)' if count > 1 else ''
    if source.problems:
        return source.problems[0] + more
    for members in source.splits.values():
        for pair in members:
            faults = read_pair(pair, source)[2]
            if faults:
                return faults[0]
    return source.split_problems[0] + more
