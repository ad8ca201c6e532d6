"""Polyps, reduced, from ImageNet weights: what pretraining, LossNet and the released normalisation contribute.

    python -m m2snet_jax study --config=polyp_pretrained --root=/path/to/polyp --workdir=runs/study-polyp-pretrained

M²SNet with the encoder VGG-16 at 96 pixels for 3 epochs: each run takes 35 to 60 min of one CPU core.
Encoder and LossNet start from ImageNet's VGG-16, one file, which is downloaded. To use a file that is already there:

    --config.model.encoder_weights=VGG16.safetensors --config.loss.lossnet_weights=VGG16.safetensors

Every variant changes one thing.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'kvasir:small',
        'about': 'M²SNet with VGG-16 on polyps at 96 pixels, 3 epochs, with one part changed at a time.',
        'changes': {
            'epochs': 3,
            'model.encoder': 'vgg16',
            'model.encoder_weights': 'vgg16',
            'optimizer.peak_lr': 0.005,  # as in kvasir.py:vgg16, where no norm holds the scale of the maps
            'loss.lossnet': 0.1,
            'loss.lossnet_weights': 'vgg16',
            'loss.lossnet_size': 64,  # in proportion to the images, as 224 to 352
            'data.size': 96,
            'data.sizes': (72, 84, 96),
        },
        'seeds': (0, 1),
        'variants': [
            {'name': 'pretrained', 'about': 'Encoder and LossNet from ImageNet weights, by the released recipe.'},
            {
                'name': 'random_encoder',
                'about': 'The encoder from random weights.',
                'changes': {'model.encoder_weights': None},
            },
            {'name': 'no_lossnet', 'about': 'Without LossNet.', 'changes': {'loss.lossnet': 0.0}},
            {
                'name': 'imagenet_normalisation',
                'about': "Training images normalised as test images are, by ImageNet's mean and deviation.",
                'changes': {'data.normalisation': 'imagenet'},
            },
        ],
    }
