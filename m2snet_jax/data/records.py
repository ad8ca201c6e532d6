"""Prepared records: what TFDS keeps of one example, how it is written once, and how it is read back.

Records are in the TFDS data folder (`TFDS_DATA_DIR`, by default `~/tensorflow_datasets`), under a builder-config
name that is a hash of their source, so that changed files or splits are never served from old shards.
"""

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from m2snet_jax.data.download import data_dir
from m2snet_jax.data.source import (
    Source,
    decide_reading,
    doubtful_masks,
    foreground_share,
    looks_inverted,
    read_contents,
)
from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import encode_png
from m2snet_jax.images.reading import Reading, from_json
from m2snet_jax.storage import refusal, write_json


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes and reads the records of every dataset, by TFDS.

    Args:
        name: of the dataset, as `data.name`.
        description: of the dataset, the docstring of its file.
        source: what is written, once; its reading is decided.
    """

    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded through TFDS

    def __init__(self, name: str, description: str, source: Source):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  # TFDS declares it for the class
        self._description, self._source = description, source
        self._turned, self._inverted, self._count = [], 0, 0
        config = tfds.core.BuilderConfig(name=source.key, description=source.root)
        super().__init__(config=config, data_dir=str(data_dir()), file_format='array_record')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'name': tfds.features.Text(),
                'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
                'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
                'height': np.int64,
                'width': np.int64,
                'foreground': np.float64,
                'image_sha256': tfds.features.Text(),
                'mask_sha256': tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=self._description, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(members) for split, members in self._source.splits.items()}

    def _generate_examples(self, members):
        scaled = 0
        for key, member in enumerate(members):
            contents = read_contents(member, self._source)
            if contents.faults:
                raise InputError(contents.faults[0])
            scaled += self._source.classes == 1 and any(mask.max() == 1 for mask in contents.stored)
            self._count += 1
            self._turned += [member.name] * contents.turned_apart
            self._inverted += self._source.classes == 1 and looks_inverted(contents.mask)
            yield key, _record(member.name, contents, self._source.classes)
        if scaled:
            logging.info('%d of %d masks hold 0 and 1: read as 0 and 255', scaled, len(members))

    def doubts(self) -> list[str]:
        """Returns a line for each doubt about the masks that were written."""
        return doubtful_masks(self._turned, self._inverted, self._count)


def prepare(name: str, description: str, source: Source) -> Builder:
    """Returns the Builder of a source with its records on disk; writes them when they are not there yet.

    What was decided on the set, its reading, lies beside them (see `reading_of`) and becomes the source's.

    Records appear under their final name only when all are written, so that a half-finished preparation is never
    read as a whole one, and of two processes that prepare at once the slower one takes the other's.

    Args:
        name, description, source: as of a Builder.

    Raises:
        InputError: the first file that cannot be used, or the folder of prepared data cannot be written.
    """

    def build():
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # TFDS warns of configs that are made on the spot, as all of ours are
        try:
            return Builder(name, description, source)
        finally:
            logging.set_verbosity(verbosity)

    builder = build()
    if builder.data_path.exists():
        recorded = reading_of(builder)
        if recorded is None:
            decide_reading(source)
        else:
            source.reading = recorded
        return builder
    decide_reading(source)
    if source.reading.problem:
        raise InputError(source.reading.problem)
    logging.info('Preparing %s in %s', name, builder.data_path)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
            builder.download_and_prepare(file_format='array_record')
    except InputError:
        raise
    except Exception as error:
        if (reason := refusal(error)) is None:
            raise
        if not builder.data_path.exists():
            raise InputError(
                f'{builder.data_path}: prepared data cannot be written ({reason}); '
                'set the environment variable TFDS_DATA_DIR to a folder with space that you can write'
            ) from None
    source.reading = dataclasses.replace(source.reading, notes=(*source.reading.notes, *builder.doubts()))
    with contextlib.suppress(InputError):  # the records of another process, which has written it
        write_json(_reading_path(builder), source.reading.to_json())
    return build()


def reading_of(builder: Builder) -> Reading | None:
    """Returns how the files of prepared records were read, None where it is not recorded."""
    path = _reading_path(builder)
    return from_json(json.loads(path.read_text(encoding='utf-8'))) if path.exists() else None


def _reading_path(builder):
    return Path(builder.data_path) / 'reading.json'


class Examples(Sequence):
    """Random access to one prepared split, or to those of its examples that `indices` names.

    `len(examples)`, and `examples[i]` → dict of name (str), image (uint8 [H, W, 3]) and mask (uint8 [H, W], levels
    0…255, or class indices when there are several classes).
    """

    def __init__(self, builder: Builder, split: str, indices: Sequence[int] | None = None):
        # TFDS wraps the method in a decorator that hides its arguments.
        self._source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        self._indices = range(len(self._source)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._source[self._indices[index]]
        return {
            'name': record['name'].decode(errors='surrogateescape'),
            'image': record['image'],
            'mask': record['mask'][:, :, 0],
        }


def _record(name, contents, classes):
    """Returns one record, {feature: value}."""
    height, width = contents.mask.shape
    image_sha256, mask_sha256 = contents.hashes
    return {
        'name': name.encode(errors='surrogateescape'),
        'image': io.BytesIO(encode_png(contents.image)),
        'mask': io.BytesIO(encode_png(contents.mask)),
        'height': height,
        'width': width,
        'foreground': foreground_share(contents.mask, classes),
        'image_sha256': image_sha256,
        'mask_sha256': mask_sha256,
    }
