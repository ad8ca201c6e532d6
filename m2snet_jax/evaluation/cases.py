"""Cases of a test set: the worst and best images with a lesion, and false alarms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m2snet_jax.evaluation.image_scores import read_maps
from m2snet_jax.images.drawing import case_panels
from m2snet_jax.images.reading import UNDECIDED, Reading
from m2snet_jax.storage import whole

WORST, BEST = 10, 5  # cases of each test set that are drawn
Member = tuple[int, str, list[Path], dict[str, Any]]  # index, name, paths of the maps, and `image_scores.score_maps`


def draw_cases(
    test_set: str, members: Sequence[Member], source: Any, folder: Path, reading: Reading = UNDECIDED
) -> list[dict[str, Any]]:
    """Draws the worst and best images with a lesion and the worst without, one picture a case, below `folder`.

    `source[index]` is a dict of mask, an array or a MaskFile, and image or None; `reading` is that of the maps. Each
    dict returned has kind ('worst', 'best' or 'lesion_free'), name, Dice and file, a path below `folder`.
    """

    def dice(member):
        return float(np.mean([scores['hard']['Dice'] for scores in member[-1]['scores']]))

    def pixels(member, *names):
        return sum(scores['hard'][name] for scores in member[-1]['scores'] for name in names)

    with_lesion = sorted((member for member in members if pixels(member, 'TP', 'FN')), key=dice)
    free = sorted((member for member in members if not pixels(member, 'TP', 'FN')), key=lambda one: -pixels(one, 'FP'))
    chosen = {
        'worst': with_lesion[:WORST],
        'best': with_lesion[WORST:][-BEST:][::-1],
        'lesion_free': [member for member in free if pixels(member, 'FP')][:BEST],
    }
    cases = []
    for kind, members_of_kind in chosen.items():
        for rank, member in enumerate(members_of_kind, start=1):
            path = folder / test_set / f'{kind}_{rank:02}.jpg'
            _draw(member, source, path, reading)
            cases.append({'kind': kind, 'name': member[1], 'Dice': dice(member), 'file': str(path.relative_to(folder))})
    return cases


def _draw(member, source, path, reading):
    index, _, paths, image = member
    classes = len(image['scores'])
    example = source[index]
    mask = example['mask'] if isinstance(example['mask'], np.ndarray) else example['mask'].read()
    if classes > 1:
        mask = np.where(mask > 0, 255, 0).astype(np.uint8)
    panels = case_panels(example.get('image'), mask, read_maps(paths, classes, reading).max(-1))
    with whole(path) as temporary:
        Image.fromarray(panels).save(temporary, 'JPEG', quality=85)
