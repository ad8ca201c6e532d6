"""BUSI, reduced, on all four folds: cross-validated scores of M²SNet.

    python -m m2snet_jax study --config=configs/studies/busi_folds.py --root=/path/to/busi --workdir=runs/busi-folds
    python -m m2snet_jax evaluate --model='runs/busi-folds/m2snet/fold*-seed0' --cross-validate --tta=flips

The recipe is `busi.py:small`, as in `busi.py` of this folder, whose first run is fold 0 here. The four folds together
test every image with a lesion once, and the normal images four times.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'busi:small',
        'about': 'M²SNet on breast ultrasound (BUSI) at 128 pixels, 14 epochs from random weights, four folds.',
        'folds': (0, 1, 2, 3),
        'variants': [{'name': 'm2snet', 'about': 'M²SNet by the released recipe, scaled down.'}],
    }
