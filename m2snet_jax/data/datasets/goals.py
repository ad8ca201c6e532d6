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

import tensorflow_datasets as tfds

from m2snet_jax.data import files, records, splits
from m2snet_jax.errors import InputError

COUNT = 100
VALUES = {0: 1, 80: 2, 160: 3, 255: 0}  # grey level: class


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Layers of the retina in optical coherence tomography."""

    name = 'goals'
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded through TFDS

    def _info(self):
        return records.info(self)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(pairs) for split, pairs in self.builder_config.splits.items()}

    def _generate_examples(self, pairs):
        return records.records_of(pairs, self.builder_config)


def find(config):
    """Returns the source of a folder in the published layout: its pairs of files, all for training or in folds.

    Raises:
        InputError: naming the folder or key that cannot be used.
    """
    if config.data.classes != 3:
        raise InputError(f'--config.data.classes={config.data.classes}: GOALS has three classes')

    def folders(top):
        return files.child(top, 'Image', 'Images'), files.child(top, 'Layer_Masks')

    root = files.find_top(config.data.root, lambda top: all(folders(top)), __doc__)
    problems, split_problems, warnings = [], [], []
    pairs = files.pairs_in(*folders(root), root, problems)
    if len(pairs) != COUNT:
        warnings.append(f'{root}: {len(pairs)} images with masks, {COUNT} are published')
    found, folds = splits.by_fold(pairs, root, config, split_problems)
    return records.source_of(
        root,
        found,
        classes=3,
        values=VALUES,
        folds=folds,
        problems=problems,
        split_problems=split_problems,
        warnings=warnings,
    )
