"""Layers of the retina in optical coherence tomography (GOALS, MICCAI 2022): three classes.

    ROOT/
      Image/        0001.png …     100 images
      Layer_Masks/  0001.png …     their masks

Masks hold grey levels, 0 retinal nerve fibre layer, 80 ganglion cell and inner plexiform layer, 160 choroid, 255
background: classes 1, 2 and 3, and 0 for the background. `data.classes` is 3.

Source: https://aistudio.baidu.com/competition/detail/230 (registration needed; there is no other download).
Licence: the challenge's own terms.
Traps: the masks of the 100 validation and 100 test images are hidden. Trained on all 100 images there is no score:
with `data.fold`, the folds but one of `data.folds` train and that one is the test. Background is the brightest grey.
"""

from typing import Any

from m2snet_jax.data.pairs import find_root, find_subfolder, image_and_mask_folders, pairs_in
from m2snet_jax.data.source import Source, source_of
from m2snet_jax.data.splits import split_by_fold
from m2snet_jax.errors import InputError

HAS_FOLDS = True  # reads data.fold
COUNT = 100
VALUES = {0: 1, 80: 2, 160: 3, 255: 0}  # grey level: class


def find(config: Any) -> Source:
    """Returns the source of a folder in the published layout: its pairs of files, all for training or in folds.

    Raises:
        InputError: naming the folder or key that cannot be used.
    """
    if config.data.classes != 3:
        raise InputError(f'--config.data.classes={config.data.classes}: GOALS has three classes')

    names = ('Image', 'Images'), ('Layer_Masks',)
    root = find_root(config.data.root, lambda top: all(find_subfolder(top, *either) for either in names), __doc__)
    folders = image_and_mask_folders(root, *names, __doc__)
    problems, split_problems, warnings = [], [], []
    pairs = pairs_in(*folders, problems, warnings)
    if len(pairs) != COUNT:
        warnings.append(f'{root}: {len(pairs)} images with masks, {COUNT} are published')
    found, folds = split_by_fold(pairs, root, config, split_problems)
    return source_of(
        root,
        found,
        classes=3,
        values=VALUES,
        folds=folds,
        problems=problems,
        split_problems=split_problems,
        warnings=warnings,
    )
