"""A study on generated pictures in a few minutes, without any download: it shows what a study does.

    python -m m2snet_jax study --config=configs/studies/quickstart.py --workdir=runs/study-quickstart

The networks are too small and the training is too short for a valid comparison.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'quickstart',
        'about': 'M²SNet and MSNet after 12 steps on generated pictures. The scores are not meaningful.',
        'changes': {
            'batch': 4,
            'steps': 12,
            'loss.lossnet': 0.0,
            'model.freeze_shared_norms_after': 1.0,
            'data.size': 48,
            'data.sizes': (48,),
            'data.count': 16,
            'data.test_count': 8,
            'log.every': 4,
            'log.images': 1,
            'checkpoint.every': 4,
            'evaluate.bootstrap': 200,
        },
        'seeds': (0, 1),
        'variants': [
            {'name': 'm2snet', 'about': 'M²SNet.'},
            {
                'name': 'precise_batch_norm',
                'about': 'The same weights, running statistics measured again over 4 training batches.',
                'weights_of': 'm2snet',
                'changes': {'steps': 1, 'optimizer.peak_lr': 0.0, 'precise_batch_norm': 4},
            },
            {'name': 'msnet', 'about': 'MSNet.', 'changes': {'model.name': 'msnet'}},
        ],
    }
