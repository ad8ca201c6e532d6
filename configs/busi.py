"""Breast tumours in ultrasound images (BUSI): benign and malignant images in four folds, normal ones apart.

    python train.py --config=configs/busi.py --config.data.root=/path/to/folder --config.data.fold=0

The folder holds `benign/`, `malignant/` and `normal/` (see m2snet_jax/data/datasets/busi.py for the tree and where to
get it). Without data.root the published archive is downloaded. A run trains on three folds and is scored on the fourth.
The published mean is that of four runs, `--config.data.fold=0` to 3. `--config.data.group_duplicates=True` keeps
near-duplicates in one fold. The released recipe is 100 epochs of 485 images at 352 pixels, batch 16, for a GPU or a
TPU: 48,500 images a fold. Divide by the images/s of the command benchmark to know the time. The variants `:paper` and
`:small` (14 epochs, peak learning rate 0.02) are described in configs/default.py.
Published by the authors for M²SNet (mean and deviation, %): Jaccard 71.52 ± 1.19, specificity 98.35 ± .20, Dice
79.21 ± 1.38. Sources of published figures: m2snet_jax/evaluation/published.py.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    config = load_file('default', 'get_config')[0](variant, pretrained=True)
    config.data.name = 'busi'
    config.data.fold = 0
    config.epochs = 14 if variant == 'small' else 100
    if variant == 'small':
        config.optimizer.peak_lr = 0.02
    return config
