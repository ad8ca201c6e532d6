"""Prepared records: what TFDS keeps of one example, how it is written once, and how it is read back.

Records lie in the TFDS data folder (`TFDS_DATA_DIR`, by default `~/tensorflow_datasets`), under a builder-config
name that is a hash of their source, so that changed files or splits are never served from old shards.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from m2snet_jax.errors import InputError
from m2snet_jax.images import encode_png, read_image, read_mask

COLUMNS = ('split', 'name', 'height', 'width', 'foreground', 'image_sha256', 'mask_sha256')  # of a manifest


@dataclasses.dataclass(eq=False)
class Source(tfds.core.BuilderConfig):
    """What a builder prepares, with `name` the hash of it.

    Attributes:
        splits: {split: what the builder makes its examples from}; 'train' and the test sets.
        classes: foreground classes of the masks.
    """

    splits: dict = dataclasses.field(default_factory=dict)
    classes: int = 1


class Examples:
    """Random access to one prepared split.

    `len(examples)`, and `examples[i]` → dict of name (str), image (uint8 [H, W, 3]) and mask (uint8 [H, W], levels
    0…255, or class indices when there are several classes).
    """

    def __init__(self, builder, split):
        self._source = builder.as_data_source(split)

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        record = self._source[index]
        return {'name': record['name'].decode(), 'image': record['image'], 'mask': record['mask'][:, :, 0]}


def info(builder):
    """Returns the DatasetInfo of every builder of this package: documentation and record layout."""
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
        builder=builder, description=builder.__doc__ or '', features=features, disable_shuffling=True
    )


def record(name, image, mask, classes, image_sha256, mask_sha256):
    """Returns one record from uint8 [H, W, 3] and uint8 [H, W]."""
    height, width = mask.shape
    threshold = mask.max() / 2 if classes == 1 else 0
    return {
        'name': name,
        'image': io.BytesIO(encode_png(image)),
        'mask': io.BytesIO(encode_png(mask)),
        'height': height,
        'width': width,
        'foreground': float(np.mean(mask > threshold)),
        'image_sha256': image_sha256,
        'mask_sha256': mask_sha256,
    }


def records_of(pairs, classes):
    """Yields (key, record) of the pairs of files, in their order.

    Raises:
        InputError: the first file that is unreadable, of another size than its partner, or holds wrong values.
    """
    scaled = 0
    for key, pair in enumerate(pairs):
        image, mask = read_pair(pair)
        levels = mask_levels(mask, classes, pair.mask)
        scaled += classes == 1 and levels is not mask
        yield key, record(pair.name, image, levels, classes, _sha256(pair.image), _sha256(pair.mask))
    if scaled:
        logging.info('%d of %d masks hold 0 and 1: read as 0 and 255', scaled, len(pairs))


def read_pair(pair):
    """Reads an image and its mask, uint8 [H, W, 3] and uint8 [H, W], and compares their sizes."""
    image, mask = read_image(pair.image), read_mask(pair.mask)
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise InputError(
            f'{pair.mask}: {mask_width}x{mask_height} pixels, but its image {pair.image} has {width}x{height}; '
            'give both the same size'
        )
    return image, mask


def mask_levels(mask, classes, path):
    """Returns a mask's levels 0…255 when there is one class, else its class indices, checked.

    Args:
        mask: uint8 [H, W] as stored in the file.
        classes: foreground classes.
        path: the file, for the message.
    """
    highest = int(mask.max())
    if classes > 1:
        if highest > classes:
            wrong = int(mask[mask > classes].min())
            raise InputError(
                f'{path}: value {wrong} found, but data.classes={classes} knows 0 (background) to {classes}: '
                'classes mismatch; correct the mask or data.classes'
            )
        return mask
    if highest == 1:
        return mask * np.uint8(255)
    if 1 < highest < 128:
        values = np.unique(mask)
        shown = ', '.join(map(str, values[:5])) + (', …' if len(values) > 5 else '')
        raise InputError(
            f'{path}: values {shown} found, neither 0/1 nor 0/255: for class indices set '
            f'--config.data.classes={highest}, else store 0/255'
        )
    return mask


def prepared(builder_class, source):
    """Returns the builder with its records on disk; writes them when they are not there yet.

    Records appear under their final name only when all are written, so a half-finished preparation never passes for a
    whole one, and of two processes that prepare at once the slower one takes the other's.
    """

    def build():
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # TFDS warns of configs that are made on the spot, as all of ours are
        try:
            return builder_class(config=source, data_dir=os.environ.get('TFDS_DATA_DIR'), file_format='array_record')
        finally:
            logging.set_verbosity(verbosity)

    builder = build()
    if builder.data_path.exists():
        return builder
    logging.info('Preparing %s in %s', builder.name, builder.data_path)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
            builder.download_and_prepare(file_format='array_record')
    except OSError as error:
        if not builder.data_path.exists():
            raise InputError(
                f'{builder.data_path}: prepared data cannot be written ({error.strerror or error}); '
                'set the environment variable TFDS_DATA_DIR to a folder with space that you can write'
            ) from None
    return build()


def manifest(builder, splits):
    """Returns the rows of a prepared dataset, {column: str} after `COLUMNS`, and the one hash of them all.

    They are kept in `manifest.csv` beside the records where that folder can be written.
    """
    path = Path(builder.data_path) / 'manifest.csv'
    if not path.exists():
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(row for split in splits for row in _rows(builder, split))
        text = table.getvalue()
        with contextlib.suppress(OSError):  # another user's records can be read all the same
            temporary = path.with_name(f'.{path.name}.{os.getpid()}')
            temporary.write_text(text, encoding='utf-8')
            os.replace(temporary, path)
    else:
        text = path.read_text(encoding='utf-8')
    return list(csv.DictReader(io.StringIO(text))), hashlib.sha256(text.encode()).hexdigest()


def _rows(builder, split):
    """Yields the manifest's rows of one split, without decoding any image."""
    encoded = {'image': tfds.decode.SkipDecoding(), 'mask': tfds.decode.SkipDecoding()}
    for example in builder.as_data_source(split, decoders=encoded):
        yield {
            'split': split,
            'name': example['name'].decode(),
            'height': int(example['height']),
            'width': int(example['width']),
            'foreground': f'{example["foreground"]:.6f}',
            'image_sha256': example['image_sha256'].decode(),
            'mask_sha256': example['mask_sha256'].decode(),
        }


def _sha256(path):
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
