"""Polyps in colonoscopy images: one training set (Kvasir-SEG and CVC-ClinicDB), five test sets, PraNet's split.

    python train.py --config=configs/kvasir.py --config.data.root=/path/to/folder

The folder holds `TrainDataset/` and `TestDataset/` (see m2snet_jax/data/datasets/polyp.py for the tree and where to
get it). Without data.root the published archive is downloaded. The released recipe is 50 epochs of 1450 images at 352
pixels, batch 16, for a GPU or a TPU. The variants `:paper` and `:small` (5 epochs) are described in configs/default.py.
Published for M²SNet (`released/Dice`): Kvasir .912, CVC-ClinicDB .922, CVC-ColonDB .758, ETIS .749, CVC-300 .903.

The variants below are the released recipe with another encoder; nothing is published for them. Each line has three
estimates: GMAC (10⁹ multiply-adds) to predict one image at 352 pixels, PFLOP (10¹⁵ operations) of the training with
LossNet, and an accelerator memory that suffices for it in float32. Released recipe: 16.8 GMAC, 11 PFLOP, 16 GiB.

- `:resnet50`: ResNet-50, weights `resnet50` of torchvision. 15.8 GMAC, 11 PFLOP, 16 GiB.
- `:vgg16`: VGG-16, weights `vgg16` of torchvision, LossNet's file. 73 GMAC, 28 PFLOP, 40 GiB, or 16 GiB with
  `--config.gradient_accumulation=4`. No norm holds the scale of its maps, so its learning rate is lower.
- `:pvt`: PVT v2-B2, by AdamW. 14.5 GMAC, 10 PFLOP, 16 GiB. Its file has no hash in its name: download
  `timm/pvt_v2_b2.in1k` from the Hugging Face hub and give it, `--config.model.encoder_weights=model.safetensors`;
  without it the encoder starts from random weights.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file

ENCODERS = {'resnet50': 'resnet50', 'vgg16': 'vgg16', 'pvt': 'pvt_v2_b2'}


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper', 'small', or one of `ENCODERS`."""
    if variant not in (None, 'paper', 'small', *ENCODERS):
        raise ValueError(f'no variant {variant!r}: there are {", ".join(("paper", "small", *ENCODERS))}')
    config = load_file('default', 'get_config')[0](None if variant in ENCODERS else variant, pretrained=True)
    config.data.name = 'polyp'
    if variant == 'small':
        config.epochs = 5
    if variant in ENCODERS:
        config.model.encoder = config.model.encoder_weights = ENCODERS[variant]
    if variant == 'vgg16':
        config.optimizer.peak_lr = 0.005
    if variant == 'pvt':
        config.model.encoder_weights = None
        config.optimizer.name = 'adamw'
        config.optimizer.schedule = 'cosine'
        config.optimizer.warmup = 1.0
        config.optimizer.peak_lr = 1e-4
        config.optimizer.weight_decay = 1e-4
        config.optimizer.clip = 0.5
    return config
