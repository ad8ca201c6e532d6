"""Polyps in colonoscopy images: the joint training set and the five test sets of PraNet.

    ROOT/
      TrainDataset/  image(s)/ *.png   mask(s)/ *.png
      TestDataset/   CVC-300, CVC-ClinicDB, CVC-ColonDB, ETIS-LaribPolypDB, Kvasir, each with  images/  masks/

The top folders may be doubled (TrainDataset/TrainDataset/…), as some zip tools leave them; png, jpg, bmp and tif are
read. Train: 1450 images, 900 of Kvasir-SEG and 550 of CVC-ClinicDB. Test: CVC-300 60, CVC-ClinicDB 62, CVC-ColonDB
380, ETIS-LaribPolypDB 196, Kvasir 100. Test sets that are missing are left out.

Source: the split of PraNet (Fan et al., MICCAI 2020), as zip files on Google Drive:
  train  https://drive.google.com/file/d/1lODorfB33jbd-im-qrtUgWnZXxB94F55
  test   https://drive.google.com/file/d/1o8OfBvYE6K-EpDyvzsmMPndnUMwb540R
Licence: Kvasir-SEG is for research and education; the CVC sets and ETIS are for research. See each set's own page.
Traps: masks come from JPEG and are not clean 0/255; CVC-ClinicDB is split by frame, so that frames of one video are
in both halves, which flatters its scores (Kvasir-SEG and CVC-ClinicDB are the two sets seen in training).
"""

import tensorflow_datasets as tfds
from absl import logging

from m2snet_jax.data import files, records
from m2snet_jax.errors import InputError

TRAIN_COUNT = 1450
TEST_COUNTS = {'CVC-300': 60, 'CVC-ClinicDB': 62, 'CVC-ColonDB': 380, 'ETIS-LaribPolypDB': 196, 'Kvasir': 100}


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Polyps in colonoscopy images, PraNet's split."""

    name = 'polyp'
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded through TFDS

    def _info(self):
        return records.info(self)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(pairs) for split, pairs in self.builder_config.splits.items()}

    def _generate_examples(self, pairs):
        return records.records_of(pairs, self.builder_config.classes)


def find(config):
    """Returns the source of a folder in PraNet's layout: its pairs of files by set.

    Raises:
        InputError: naming the folder or file that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: polyps are one class')
    root = files.find_top(
        config.data.root, lambda top: _part(top, 'TrainDataset') or _part(top, 'TestDataset'), __doc__
    )
    train, tests = _part(root, 'TrainDataset'), _part(root, 'TestDataset')
    if train is None:
        raise InputError(f'--config.data.root={root}: TestDataset found, TrainDataset is missing\n\n{__doc__}')
    splits = {'train': _pairs(train, root)}
    for name, count in TEST_COUNTS.items():
        folder = tests and files.child(tests, name)
        if folder is None:
            logging.warning('%s: test set %s (%d images) is missing and left out', root, name, count)
        else:
            splits[name] = _pairs(folder, root)
    if len(splits) == 1:
        raise InputError(
            f'--config.data.root={root}: none of the test sets {", ".join(TEST_COUNTS)} found\n\n{__doc__}'
        )
    for name, count in {'train': TRAIN_COUNT, **TEST_COUNTS}.items():
        if name in splits and len(splits[name]) != count:
            logging.warning('%s: %d images in %s, %d are published', root, len(splits[name]), name, count)
    pairs = [pair for members in splits.values() for pair in members]
    key = files.tree_hash(pairs, root, {name: len(members) for name, members in splits.items()})
    return records.Source(name=key, description=str(root), splits=splits)


def _part(top, name):
    """Returns the folder of one half, whose name may be doubled, or None."""
    part = files.child(top, name)
    return part and (files.child(part, name) or part)


def _pairs(folder, root):
    """Returns the pairs of one set."""
    images, masks = files.child(folder, 'images', 'image'), files.child(folder, 'masks', 'mask')
    if not images or not masks:
        lacking = 'images' if not images else 'masks'
        raise InputError(f'{folder}: no folder {lacking} in it\n\n{__doc__}')
    return files.pairs_in(images, masks, root)
