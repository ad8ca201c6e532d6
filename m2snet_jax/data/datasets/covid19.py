"""Lung infection of COVID-19 in slices of computed tomography, as the authors of M2SNet split it, or Inf-Net's.

    ROOT/
      train/  images/ *.jpg   masks/ *.png
      test/   images/ *.jpg   masks/ *.png

or, as published with Inf-Net (Fan et al., IEEE TMI 2020),

    ROOT/
      TrainingSet/LungInfection-Train/Doctor-label/  Imgs/ *.jpg   GT/ *.png
      TestingSet/LungInfection-Test/                 Imgs/ *.jpg   GT/ *.png

The folders may be doubled (train/train/…) as some zip tools leave them; png, jpg, bmp and tif are read. 1277 slices:
every third of the 20 volumes of the COVID-19 CT segmentation set (1178) and 99 single ones. Train: 894. Test: 383.
Inf-Net's set is 50 and 48 of the single ones; its Pseudo-label and Edge are left out.

Source: https://github.com/Xiaoqi-Zhao-DLUT/MSNet-M2SNet, as zip files on Google Drive (Inf-Net's:
https://github.com/DengPingFan/Inf-Net):
  train  https://drive.google.com/file/d/1FHx0Cqkq9iYjEMN3Ldm9FnZ4Vr1u3p-j
  test   https://drive.google.com/file/d/1ufi73f_rhq15DElN_gJTO1tTFtUmqDsB
Licence: none is given with the files; that of the slices is their publishers'. For research only.
Traps: the split is by slice, and all 20 volumes are in both halves: the test measures slices between those seen in
training, not new patients. Many masks are empty, which scores treat in ways of their own.
"""

from pathlib import Path
from typing import Any

from m2snet_jax.data.download import fetch
from m2snet_jax.data.pairs import find_root, find_subfolder, image_and_mask_folders, pairs_in, unwrap_subfolder
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.errors import InputError

COUNTS = {'train': 894, 'test': 383}
INF_NET_COUNTS = {'train': 50, 'test': 48}
INF_NET = {  # the folders of each split, one in the other
    'train': ('TrainingSet', 'LungInfection-Train', 'Doctor-label'),
    'test': ('TestingSet', 'LungInfection-Test'),
}
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

    given = config.data.root or fetch('covid19', ARCHIVES, __doc__)
    root = find_root(given, _folders, __doc__)
    folders, counts = _folders(root) or ({}, {})
    splits, problems, warnings = {}, [], []
    for split, folder in folders.items():
        images, masks = image_and_mask_folders(folder, ('images', 'image', 'Imgs'), ('masks', 'mask', 'GT'), __doc__)
        splits[split] = pairs_in(images, masks, problems, warnings)
    return source_of(root, splits, published=counts, problems=problems, warnings=warnings)


def _folders(root: Path) -> tuple[dict[str, Path], dict[str, int]] | None:
    """Returns ({split: its folder}, {split: published count}) of one of the two layouts, or None."""
    folders = {split: unwrap_subfolder(root, split) for split in COUNTS}
    if all(folders.values()):
        return {split: folder for split, folder in folders.items() if folder}, COUNTS
    folders = {}
    for split, names in INF_NET.items():
        folder = root
        for name in names:
            folder = folder and find_subfolder(folder, name)
        folders[split] = folder
    return (folders, INF_NET_COUNTS) if all(folders.values()) else None
