"""A study on generated phantoms in a few minutes: to see what a study does, without any download.

    python -m m2snet_jax study --config=configs/studies/quickstart.py --workdir=runs/study-quickstart

Its networks are far too small and trained far too short for the figures to say anything.
"""


def get_study() -> dict:
    """Returns the study; m2snet_jax/study/definition.py describes the entries."""
    return {
        'config': 'quickstart',
        'about': 'M²SNet against MSNet after a dozen steps on phantoms: shows the table, says nothing else.',
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
