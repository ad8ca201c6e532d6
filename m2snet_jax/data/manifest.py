"""The manifest of a dataset: one row an example, and one hash that identifies data and split in every score sheet."""

import contextlib
import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import tensorflow_datasets as tfds

from m2snet_jax.errors import InputError
from m2snet_jax.storage import write

COLUMNS = ('split', 'name', 'height', 'width', 'foreground', 'image_sha256', 'mask_sha256')


def manifest_of(builder: tfds.core.DatasetBuilder, splits: Iterable[str]) -> list[dict[str, str]]:
    """Returns the rows of all prepared splits, {column: str} after `COLUMNS`.

    They are kept in `manifest.csv` beside the records where that folder can be written.
    """
    path = manifest_path(builder)
    if path.exists():
        text = path.read_text(encoding='utf-8', errors='surrogateescape')
    else:
        text = to_csv(row for split in splits for row in _rows(builder, split))
        with contextlib.suppress(InputError):  # another user's records can be read all the same
            write(path, text)
    return list(csv.DictReader(io.StringIO(text)))


def manifest_path(builder: tfds.core.DatasetBuilder) -> Path:
    """Returns the path of the manifest of prepared records."""
    return Path(builder.data_path) / 'manifest.csv'


def to_csv(rows: Iterable[dict]) -> str:
    """Returns rows as the text of a CSV file."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def hash_of(rows: Iterable[dict]) -> str:
    """Returns the SHA-256 of rows: two datasets with equal hashes have equal files and splits."""
    return hashlib.sha256(to_csv(rows).encode(errors='surrogateescape')).hexdigest()


def _rows(builder, split):
    """Yields the manifest's rows of one split, without decoding any image."""
    encoded = {'image': tfds.decode.SkipDecoding(), 'mask': tfds.decode.SkipDecoding()}
    for example in builder.as_data_source(split, decoders=encoded):
        yield {
            'split': split,
            'name': example['name'].decode(errors='surrogateescape'),  # of file names that are not UTF-8
            'height': int(example['height']),
            'width': int(example['width']),
            'foreground': f'{example["foreground"]:.6f}',
            'image_sha256': example['image_sha256'].decode(),
            'mask_sha256': example['mask_sha256'].decode(),
        }
