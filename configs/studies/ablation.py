"""Ablation on BUSI, reduced: what each part of the network, LossNet and the normalisation contribute.

    python -m m2snet_jax study --config=configs/studies/ablation.py --root=/path/to/busi --workdir=runs/study-ablation

The recipe is `busi.py:small`: the released one at 128 pixels for 14 epochs, from random weights and without LossNet.
Every variant changes one thing. Test images are those of fold 0 in every run.

LossNet compares maps at 96 pixels instead of 224, where it would cost five times as much, and is a VGG with random
weights, not the papers'. With the file of VGG-16 it is the papers' (only the variant `lossnet` reads the file):

    python -m m2snet_jax study --config=ablation --root=data/busi --config.loss.lossnet_weights=vgg16
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi:small',
        'about': 'M²SNet on breast ultrasound (BUSI) with one part changed at a time, 128 pixels, 14 epochs.',
        'seeds': (0, 1),
        'folds': (0,),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet by the released recipe, scaled down.'},
            {
                'name': 'columns_1',
                'about': 'One column: no units; the decoder gets the levels themselves.',
                'changes': {'model.columns': 1},
            },
            {'name': 'no_filters', 'about': 'No full-one filters: MSNet.', 'changes': {'model.filters': ()}},
            {
                'name': 'add',
                'about': 'Units add their operands instead of subtracting them.',
                'changes': {'model.operation': 'add'},
            },
            {
                'name': 'concatenate',
                'about': 'Units convolve their operands side by side instead of subtracting them.',
                'changes': {'model.operation': 'concatenate'},
            },
            {
                'name': 'lossnet',
                'about': 'With LossNet, at 96 pixels.',
                'changes': {'loss.lossnet': 0.1, 'loss.lossnet_size': 96},
            },
            {
                'name': 'imagenet_normalisation',
                'about': "Training images normalised as test images are, by ImageNet's mean and deviation.",
                'changes': {'data.normalisation': 'imagenet'},
            },
            {
                'name': 'add_level',
                'about': 'The enhancement of a level also adds the level itself.',
                'changes': {'model.add_level': True},
            },
            {'name': 'columns_2', 'about': 'Two columns: units of two levels.', 'changes': {'model.columns': 2}},
            {'name': 'columns_3', 'about': 'Three columns.', 'changes': {'model.columns': 3}},
            {'name': 'columns_4', 'about': 'Four columns.', 'changes': {'model.columns': 4}},
            {'name': 'filters_3', 'about': 'One filter, 3×3.', 'changes': {'model.filters': (3,)}},
            {'name': 'filters_5', 'about': 'One filter, 5×5.', 'changes': {'model.filters': (5,)}},
            {
                'name': 'filters_3_5_7',
                'about': 'Three filters, 3×3, 5×5 and 7×7.',
                'changes': {'model.filters': (3, 5, 7)},
            },
        ],
    }
