"""Ablation on BUSI, reduced: the claims of the papers about the parts of the network and LossNet, then the quirks.

    python -m m2snet_jax study --config=configs/studies/ablation.py --root=/path/to/busi --workdir=runs/study-ablation

The recipe is `busi.py:small` with 14 epochs from random weights and without LossNet, at 64 pixels and with the smallest
Res2Net, of one block a stage. The setting is chosen for its power: a run takes a small part of the time of one with
Res2Net-50 at 128 pixels. There seeds differ by .03 of Dice, so that the difference of two of one seed has a deviation
of about .04, and an effect of .02 needs 35 seeds of each variant (two-sided .05, power .8). With 16 seeds and seven
claims, corrected for their number, an effect of .04 is found in four of five studies. Results are about this setting:
at the papers' size an effect may differ. At 128 pixels with Res2Net-50:

    --config.model.encoder=res2net50 --config.data.size=128 --config.data.sizes='(96, 112, 128)'

Every variant changes one thing. Test images are those of fold 0 in every run. LossNet compares maps at 64 pixels and is
a VGG with random weights, not the papers'. With the file of VGG-16 it is the papers' (only the variant `lossnet` reads
it): `--config.loss.lossnet_weights=vgg16`.
"""

QUIRKS = tuple(range(8))  # seeds of the variants without a claim


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi:small',
        'about': 'M²SNet on breast ultrasound (BUSI) with one part changed at a time, 64 pixels, 14 epochs.',
        'changes': {'model.encoder': 'res2net14', 'data.size': 64, 'data.sizes': (48, 56, 64)},
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
                'about': 'With LossNet, at 64 pixels.',
                'changes': {'loss.lossnet': 0.1, 'loss.lossnet_size': 64},
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
                'name': 'frozen_stem',
                'about': 'The stem of the encoder kept at its initial weights, as the released filter was meant to.',
                'changes': {'optimizer.freeze_stem': True},
                'seeds': QUIRKS,
            },
            {
                'name': 'one_size',
                'about': 'Every training batch at 64 pixels.',
                'changes': {'data.sizes': (64,)},
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
