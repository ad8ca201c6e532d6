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

from typing import Any

from m2snet_jax.data.download import fetch
from m2snet_jax.data.pairs import find_root, image_and_mask_folders, pairs_in, unwrap_subfolder
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.errors import InputError

COUNTS = {'train': 894, 'test': 383}
ARCHIVES = {  # folder: id on Google Drive
    'train': '1FHx0Cqkq9iYjEMN3Ldm9FnZ4Vr1u3p-j',
    'test': '1ufi73f_rhq15DElN_gJTO1tTFtUmqDsB',
}


def find(config: Any) -> Source:
    """Returns the source of a folder in the layout above: its pairs of files.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: infection is one class')

    def is_root(folder):
        return all(unwrap_subfolder(folder, split) for split in COUNTS)

    given = config.data.root or fetch('covid19', ARCHIVES, __doc__)
    root = find_root(given, is_root, __doc__)
    splits, problems = {}, []
    for split in COUNTS:
        folder = unwrap_subfolder(root, split)
        assert folder is not None  # see is_root
        images, masks = image_and_mask_folders(folder, ('images', 'image'), ('masks', 'mask'), __doc__)
        splits[split] = pairs_in(images, masks, root, problems)
    return source_of(root, splits, published=COUNTS, problems=problems)
