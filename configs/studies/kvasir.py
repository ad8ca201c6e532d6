"""Polyps: M²SNet, MSNet and the paper's text, on the five published test sets.

    python -m m2snet_jax study --config=configs/studies/kvasir.py --root=/path/to/polyp --workdir=runs/study-kvasir

For a GPU or a TPU; `docs/reproduction.md` estimates the time.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'kvasir',
        'about': 'M²SNet and MSNet on polyps by the released recipe, five test sets.',
        'seeds': (0, 1, 2),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet by the released recipe.'},
            {'name': 'msnet', 'about': 'MSNet by the same recipe.', 'changes': {'model.name': 'msnet'}},
            {
                'name': 'paper',
                'about': "The paper's text: weighted cross-entropy, the encoder at a tenth of the learning rate.",
                'changes': {'loss.bce': 'weighted', 'optimizer.encoder_lr_factor': 0.1},
            },
            {
                'name': 'precise_batch_norm',
                'about': 'The weights of m2snet, running statistics measured again over 60 training batches.',
                'weights_of': 'm2snet',
                'changes': {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 60},
            },
        ],
    }
