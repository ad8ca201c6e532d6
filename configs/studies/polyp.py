"""Polyps, reduced, from random weights: training against the released program.

    python -m m2snet_jax study --config=configs/studies/polyp.py --root=/path/to/polyp --workdir=runs/study-polyp

The recipe is `kvasir.py:small` with 6 epochs and the peak learning rate .02: the released one at 128 pixels, from
random weights and without LossNet.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'kvasir:small',
        'about': 'M²SNet and MSNet on polyps at 128 pixels, 6 epochs from random weights.',
        'changes': {'epochs': 6, 'optimizer.peak_lr': 0.02},
        'seeds': (0, 1),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet by the released recipe, scaled down.', 'reference': 'm2snet'},
            {
                'name': 'msnet',
                'about': 'MSNet by the same recipe.',
                'changes': {'model.name': 'msnet'},
                'reference': 'msnet',
            },
        ],
    }
