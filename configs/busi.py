"""Breast tumours in ultrasound images (BUSI): benign and malignant in four folds, normal images predicted apart.

    python train.py --config=configs/busi.py --config.data.root=/path/to/folder --config.data.fold=0

The folder holds `benign/`, `malignant/` and `normal/` (see m2snet_jax/data/datasets/busi.py for the tree and where to
get it); without one, the published download is tried. One run trains on three folds and is scored on the fourth: four
runs, `--config.data.fold` 0 to 3, make the published mean. `--config.data.group_duplicates` deals folds without leaks
between near-duplicates, which plain folds have. Variants:
- `busi.py` is the released recipe at 352 pixels, batch 16, for a GPU or a TPU: 100 epochs of 485 images are 48,500
  images a fold; divide by the images/s of the command benchmark to know the time.
- `busi.py:paper` follows the text of the paper where it differs from the released program.
- `busi.py:small` is that recipe scaled down to what two CPU cores do in a quarter of an hour: 128 pixels, batch 8, 14
  epochs, peak rate 0.02, no LossNet. Its scores are not comparable with published ones.
Encoder and LossNet start from ImageNet files, downloaded once (see m2snet_jax/weights/pretrained.py), but for `:small`.
Published by the authors for M²SNet (mean and deviation, %): Jaccard 71.52 ± 1.19, specificity 98.35 ± .20, Dice
79.21 ± 1.38.
"""

from m2snet_jax.config import load_config


def get_config(variant=None):
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = load_config('default:paper' if variant == 'paper' else 'default')
    config.unlock()
    config.data.name = 'busi'
    config.data.fold = 0
    config.epochs = 100
    if variant != 'small':
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    else:
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
        config.epochs = 14
        config.optimizer.peak = 0.02
    return config
