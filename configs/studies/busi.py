"""BUSI, reduced: training against the released program, the effects of leaks and of differences from the paper.

    python -m m2snet_jax study --config=configs/studies/busi.py --root=/path/to/busi --workdir=runs/study-busi

The recipe is `busi.py:small`: the released one at 128 pixels for 14 epochs, from random weights. Test images are those
of fold 0 in every run. `docs/reproduction.md` has the questions, the protocol and the results.

Leaks: `busi_near_duplicates.txt` lists the 26 training images of fold 0 that are in one group of near-duplicates with a
test image, `busi_control.txt` 26 others of the same labels, drawn at random. Both were written by

    python -m m2snet_jax validate --config=busi:small --root=/path/to/busi --output=look

from the published images, averaged down to at most 256 pixels, with the folds of their `folds.csv`. Write them again
for other folds or another image size.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi:small',
        'about': 'M²SNet, and differences from the paper, on BUSI at 128 pixels, 14 epochs from random weights.',
        'seeds': (0, 1),
        'folds': (0,),
        'variants': [
            {
                'name': 'm2snet',
                'about': 'M²SNet by the released recipe, scaled down.',
                'seeds': (0, 1, 2, 3),
                'reference': 'm2snet',
            },
            {
                'name': 'no_near_duplicates',
                'about': 'Trained without the images that are near-duplicates of test images.',
                'changes': {'data.exclude': HERE / 'busi_near_duplicates.txt'},
                'against': 'control',
            },
            {
                'name': 'control',
                'about': 'Trained without as many other images, drawn at random.',
                'changes': {'data.exclude': HERE / 'busi_control.txt'},
            },
            {
                'name': 'msnet',
                'about': 'MSNet in place of M²SNet.',
                'seeds': (0, 1, 2, 3),
                'changes': {'model.name': 'msnet'},
                'reference': 'msnet',
            },
            {
                'name': 'precise_batch_norm',
                'about': 'The weights of m2snet, running statistics measured again over 60 training batches.',
                'seeds': (0, 1, 2, 3),
                'weights_of': 'm2snet',
                'changes': {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 60},
            },
            {
                'name': 'weighted_bce',
                'about': "Cross-entropy weighted by the distance from edges, as in the paper's text.",
                'changes': {'loss.bce': 'weighted'},
            },
            {
                'name': 'encoder_tenth',
                'about': "The encoder at a tenth of the learning rate, as in the paper's text.",
                'changes': {'optimizer.encoder_lr_factor': 0.1},
            },
            {
                'name': 'frozen_stem',
                'about': 'The stem of the encoder kept at its initial weights, as the released filter was meant to.',
                'changes': {'optimizer.freeze_stem': True},
            },
            {
                'name': 'one_size',
                'about': 'Every training batch at 128 pixels.',
                'changes': {'data.sizes': (128,)},
            },
        ],
    }
