"""Ablation on BUSI, reduced: the claims of the papers about the parts of the network and LossNet, then the quirks.

    python -m m2snet_jax study --config=configs/studies/ablation.py --root=/path/to/busi --workdir=runs/study-ablation

The recipe is `busi.py:small` with the encoder VGG-16 from ImageNet weights, at 48 pixels, for 5 epochs and without
LossNet. It was chosen after two seeds of M²SNet, whose Dice differs by .02 there; from random weights, with `res2net14`
at 64 pixels for 14 epochs, it differs by .19, and a run takes as long. With a deviation of .015 between seeds, 16 seeds
and seven claims corrected for their number would find an effect of .02 in four of five studies. But of four seeds one
is .16 lower than the others, because of the running statistics of its batch norms: M²SNet's deviation is .085, with
which an effect of .08 is found. The variants that end in `_precise` measure these statistics again. Results are about
this setting: at the papers' size an effect may differ. The setting from random weights:

    --config.model.encoder=res2net14 --config.model.encoder_weights=none --config.data.size=64
    --config.data.sizes='(48, 56, 64)' --config.epochs=14 --config.optimizer.peak_lr=0.02

Every variant changes one thing. Test images are those of fold 0 in every run. Encoder and LossNet start from one file,
which is downloaded. `--config.model.encoder_weights=FILE` names one that is already there, but the variant `lossnet`
downloads it nevertheless. The stem that `optimizer.freeze_stem` keeps is one of Res2Net's: `busi.py` has that variant.
"""

QUIRKS = tuple(range(8))  # seeds of the variants without a claim
PRECISE = {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 60}  # the weights stay as they are


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi:small',
        'about': 'M²SNet with VGG-16 on breast ultrasound (BUSI), one part changed at a time, 48 pixels, 5 epochs.',
        'changes': {
            'epochs': 5,
            'model.encoder': 'vgg16',
            'model.encoder_weights': 'vgg16',
            'optimizer.peak_lr': 0.005,  # as in kvasir.py:vgg16, where no norm holds the scale of the maps
            'data.size': 48,
            'data.sizes': (36, 42, 48),
        },
        'seeds': tuple(range(16)),
        'folds': (0,),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet by the released recipe, scaled down.'},
            {
                'name': 'add',
                'about': 'Units add their operands instead of subtracting them.',
                'changes': {'model.operation': 'add'},
                'claim': 'lower',
            },
            {
                'name': 'columns_1',
                'about': 'One column: no units; the decoder gets the levels themselves.',
                'changes': {'model.columns': 1},
                'claim': 'lower',
            },
            {
                'name': 'no_filters',
                'about': 'No full-one filters: MSNet.',
                'changes': {'model.filters': ()},
                'claim': 'lower',
            },
            {
                'name': 'lossnet',
                'about': 'With LossNet, at 48 pixels.',
                'changes': {'loss.lossnet': 0.1, 'loss.lossnet_size': 48, 'loss.lossnet_weights': 'vgg16'},
                'claim': 'higher',
            },
            {
                'name': 'concatenate',
                'about': 'Units convolve their operands side by side instead of subtracting them.',
                'changes': {'model.operation': 'concatenate'},
                'claim': 'lower',
            },
            {'name': 'columns_3', 'about': 'Three columns.', 'changes': {'model.columns': 3}, 'claim': 'lower'},
            {'name': 'filters_3', 'about': 'One filter, 3×3.', 'changes': {'model.filters': (3,)}, 'claim': 'lower'},
            {
                'name': 'm2snet_precise',
                'about': 'The weights of m2snet, running statistics measured again over 60 training batches.',
                'seeds': QUIRKS,
                'weights_of': 'm2snet',
                'changes': PRECISE,
            },
            {
                'name': 'add_precise',
                'about': 'Likewise of add.',
                'seeds': QUIRKS,
                'weights_of': 'add',
                'changes': {'model.operation': 'add', **PRECISE},
                'against': 'm2snet_precise',
            },
            {
                'name': 'no_filters_precise',
                'about': 'Likewise of no_filters.',
                'seeds': QUIRKS,
                'weights_of': 'no_filters',
                'changes': {'model.filters': (), **PRECISE},
                'against': 'm2snet_precise',
            },
            {
                'name': 'weighted_bce',
                'about': "Cross-entropy weighted by the distance from edges, as in the paper's text.",
                'changes': {'loss.bce': 'weighted'},
                'seeds': QUIRKS,
            },
            {
                'name': 'encoder_tenth',
                'about': "The encoder at a tenth of the learning rate, as in the paper's text.",
                'changes': {'optimizer.encoder_lr_factor': 0.1},
                'seeds': QUIRKS,
            },
            {
                'name': 'one_size',
                'about': 'Every training batch at 48 pixels.',
                'changes': {'data.sizes': (48,)},
                'seeds': QUIRKS,
            },
            {
                'name': 'imagenet_normalisation',
                'about': "Training images normalised as test images are, by ImageNet's mean and deviation.",
                'changes': {'data.normalisation': 'imagenet'},
                'seeds': QUIRKS,
            },
            {
                'name': 'add_level',
                'about': 'The enhancement of a level also adds the level itself.',
                'changes': {'model.add_level': True},
                'seeds': QUIRKS,
            },
        ],
    }
