"""The program of a child process: reads the damaged files of a folder as images, as masks and as maps.

It prints one JSON object: the exit status or the number of faults of each command, and the largest memory in MiB.
"""

import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from m2snet_jax.__main__ import main
from m2snet_jax.images.formats import split_name
from m2snet_jax.images.reading import Reading
from m2snet_jax.prediction.folders import find_images, predict_files
from m2snet_jax.prediction.writer import Writer

WINDOW = '--config.data.window=100,200'


class Grey:
    """A model whose maps are all alike."""

    classes, size, model_hash, window, config, reading = 1, 8, 'a hash', '100,200', None, Reading()

    def probabilities(self, images):
        return [np.full((8, 8, 1), 0.5, np.float32) for _ in images]


def pair(top, kind, other):
    """Puts the damaged files below `kind`, and a whole file of the same name below `other`."""
    for path in sorted((top / 'damaged').iterdir()):
        name, ending = split_name(path)
        whole = top / 'whole' / f'whole{ending}' if ending.startswith('.nii') else top / 'whole/whole.png'
        for folder, source in ((kind, path), (other, whole)):
            target = top / f'as_{kind}' / folder / f'{name}{path.name[len(name) :] if source is path else whole.suffix}'
            if ending.startswith('.nii'):
                target = top / f'as_{kind}' / folder / f'{name}{ending}'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def run(top):
    found = {}
    for kind, other in (('images', 'masks'), ('masks', 'images')):
        pair(top, kind, other)
        with contextlib.redirect_stdout(io.StringIO()):
            found[kind] = main(['', 'validate', f'--root={top}/as_{kind}', WINDOW])
    model, output = Grey(), top / 'maps'
    images = find_images([top / 'damaged'], output)
    done, _, faults = predict_files(model, images, Writer(output, model), 8)
    found['predict'] = [done, len(faults)]
    evaluate = [f'--maps={top}/as_masks/masks', f'--masks={top}/as_images/masks', f'--output={top}/sheets']
    with contextlib.redirect_stdout(io.StringIO()):
        found['evaluate'] = main(['', 'evaluate', *evaluate, '--config.evaluate.bootstrap=0'])
    # Not getrusage's figure, which counts what the process that started this one held.
    status = Path('/proc/self/status').read_text()
    found['memory'] = int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024
    return found


if __name__ == '__main__':
    Image.init()
    print(json.dumps(run(Path(sys.argv[1]))))
