"""Layers of the retina in optical coherence tomography (GOALS, MICCAI 2022): three classes.

    python train.py --config=configs/goals.py --config.data.root=/path/to/folder [--config.data.fold=0]

The folder holds `Image/` and `Layer_Masks/` (see m2snet_jax/data/datasets/goals.py for the tree; the download needs
registration). Three sigmoid channels, one a class; losses and LossNet are averaged over the classes, scores are given
for each class and as their mean. The published test masks are hidden: this trains on all 100 images and has no score;
with `--config.data.fold=0` to 3 it trains on 75 of them and is scored on the other 25. Variants:
- `goals.py` is the released recipe at 352 pixels, batch 16, for a GPU or a TPU: 100 epochs of 100 images are 10,000
  images; divide by the images/s of the command benchmark to know the time.
- `goals.py:paper` follows the text of the paper where it differs from the released program.
- `goals.py:small` is the size at which two CPU cores learn something real in a quarter of an hour: 128 pixels, batch 8,
  no LossNet, 70 epochs. Its scores are not comparable with others.
Encoder and LossNet start from ImageNet files, downloaded once (see m2snet_jax/weights/pretrained.py), but for `:small`.
Published: the authors' team came second of 100 in the challenge; its score is on hidden masks.
"""

from m2snet_jax.config import load_config


def get_config(variant=None):
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = load_config('default:paper' if variant == 'paper' else 'default')
    config.unlock()
    config.data.name = 'goals'
    config.data.classes = 3
    config.epochs = 100
    if variant != 'small':
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    else:
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
        config.epochs = 70
    return config
