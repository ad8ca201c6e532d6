"""Breast tumours in ultrasound images (BUSI), in folds.

    ROOT/  (published as Dataset_BUSI_with_GT)
      benign/     benign (1).png   benign (1)_mask.png   benign (4)_mask_1.png …     437 images
      malignant/  malignant (1).png …                                                210 images
      normal/     normal (1).png …  with empty masks                                 133 images
      folds.csv   optional: a table name,fold of the benign and malignant images

Further lesions of an image have masks of their own (`_mask_1`, `_mask_2`), which are united with the first. Benign and
malignant images are dealt to `data.folds` folds with equal shares of both; `data.fold` is the test set `test`, the
others train. Folds come from `data.folds_file`, else from `folds.csv`, else they are dealt; with
`data.group_duplicates` they are dealt with near-duplicates together. Normal images are never trained on: they are the
test set `normal`, which shows what is found where there is nothing.

Source: Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 2020 (cite it). The copy that goes
with M2SNet: https://drive.google.com/file/d/1t3cyyTbA0mikL8L2rWRtREdWTLfmA3qL
Licence: see the authors' page; it is used for research.
Traps: there are many near-duplicates, some across the two classes and nearly all plain splits (an audit, Pawłowska et
al., Data in Brief 2023, counts 235 duplicates): set `data.group_duplicates`, or read scores as flattered. Some images
carry calipers and text. Masks come in several file modes. Several images may be of one patient; no file says which.
"""

import re
from typing import Any

from m2snet_jax.data.download import fetch
from m2snet_jax.data.pairs import Pair, find_root, find_subfolder
from m2snet_jax.data.patterns import ENDINGS, describe_link, find_files
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.data.splits import split_by_fold
from m2snet_jax.errors import InputError

HAS_FOLDS = True  # reads data.fold
COUNTS = {'benign': 437, 'malignant': 210, 'normal': 133}
ARCHIVES = {'Dataset_BUSI_with_GT': '1t3cyyTbA0mikL8L2rWRtREdWTLfmA3qL'}  # folder: id on Google Drive


def find(config: Any) -> Source:
    """Returns the source of a folder in the published layout: its images with their masks, in folds.

    Raises:
        InputError: naming the folder or key that cannot be used.
    """
    if config.data.classes != 1:
        raise InputError(f'--config.data.classes={config.data.classes}: tumours are one class')

    def is_root(folder):
        return find_subfolder(folder, 'benign') and find_subfolder(folder, 'malignant')

    given = config.data.root or fetch('busi', ARCHIVES, __doc__)
    root = find_root(given, is_root, __doc__)
    problems, split_problems, warnings, pairs = [], [], [], {}
    for label, count in COUNTS.items():
        folder = find_subfolder(root, label)
        pairs[label] = _pairs(folder, label, problems) if folder else []
        if len(pairs[label]) != count:
            warnings.append(f'{root}: {len(pairs[label])} {label} images, {count} are published')
    found, folds = split_by_fold(pairs['benign'] + pairs['malignant'], root, config, split_problems)
    if pairs['normal']:
        found['normal'] = pairs['normal']
    return source_of(root, found, folds=folds, problems=problems, split_problems=split_problems, warnings=warnings)


def _pairs(folder, label, problems):
    """Returns the images of one class with their masks, the first mask first."""
    images, masks, files = {}, {}, find_files(folder)
    problems += files.duplicates + [describe_link(path) for path in files.dangling.values()]
    for stem, path in files.paths.items():
        name, number = re.sub(r'(?<=.)_mask(_\d+)?$', '', stem), re.search(r'_mask(?:_(\d+))?$', stem)
        if number is None:
            images[name] = path
        else:
            masks.setdefault(name, {})[int(number.group(1) or 0)] = path
    problems += [
        f'{path}: no mask named {name + "_mask"!r} beside it' for name, path in images.items() if name not in masks
    ]
    problems += [
        f'{path}: no image named {name!r} beside it'
        for name in masks
        if name not in images
        for path in masks[name].values()
    ]
    if not images:
        problems.append(f'{folder}: no images found; looked for files ending in {", ".join(ENDINGS)}')
    return [
        Pair(name, path, tuple(masks[name][number] for number in sorted(masks[name])), label)
        for name, path in images.items()
        if name in masks
    ]
