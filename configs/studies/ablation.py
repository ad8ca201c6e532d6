"""Ablation on BUSI, reduced: the claims of the papers about the parts of the network and LossNet.

    python -m m2snet_jax study --config=configs/studies/ablation.py --root=/path/to/busi --workdir=runs/study-ablation

The recipe is `busi.py:small` with the encoder VGG-16 from ImageNet weights, at 48 pixels, for 5 epochs and without
LossNet. Every variant changes one thing. Test images are those of fold 0 in every run. `NAME_precise` has the weights
of NAME, but running statistics of its batch norms that are measured again over 60 training batches. These variants are
compared: so short a training depends on the statistics of its last batches, and the Dice of four seeds of M²SNet
deviates by .085 as trained, by .008 when they are measured again. Both the setting and this comparison were chosen
after the first runs of M²SNet, `add` and `no_filters`. Results are about this setting: at the papers' size an effect
may differ.

Encoder and LossNet start from one file, which is downloaded. To use a file that is already there:

    --config.model.encoder_weights=VGG16.safetensors --config.loss.lossnet_weights=VGG16.safetensors

The setting that was tried first, from random weights:

    --config.model.encoder=res2net14 --config.model.encoder_weights=none --config.data.size=64
    --config.data.sizes='(48, 56, 64)' --config.epochs=14 --config.optimizer.peak_lr=0.02

The last five variants are differences between the papers and the released program, without a claim. VGG-16 has no stem
to keep at its initial weights (`optimizer.freeze_stem`): `busi.py` has that variant.
"""

PRECISE = {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 60}  # the weights stay as they are
FIRST = ('m2snet', 'M²SNet by the released recipe, scaled down.', {})
# (name, what differs, changes, the claim about Dice or None)
CHANGED = (
    ('add', 'Units add their operands instead of subtracting them.', {'model.operation': 'add'}, 'lower'),
    ('no_filters', 'No full-one filters: MSNet.', {'model.filters': ()}, 'lower'),
    ('columns_1', 'One column: no units; the decoder gets the levels themselves.', {'model.columns': 1}, 'lower'),
    ('lossnet', 'With LossNet, at 48 pixels.', {'loss.lossnet': 0.1}, 'higher'),
    ('concatenate', 'Units convolve their operands side by side.', {'model.operation': 'concatenate'}, 'lower'),
    ('columns_3', 'Three columns.', {'model.columns': 3}, 'lower'),
    ('filters_3', 'One filter, 3×3.', {'model.filters': (3,)}, 'lower'),
    ('weighted_bce', "Cross-entropy weighted by the distance from edges, as in the paper's text.",
     {'loss.bce': 'weighted'}, None),
    ('encoder_tenth', "The encoder at a tenth of the learning rate, as in the paper's text.",
     {'optimizer.encoder_lr_factor': 0.1}, None),
    ('one_size', 'Every training batch at 48 pixels.', {'data.sizes': (48,)}, None),
    ('imagenet_normalisation', "Training images normalised as test images are, by ImageNet's mean and deviation.",
     {'data.normalisation': 'imagenet'}, None),
    ('add_level', 'The enhancement of a level also adds the level itself.', {'model.add_level': True}, None),
)  # fmt: skip


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    variants = _trained_and_precise(*FIRST)
    for name, about, changes, claim in CHANGED:
        trained, precise = _trained_and_precise(name, about, changes)
        variants += [trained, precise | {'against': 'm2snet_precise', 'claim': claim}]
    return {
        'config': 'busi:small',
        'about': 'M²SNet with VGG-16 on breast ultrasound (BUSI), one part changed at a time, 48 pixels, 5 epochs.',
        'changes': {
            'epochs': 5,
            'model.encoder': 'vgg16',
            'model.encoder_weights': 'vgg16',
            'loss.lossnet_weights': 'vgg16',
            'loss.lossnet_size': 48,
            'optimizer.peak_lr': 0.005,  # as in kvasir.py:vgg16, where no norm holds the scale of the maps
            'data.size': 48,
            'data.sizes': (36, 42, 48),
        },
        'seeds': tuple(range(8)),
        'folds': (0,),
        'variants': variants,
    }


def _trained_and_precise(name, about, changes):
    again = f'The weights of {name}, running statistics measured again over 60 training batches.'
    return [
        {'name': name, 'about': about, 'changes': changes},
        {'name': f'{name}_precise', 'about': again, 'changes': {**changes, **PRECISE}, 'weights_of': name},
    ]
