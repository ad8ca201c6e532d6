"""Prepared records: what TFDS keeps of one example, how it is written once, and how it is read back.

Records lie in the TFDS data folder (`TFDS_DATA_DIR`, by default `~/tensorflow_datasets`), under a builder-config
name that is a hash of their source, so that changed files or splits are never served from old shards.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import sys

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from m2snet_jax.data import files
from m2snet_jax.errors import InputError
from m2snet_jax.images import encode_png, locate, read_image, read_mask


@dataclasses.dataclass(eq=False)
class Source(tfds.core.BuilderConfig):
    """What a builder prepares, with `name` the hash of it.

    Attributes:
        splits: {split: what the builder makes its examples from, each with a `name`}; 'train' and the test sets.
        classes: foreground classes of the masks.
        values: {level in the mask files: class index} where files hold levels in place of class indices.
        window: of images of more than 8 bits, as `data.window`.
        folds: {name: fold} where folds are in use.
        published: {split: count of images as published}.
        problems: a line for each file that cannot be used because of what lies beside it, as one without partner.
        split_problems: a line for each fault of the lists that say which image is in which split.
        warnings: a line for each thing that is worth knowing and no fault.
    """

    splits: dict = dataclasses.field(default_factory=dict)
    classes: int = 1
    values: dict | None = None
    window: str | None = None
    folds: dict = dataclasses.field(default_factory=dict)
    published: dict = dataclasses.field(default_factory=dict)
    problems: list = dataclasses.field(default_factory=list)
    split_problems: list = dataclasses.field(default_factory=list)
    warnings: list = dataclasses.field(default_factory=list)


def source_of(root, splits, **attributes):
    """Returns the Source of the pairs of files below `root`, {split: pairs}; see there for further attributes."""
    pairs = [pair for members in splits.values() for pair in members]
    names = {split: [pair.name for pair in members] for split, members in splits.items()}
    shaping = {key: attributes.get(key) for key in ('classes', 'values', 'window')}
    key = files.tree_hash(pairs, root, names, shaping)
    return Source(name=key, description=str(root), splits=splits, **attributes)


class Examples:
    """Random access to one prepared split, or to those of its examples that `indices` names.

    `len(examples)`, and `examples[i]` → dict of name (str), image (uint8 [H, W, 3]) and mask (uint8 [H, W], levels
    0…255, or class indices when there are several classes).
    """

    def __init__(self, builder, split, indices=None):
        self._source = builder.as_data_source(split)
        self._indices = range(len(self._source)) if indices is None else indices

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        record = self._source[self._indices[index]]
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
    return {
        'name': name,
        'image': io.BytesIO(encode_png(image)),
        'mask': io.BytesIO(encode_png(mask)),
        'height': height,
        'width': width,
        'foreground': foreground_share(mask, classes),
        'image_sha256': image_sha256,
        'mask_sha256': mask_sha256,
    }


def foreground_share(mask, classes):
    """Returns the share of the pixels of a mask that are foreground: above half of its highest level, or any class."""
    return float(np.mean(mask > (mask.max() / 2 if classes == 1 else 0)))


def records_of(pairs, source):
    """Yields (key, record) of the pairs of files, in their order.

    Raises:
        InputError: the first file that is unreadable, of another size than its partner, or holds wrong values.
    """
    scaled = 0
    for key, pair in enumerate(pairs):
        image, masks, faults = read_pair(pair, source.window)
        if faults:
            raise InputError(faults[0])
        levels = [mask_levels(mask, path, source) for mask, path in zip(masks, pair.masks, strict=True)]
        scaled += source.classes == 1 and any(mask.max() == 1 for mask in masks)
        hashes = sha256(pair.image), sha256(*pair.masks)
        yield key, record(pair.name, image, np.maximum.reduce(levels), source.classes, *hashes)
    if scaled:
        logging.info('%d of %d masks hold 0 and 1: read as 0 and 255', scaled, len(pairs))


def read_pair(pair, window=None):
    """Reads an image, through a window where it needs one, and its masks and compares their sizes.

    Returns:
        (image, masks, faults): uint8 [H, W, 3] or None, a uint8 [H, W] or None for each mask as it is stored, and a
        line for each file that is unreadable or of the wrong size.
    """
    faults = []

    def read(function, *arguments):
        try:
            return function(*arguments)
        except InputError as error:
            faults.append(str(error))

    image, masks = read(read_image, pair.image, window), [read(read_mask, path) for path in pair.masks]
    for mask, path in zip(masks, pair.masks, strict=True):
        if image is not None and mask is not None and image.shape[:2] != mask.shape:
            (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
            faults.append(
                f'{path}: {mask_width}x{mask_height} pixels, but its image {pair.image} has {width}x{height}; '
                'give both the same size'
            )
    return image, masks, faults


def mask_levels(mask, path, source):
    """Returns a mask's levels 0…255 when there is one class, else its class indices, checked.

    Args:
        mask: uint8 [H, W] as stored in the file.
        path: the file, for the message.
        source: whose `classes` and `values` say how masks are stored.
    """
    if source.values:
        unknown = ~np.isin(mask, list(source.values))
        if unknown.any():
            known = ', '.join(map(str, sorted(source.values)))
            raise InputError(f'{path}: value {mask[unknown].min()} found, masks of this set hold {known}; correct it')
        indices = np.zeros(256, np.uint8)
        for value, index in source.values.items():
            indices[value] = index
        return indices[mask]
    highest, classes = int(mask.max()), source.classes
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


def sha256(*paths):
    """Returns the SHA-256 of a file, or of several one after the other; of a slice, of its file's and its number."""
    digest = hashlib.sha256()
    for path in paths:
        file, number = locate(path)
        if number is None:
            digest.update(file.read_bytes())
        else:
            digest.update(f'{_sha256_of_volume(file, file.stat().st_mtime_ns)}/{number}'.encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def _sha256_of_volume(path, modified):
    """Returns the SHA-256 of a file that was modified at that time, once for all of its slices."""
    return sha256(path)
