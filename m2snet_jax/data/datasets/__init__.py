"""The datasets, one TFDS builder a file, and `open_dataset`, which finds and prepares the one of a config."""

import dataclasses
import importlib
import pkgutil

from m2snet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One prepared dataset.

    Attributes:
        train: random access to the training examples: `len()`, and `[i]` → dict of name (str), image (uint8
            [H, W, 3]) and mask (uint8 [H, W]; levels 0…255 for one class, class indices 0…classes for more).
        tests: {name of the test set: the same kind of access}; the one name is 'test' unless the dataset has several.
        manifest: one row an example, {column: str}: split, name, height, width, foreground (share of pixels),
            image_sha256, mask_sha256 (of the files as found, or of the arrays as generated).
        manifest_hash: SHA-256 of the manifest; two datasets with equal hashes have equal files and splits.
    """

    train: object
    tests: dict
    manifest: list
    manifest_hash: str


def open_dataset(config):
    """Finds, checks and prepares (once) the dataset that `config.data` names.

    Raises:
        InputError: nothing usable at `config.data.root`; the message names the folder or the file.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if config.data.name not in names:
        raise InputError(f'--config.data.name={config.data.name}: no such dataset; there are {", ".join(names)}')
    module = importlib.import_module(f'{__name__}.{config.data.name}')
    from m2snet_jax.data import records  # here, because TFDS takes half a second to import

    source = module.find(config)
    builder = records.prepared(module.Builder, source)
    rows, manifest_hash = records.manifest(builder, source.splits)
    examples = {split: records.Examples(builder, split) for split in source.splits}
    return Dataset(examples.pop('train'), examples, rows, manifest_hash)
