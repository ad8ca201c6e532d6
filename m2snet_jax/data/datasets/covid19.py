"""Lung infection of COVID-19 in slices of computed tomography, as the authors of M2SNet split it.

    ROOT/
      train/  images/ *.jpg   masks/ *.png
      test/   images/ *.jpg   masks/ *.png

The folders may be doubled (train/train/…) as some zip tools leave them; png, jpg, bmp and tif are read. 1277 slices:
every third of the 20 volumes of the COVID-19 CT segmentation set (1178) and 99 single ones. Train: 894. Test: 383.

Source: https://github.com/Xiaoqi-Zhao-DLUT/MSNet-M2SNet, as zip files on Google Drive:
  train  https://drive.google.com/file/d/1FHx0Cqkq9iYjEMN3Ldm9FnZ4Vr1u3p-j
  test   https://drive.google.com/file/d/1ufi73f_rhq15DElN_gJTO1tTFtUmqDsB
Licence: none is given with the files; that of the slices is their publishers'. For research only.
Traps: the split is by slice, and all 20 volumes are in both halves: the test measures slices between those seen in
training, not new patients. Many masks are empty, which scores treat in ways of their own.
"""

import tensorflow_datasets as tfds

from m2snet_jax.data import download, files, records
from m2snet_jax.errors import InputError

COUNTS = {'train': 894, 'test': 383}
ARCHIVES = {  # folder: id on Google Drive
    'train': '1FHx0Cqkq9iYjEMN3Ldm9FnZ4Vr1u3p-j',
    'test': '1ufi73f_rhq15DElN_gJTO1tTFtUmqDsB',
}


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Lung infection of COVID-19 in slices of computed tomography."""

    name = 'covid19'
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded through TFDS

    def _info(self):
        return records.info(self)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(pairs) for split, pairs in self.builder_config.splits.items()}

    def _generate_examples(self, pairs):
        return records.records_of(pairs, self.builder_config)


def find(config):
    """Returns the source of a folder in the layout above: its pairs of files.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: infection is one class')

    def is_top(folder):
        return all(files.part(folder, split) for split in COUNTS)

    given = config.data.root or download.fetch('covid19', ARCHIVES, __doc__)
    root = files.find_top(given, is_top, __doc__)
    splits, problems = {}, []
    for split in COUNTS:
        folder = files.part(root, split)
        images, masks = files.image_and_mask_folders(folder, ('images', 'image'), ('masks', 'mask'), __doc__)
        splits[split] = files.pairs_in(images, masks, root, problems)
    return records.source_of(root, splits, published=COUNTS, problems=problems)
