"""BUSI at full size with pretrained weights: all folds, with and without leaks between them.

    python -m m2snet_jax study --config=configs/studies/busi_full.py --root=/path/to/busi --workdir=runs/study-busi-full

For a GPU or a TPU; `docs/reproduction.md` estimates the time. The four folds together test every image once, so that
variants with different folds can be compared when all runs are finished.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi',
        'about': 'M²SNet and MSNet on breast ultrasound (BUSI) by the released recipe, four folds.',
        'seeds': (0, 1, 2),
        'folds': (0, 1, 2, 3),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet, plain folds.'},
            {
                'name': 'no_leaks',
                'about': 'Near-duplicates never in different folds.',
                'changes': {'data.group_duplicates': True},
            },
            {'name': 'msnet', 'about': 'MSNet, plain folds.', 'changes': {'model.name': 'msnet'}},
        ],
    }
