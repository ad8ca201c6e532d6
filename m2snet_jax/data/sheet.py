"""One self-contained HTML page that shows near-duplicates side by side."""

import base64
import html

import cv2

from m2snet_jax.images import read_image

SIDE = 220  # largest, in pixels, of a picture on the page
SHOWN = 500  # pairs at most: a page of more opens nowhere

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Near-duplicates in {dataset}</title>
<style>
:root {{ color-scheme: light dark; --line: #8888; --mark: #b45309; }}
@media (prefers-color-scheme: dark) {{ :root {{ --mark: #fbbf24; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); gap: 1rem; }}
section {{ border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }}
section.across {{ border: 2px solid var(--mark); }}
div {{ display: flex; gap: .6rem; }}
figure {{ margin: 0; flex: 1 1 0; min-width: 0; }}
img {{ width: 100%; height: auto; display: block; }}
figcaption {{ overflow-wrap: anywhere; font-size: 13px; }}
p {{ margin: 0 0 .4rem; }}
</style></head><body>
<h1>Near-duplicates in {dataset}</h1>
<p>{summary}</p>
<p>Two images are near-duplicates when their grey, averaged to 64×64, has a correlation of 0.98 or more. A pair with a
thick border and the words “across the split” has one image among those trained on and the other elsewhere: a score on
the other is flattered.</p>
<main>
{pairs}
</main></body></html>
"""


def duplicates_page(report):
    """Returns the page of a report of `inspect`, pairs across the split first."""
    near = report['near_duplicates']
    pairs = sorted(near['pairs'], key=lambda pair: not pair['across_split'])
    summary = summary_of(near)
    if len(pairs) > SHOWN:
        summary += f' Shown are {SHOWN} of them; the report names all.'
    shown = '\n'.join(_section(pair, report['window']) for pair in pairs[:SHOWN])
    return _PAGE.format(dataset=html.escape(report['dataset']), summary=html.escape(summary), pairs=shown)


def summary_of(near):
    """Returns in words how many near-duplicates there are."""
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


def describe_pair(pair):
    """Returns one pair in a line."""
    names = [f'{name} ({split})' for name, split in zip(pair['names'], pair['splits'], strict=True)]
    return f'{" and ".join(names)}: {", ".join(_marks(pair))}'


def _marks(pair):
    """Returns what is to be said of a pair."""
    alike = 'byte for byte the same' if pair['identical'] else f'correlation {pair["correlation"]:.3f}'
    return [alike, *(f'across the {word}' for word in ('split', 'labels') if pair[f'across_{word}'])]


def _section(pair, window):
    """Returns one pair as HTML."""
    figures = ''.join(
        f'<figure><img alt="{html.escape(name)}" loading="lazy" src="{_picture(path, window)}">'
        f'<figcaption>{html.escape(name)} · {html.escape(split)}</figcaption></figure>'
        for name, split, path in zip(pair['names'], pair['splits'], pair['paths'], strict=True)
    )
    kind = ' class="across"' if pair['across_split'] else ''
    return f'<section{kind}><p>{html.escape(", ".join(_marks(pair)))}</p><div>{figures}</div></section>'


def _picture(path, window):
    """Returns an image file, made smaller, as a URL that holds it."""
    image = read_image(path, window)
    scale = min(1, SIDE / max(image.shape))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode('.jpg', small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode()
