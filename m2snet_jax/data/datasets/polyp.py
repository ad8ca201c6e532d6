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

from typing import Any

from m2snet_jax.data.download import fetch
from m2snet_jax.data.pairs import find_root, find_subfolder, image_and_mask_folders, pairs_in, unwrap_subfolder
from m2snet_jax.data.source import Source, source_of
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


def find(config: Any) -> Source:
    """Returns the source of a folder in PraNet's layout: its pairs of files by set.

    Raises:
        InputError: naming the folder that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: polyps are one class')

    def is_root(folder):
        return unwrap_subfolder(folder, 'TrainDataset') or unwrap_subfolder(folder, 'TestDataset')

    given = config.data.root or fetch('polyp', ARCHIVES, __doc__)
    root = find_root(given, is_root, __doc__)
    train, tests = unwrap_subfolder(root, 'TrainDataset'), unwrap_subfolder(root, 'TestDataset')
    if train is None:
        raise InputError(f'--config.data.root={root}: TestDataset found, TrainDataset is missing\n\n{__doc__}')
    folders = {'train': train, **{name: tests and find_subfolder(tests, name) for name in COUNTS if name != 'train'}}
    splits, problems, warnings = {}, [], []
    for name, folder in folders.items():
        if folder is None:
            warnings.append(f'{root}: test set {name} ({COUNTS[name]} images) is missing and left out')
        else:
            images, masks = image_and_mask_folders(folder, ('images', 'image'), ('masks', 'mask'), __doc__)
            splits[name] = pairs_in(images, masks, problems, warnings)
    if len(splits) == 1:
        sets = ', '.join(name for name in COUNTS if name != 'train')
        raise InputError(f'--config.data.root={root}: none of the test sets {sets} found\n\n{__doc__}')
    return source_of(root, splits, published=COUNTS, problems=problems, warnings=warnings)
