"""From a map and a mask, as arrays or files, to their scores: the work that is done for each image on every core."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from m2snet_jax import metrics
from m2snet_jax.errors import InputError
from m2snet_jax.images import read_image, read_mask, write_png
from m2snet_jax.metrics import hard, pranet, reference
from m2snet_jax.metrics.counts import Counts
from m2snet_jax.metrics.workers import in_processes

NOTES = {
    'resized': 'maps of another size than their mask, resized by the rule of each protocol',
    'sixteen_bit': 'maps of 16 bits, divided by 257',
    'logical': 'masks of 0 and 1, handed to pranet as 0 and 255 (to the letter it would find them empty)',
}


def score_maps(maps, mask, classes):
    """Scores the maps of one image.

    Args:
        maps: uint8 [H, W, C].
        mask: uint8 [H, W]; levels for one class, else class indices.
        classes: C.

    Returns:
        dict of `scores`, a list with `metrics.score_all` for each class; `calibration`, float64 [C, 3, bins]; `levels`,
        float64 [C, 2, 256], the pixels of each level and the lesion pixels among them; and `notes`, a list of keys of
        `NOTES`.
    """
    notes = ['resized'] if maps.shape[:2] != mask.shape else []
    if classes == 1 and mask.max() == 1:
        mask = mask * np.uint8(255)
        notes.append('logical')
    pairs = [(maps[..., 0], mask)] if classes == 1 else metrics.class_pairs(maps, mask)
    prepared = [hard.prepare(*pair) for pair in pairs]
    return {
        'scores': [metrics.score_all(prediction, truth) for prediction, truth in pairs],
        'calibration': np.stack([metrics.calibration_counts(*pair) for pair in prepared]),
        'levels': np.stack([metrics.calibration_counts(*pair, 256)[::2] for pair in prepared]),
        'notes': notes,
    }


def score_files(map_paths, mask, classes):
    """`score_maps` of map files, one a class, and a mask, as an array or a file.

    A file that cannot be used gives a dict of `fault`, the reason, alone.
    """
    try:
        mask = mask if isinstance(mask, np.ndarray) else read_mask(mask)
        result = score_maps(read_maps(map_paths), mask, classes)
    except InputError as error:
        return {'fault': str(error)}
    with Image.open(map_paths[0]) as header:
        if header.mode.startswith('I'):
            result['notes'].append('sixteen_bit')
    return result


def read_maps(paths):
    """Reads the map files of one image, one a class, as uint8 [H, W, C]: 16 bits ÷257, colour as its luma."""
    maps = [np.asarray(Image.fromarray(read_image(path)).convert('L')) for path in paths]
    if len({one.shape for one in maps}) > 1:
        raise InputError(f'{paths[0]}: the maps of the other classes have another size; give all the same')
    return np.stack(maps, -1)


def throughput(pairs=24, images=798, height=288, width=352, seed=0):
    """Times scoring on generated lesions, for the command `benchmark`.

    Args:
        pairs: scored one by one in this process.
        images: pairs of PNG files scored on every core, 798 being the five polyp test sets together.
        height, width, seed: of the pairs.

    Returns:
        dict: medians in milliseconds an image `all_but_wFm` (reference and pranet without the weighted F-measure),
        `both_protocols` (with it), `hard` (with surface distances) and `everything` (`score_all`); `images` and the
        `seconds` they took with reading.
    """
    generator = np.random.default_rng(seed)
    examples = [_lesion_and_map(generator, height, width) for _ in range(pairs)]

    def both(prediction, mask):
        counts = Counts(*reference.prepare(prediction, mask))
        reference.score(counts), pranet.score(counts)

    def all_but_weighted(prediction, mask):
        counts = Counts(*reference.prepare(prediction, mask))
        counts.__dict__['weighted_errors'] = (0.0, 0.0)
        reference.score(counts), pranet.score(counts)

    def hard_alone(prediction, mask):
        hard.score(Counts(*hard.prepare(prediction, mask)))

    functions = {
        'all_but_wFm': all_but_weighted,
        'both_protocols': both,
        'hard': hard_alone,
        'everything': metrics.score_all,
    }
    result = {name: 1e3 * statistics.median(_times(function, examples)) for name, function in functions.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (prediction, mask) in enumerate(examples):
            paths.append((Path(folder) / f'{number}_map.png', Path(folder) / f'{number}_mask.png'))
            write_png(paths[-1][0], prediction)
            write_png(paths[-1][1], mask)
        jobs = (([paths[k % pairs][0]], paths[k % pairs][1], 1) for k in range(images))
        begun = time.perf_counter()
        for _ in in_processes(score_files, jobs, images):
            pass
        return result | {'images': images, 'seconds': time.perf_counter() - begun}


def _times(function, examples):
    for example in examples:
        begun = time.perf_counter()
        function(*example)
        yield time.perf_counter() - begun


def _lesion_and_map(generator, height, width):
    """A map with soft borders and noise, and the elliptic mask that it nearly meets."""
    rows, columns = np.mgrid[:height, :width]

    def distance(shift):
        row, column = (rows - height / 2 - shift) / radii[0], (columns - width / 2 - shift) / radii[1]
        return np.sqrt(row**2 + column**2)

    radii = generator.uniform(0.1, 0.3, 2) * (height, width)
    soft = 1 / (1 + np.exp(12 * (distance(5) - 1) + generator.normal(0, 0.3, (height, width))))
    return (255 * soft).astype(np.uint8), np.where(distance(0) < 1, 255, 0).astype(np.uint8)
