"""Runs that are small enough for tests, the processes that train them, and what they log."""

import json
import os
import subprocess
import sys
from pathlib import Path

from compilation_cache import CACHE

ROOT = Path(__file__).parents[1]
SETTINGS = {
    'batch': 2,
    'steps': 2,
    'model.encoder': 'res2net14',
    'model.freeze_shared_norms_after': 1.0,
    'loss.lossnet': 0.0,
    'data.size': 48,
    'data.sizes': (48,),
    'data.count': 4,
    'data.test_count': 2,
    'log.every': 1,
    'log.images': 0,
    'log.tensorboard': False,
    'evaluate.batch': 2,
    'evaluate.bootstrap': 0,
}


def start(prepared, *arguments):
    """Starts Python with the compilation cache of the tests and a folder for prepared data; its output is piped."""
    environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': os.path.abspath(CACHE), 'TFDS_DATA_DIR': str(prepared)}
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, **streams)


def start_study(path, workdir, *more):
    """Starts a study; its data are prepared beside its folder."""
    flags = f'--config={path}', f'--workdir={workdir}', *more
    return start(workdir.parent / 'prepared', '-m', 'm2snet_jax', 'study', *flags)


def losses(folder):
    """Returns (step, loss) of all steps that a run has logged."""
    rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    return [(row['step'], row['loss']) for row in rows]
