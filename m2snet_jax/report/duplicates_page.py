"""The page of near-duplicates: their counts, and every pair side by side."""

from typing import Any

import cv2

from m2snet_jax.images.formats import read_image
from m2snet_jax.report.rendering import picture_url, render

SIDE = 220  # largest, in pixels, of a picture on the page
SHOWN = 500  # pairs at most: browsers fail on a page of more


def duplicates_page(report: dict[str, Any]) -> str:
    """Returns the page of a report of `inspect`: counts by split, then the pairs.

    Pairs across the split come first, and of these identical images.

    Raises:
        InputError: an image cannot be read.
    """
    near = report['near_duplicates']
    pairs = sorted(near['pairs'], key=lambda pair: (not pair['across_split'], not pair['identical']))
    summary = summary_of(near)
    if len(pairs) > SHOWN:
        summary += f' The first {SHOWN} are shown; the report lists all.'
    return render(
        'duplicates.html.j2',
        title=f'Near-duplicates in {report["dataset"]}',
        counts=near.get('counts', []),
        summary=summary,
        pairs=[_pair(pair, report['window']) for pair in pairs[:SHOWN]],
    )


def summary_of(near: dict[str, Any]) -> str:
    """Returns the number of near-duplicates in a sentence; `near` is `near_duplicates` of a report."""
    if not near['pairs']:
        return 'No near-duplicates.'
    text = (
        f'{len(near["pairs"])} pairs of near-duplicates in {near["groups"]} groups ({near["images"]} images, the '
        f'largest group {near["largest_group"]}); {near["across_split"]} pairs across the split'
    )
    if near['across_folds']:
        text += f', {near["across_folds"]} across folds'
    if near['across_labels']:
        text += f', {near["across_labels"]} across labels'
    if near['near_training']:
        counts = ', '.join(f'{count} of {split}' for split, count in near['near_training'].items())
        text += f'; images with one in train: {counts}'
    return text + '.'


def describe_pair(pair: dict[str, Any]) -> str:
    """Returns one pair in a line."""
    names = [f'{name} ({split})' for name, split in zip(pair['names'], pair['splits'], strict=True)]
    return f'{" and ".join(names)}: {_remarks(pair)}'


def _remarks(pair):
    """Returns how similar the images of a pair are, and what it crosses."""
    similarity = 'byte for byte the same' if pair['identical'] else f'correlation {pair["correlation"]:.3f}'
    return ', '.join([similarity, *(f'across the {word}' for word in ('split', 'labels') if pair[f'across_{word}'])])


def _pair(pair, window):
    images = [
        {'name': name, 'split': split, 'url': _thumbnail_url(path, window)}
        for name, split, path in zip(pair['names'], pair['splits'], pair['paths'], strict=True)
    ]
    return {'across': pair['across_split'], 'remarks': _remarks(pair), 'images': images}


def _thumbnail_url(path, window):
    image = read_image(path, window)
    scale = min(1, SIDE / max(image.shape))
    return picture_url(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
