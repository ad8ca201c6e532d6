"""Polyps: M²SNet, MSNet and what the paper's text says otherwise, on the five published test sets.

    python -m m2snet_jax study --config=configs/studies/kvasir.py --root=/path/to/polyp --workdir=runs/study-kvasir

For a GPU or a TPU; `docs/reproduction.md` says how long it may take.
"""


def get_study():
    """Returns the study; what the entries mean stands in m2snet_jax/study.py."""
    return {
        'config': 'kvasir',
        'about': 'M²SNet and MSNet on polyps by the released recipe, five test sets.',
        'seeds': (0, 1, 2),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet by the released recipe.'},
            {'name': 'msnet', 'about': 'MSNet by the same recipe.', 'changes': {'model.name': 'msnet'}},
            {
                'name': 'paper',
                'about': "As the paper's text says: weighted cross-entropy, the encoder at a tenth of the rate.",
                'changes': {'loss.bce': 'weighted', 'optimizer.encoder_factor': 0.1},
            },
            {
                'name': 'recalibrated',
                'about': 'The weights of m2snet as they are, running statistics taken anew over 60 training batches.',
                'weights_of': 'm2snet',
                'changes': {'steps': 1, 'optimizer.peak': 0.0, 'recalibrate': 60},
            },
        ],
    }
