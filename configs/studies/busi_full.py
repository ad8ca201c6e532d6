"""BUSI at full size with pretrained weights: all folds, with and without leaks between them.

    python -m m2snet_jax study --config=configs/studies/busi_full.py --root=/path/to/busi --workdir=runs/study-busi-full

For a GPU or a TPU; `docs/reproduction.md` says how long it may take. All four folds together test every image once,
however they are dealt, so that variants with other folds are compared on the same images, once all are finished.
"""


def get_study():
    """Returns the study; what the entries mean stands in m2snet_jax/study.py."""
    return {
        'config': 'busi',
        'about': 'M²SNet and MSNet on breast ultrasound (BUSI) by the released recipe, four folds.',
        'seeds': (0, 1, 2),
        'folds': (0, 1, 2, 3),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet, folds dealt plainly.'},
            {
                'name': 'no_leaks',
                'about': 'Near-duplicates never in different folds.',
                'changes': {'data.group_duplicates': True},
            },
            {'name': 'msnet', 'about': 'MSNet, folds dealt plainly.', 'changes': {'model.name': 'msnet'}},
        ],
    }
