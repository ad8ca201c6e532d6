"""Layers of the retina in optical coherence tomography (GOALS, MICCAI 2022): three classes.

    python train.py --config=configs/goals.py --config.data.root=/path/to/folder [--config.data.fold=0]

The folder holds `Image/` and `Layer_Masks/` (see m2snet_jax/data/datasets/goals.py for the tree; the download needs
registration). Each of the three classes has a sigmoid channel. Losses are averaged over the classes, scores are given
for each class and as their mean. The test masks are not published: without data.fold, a run trains on all 100 images
and has no score. With `--config.data.fold=0` to 3 it trains on 75 of them and is scored on the other 25. The released
recipe is 100 epochs of 100 images at 352 pixels, batch 16, for a GPU or a TPU: 10,000 images. Divide by the images/s of
the command benchmark to know the time. The variants `:paper` and `:small` (70 epochs) are described in
configs/default.py.
Published: the authors' team came second of 100 in the challenge; its score is on hidden masks.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    config = load_file('default', 'get_config')[0](variant, pretrained=True)
    config.data.name = 'goals'
    config.data.classes = 3
    config.epochs = 70 if variant == 'small' else 100
    return config
