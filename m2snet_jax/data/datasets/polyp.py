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

from m2snet_jax.data import download, files, records
from m2snet_jax.errors import InputError

COUNTS = {
    'train': 1450,
    'CVC-300': 60,
    'CVC-ClinicDB': 62,
    'CVC-ColonDB': 380,
    'ETIS-LaribPolypDB': 196,
    'Kvasir': 100,
}
ARCHIVES = {  # folder: id on Google Drive
    'TrainDataset': '1lODorfB33jbd-im-qrtUgWnZXxB94F55',
    'TestDataset': '1o8OfBvYE6K-EpDyvzsmMPndnUMwb540R',
}


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
        return records.records_of(pairs, self.builder_config)


def find(config):
    """Returns the source of a folder in PraNet's layout: its pairs of files by set.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: polyps are one class')

    def is_top(folder):
        return files.part(folder, 'TrainDataset') or files.part(folder, 'TestDataset')

    given = config.data.root or download.fetch('polyp', ARCHIVES, __doc__)
    root = files.find_top(given, is_top, __doc__)
    train, tests = files.part(root, 'TrainDataset'), files.part(root, 'TestDataset')
    if train is None:
        raise InputError(f'--config.data.root={root}: TestDataset found, TrainDataset is missing\n\n{__doc__}')
    folders = {'train': train, **{name: tests and files.child(tests, name) for name in COUNTS if name != 'train'}}
    splits, problems, warnings = {}, [], []
    for name, folder in folders.items():
        if folder is None:
            warnings.append(f'{root}: test set {name} ({COUNTS[name]} images) is missing and left out')
        else:
            images, masks = files.image_and_mask_folders(folder, ('images', 'image'), ('masks', 'mask'), __doc__)
            splits[name] = files.pairs_in(images, masks, root, problems)
    if len(splits) == 1:
        sets = ', '.join(name for name in COUNTS if name != 'train')
        raise InputError(f'--config.data.root={root}: none of the test sets {sets} found\n\n{__doc__}')
    return records.source_of(root, splits, published=COUNTS, problems=problems, warnings=warnings)
