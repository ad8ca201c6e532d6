"""The model card of a run: what the model is, its data and training, its scores and its limits.

It is Markdown in the form that model hubs show, for people who get the weights without the rest of the folder.
"""

import collections
import csv
import importlib
from pathlib import Path

from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.evaluation.table import bounds, departures, number, sections, test_sets
from m2snet_jax.report.page import run_name
from m2snet_jax.storage import write

NAMES = {
    'm2snet': 'M²SNet',
    'msnet': 'MSNet',
    'res2net50': 'Res2Net-50',
    'res2net101': 'Res2Net-101',
    'resnet50': 'ResNet-50',
    'vgg16': 'VGG-16',
    'pvt_v2_b2': 'PVT v2-B2',
    'res2net14': 'Res2Net-14 (one block per stage; for tests)',
}
SWITCHES = ('model.columns', 'model.filters', 'model.operation', 'model.add_level')


def write_card(scores: Scores, folder: str | Path) -> Path:
    """Writes `model_card.md` of the Scores of a model into the folder of its run or evaluation; returns its path.

    Raises:
        InputError: it cannot be written.
    """
    folder, summary = Path(folder), scores.summary
    parts = (_head(folder, summary), _data(folder, summary), _training(summary), _scores(summary), _limits(summary))
    path = folder / 'model_card.md'
    write(path, '\n'.join(filter(None, (*parts, _TERMS))))
    return path


def _head(folder, summary):
    config = summary['config']
    model, encoder = (NAMES.get(config['model'][key], config['model'][key]) for key in ('name', 'encoder'))
    size, classes = config['data']['size'], config['data']['classes']
    switches = [f'`{key}` {_value(now)}' for key, _, now in departures(config) if key in SWITCHES]
    maps = 'a map of probabilities' if classes == 1 else f'{classes} maps of probabilities, one per class,'
    facts = {
        'Network': f'{model} with the encoder {encoder}, run at {size}×{size} pixels',
        'Switches of the network': ', '.join(switches),
        'Weights': summary.get('model'),
        'SHA-256 of the weights': f'`{summary["model_hash"]}`',
        'Versions': ', '.join(f'{name} {version}' for name, version in summary.get('versions', {}).items()),
    }
    name = summary.get('models') or summary.get('model', run_name(folder))
    shape = '[H, W]' if classes == 1 else f'[H, W, {classes}]'
    lines = '\n'.join(f'- {key}: {_text(value)}' for key, value in facts.items() if value)
    return f"""---
library_name: m2snet_jax
pipeline_tag: image-segmentation
tags: [medical-imaging, segmentation, {config['model']['name']}, jax, flax]
---

# Model card: {_text(run_name(folder))}

**For research. Not a medical device: not tested, approved or fit for diagnosis or treatment.**

## What it is

{model} is a network that segments lesions in medical images. It predicts {maps} at the size of the image.

{lines}

```python
from m2snet_jax import load_model

probability = load_model({name!r})('image.png')  # float32 {shape} in [0, 1]
```
"""


def _data(folder, summary):
    config = summary['config']
    about = importlib.import_module(f'm2snet_jax.data.datasets.{config["data"]["name"]}').__doc__ or ''
    first_line, _, _ = about.partition('\n')
    path = folder / 'manifest.csv'
    if path.exists():
        with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            counts = collections.Counter(row['split'] for row in csv.DictReader(file))
        where = ' `manifest.csv` lists every image with its split, size and SHA-256.'
    else:
        counts, where = {name: entry['images'] for name, entry in test_sets(summary)}, ''
    fold, test = config['data'].get('fold'), ''
    if 'cross_validation' in summary:
        test = ' Every fold is the test, each of the models that were not trained on it.'
    elif fold is not None:
        test = f' Fold {fold} is the test.'
    return f"""## Data

`{config['data']['name']}`: {_text(first_line)}{test}

{_table(('split', 'images'), counts.items())}

SHA-256 of the list of files and splits: `{summary.get('manifest_hash')}`.{where}
"""


def _training(summary):
    if 'step' not in summary:
        return ''  # of an evaluation: how the weights were trained is not recorded there
    config = summary['config']
    rows = [(f'`{key}`', _value(before), _value(now)) for key, before, now in departures(config)]
    scored = summary.get('scored_step', summary['step'])
    chosen = '' if scored == summary['step'] else f' The model is that of step {scored}, chosen by `select`.'
    changed = 'All settings are those of the released recipe of the polyp sets.'
    if rows:
        changed = f'Different from the released recipe:\n\n{_table(("key", "released", "here"), rows)}'
    starts = {
        'whole model': config['model'].get('weights'),
        'encoder': config['model'].get('encoder_weights'),
        'LossNet': config['loss'].get('lossnet_weights') if config['loss']['lossnet'] else None,
    }
    given = [f'{name} from `{_text(source)}`' for name, source in starts.items() if source]
    start = f'Weights at the start: {"; ".join(given) or "random"}.'
    return f"""## Training

{summary['step']} steps of {config['batch']} images, seed {config['seed']}.{chosen} {start}

{changed}
"""


def _scores(summary):
    bootstrap, parts = summary['bootstrap'], []
    for test_set, entry in test_sets(summary):
        parts.append(f'### {_text(test_set)}: {entry["images"]} images\n')
        for title, explanation, rows in sections(summary, test_set):
            heads = ('score', 'here') + ((f'{bootstrap["level"]:.0%} interval',) if bootstrap['resamples'] else ())
            lines = [(row['name'].replace('_', ' '), number(row), bounds(row))[: len(heads)] for row in rows]
            parts.append(f'**{title}**: {_text(explanation)}\n\n{_table(heads, lines)}\n')
    note = (
        'Scores are fractions. The best value is 1, except for the errors MAE and BER and the distances HD95 and ASSD'
        ' in pixels, whose best value is 0.'
    )
    if bootstrap['resamples']:
        note += (
            f' Intervals are from {bootstrap["resamples"]} bootstrap resamples of the test images. They are valid for'
            ' other images of the same kind, not for another seed or hospital.'
        )
    return f'## Scores\n\n{note}\n\n' + '\n'.join(parts)


def _limits(summary):
    config = summary['config']
    limits = [_text(warning) for warning in summary['warnings']]
    if config['data']['name'] == 'phantoms':
        limits.append('It was trained only on generated images. Its maps of real images are not meaningful.')
    else:
        limits.append(
            'The scores are valid for images like those above. On images of another kind, device, hospital or group of'
            ' patients the maps may be much worse.'
        )
    for test_set, _ in test_sets(summary):
        classes = config['data']['classes']
        for k in range(1, classes + 1):
            prefix, about = ('', '') if classes == 1 else (f'class{k}/', f', class {k}')
            counts = (summary['scores'].get(f'{test_set}/{prefix}hard/{name}', 'nan') for name in ('missed', 'count'))
            missed, count = map(float, counts)
            if missed > 0:
                limits.append(
                    f'{_text(test_set)}{about}: the map is empty in {missed:.0f} of {count:.0f} images with a lesion.'
                )
        alarms = float(summary['scores'].get(f'{test_set}/lesion_free/false_positive_share', 'nan'))
        if alarms > 0:
            limits.append(f'{_text(test_set)}: the map marks pixels in {alarms:.0%} of the images without a lesion.')
    limits.append('Its probabilities may be miscalibrated: see the calibration in `report.html`.')
    limits.append('It predicts a map for every image, also for images without a lesion or of another kind.')
    return '## Limits\n\n' + '\n'.join(f'- {limit}' for limit in limits) + '\n'


def _table(heads, rows):
    lines = [heads, ('---',) * len(heads), *rows]
    return '\n'.join(f'| {" | ".join(str(cell) for cell in line)} |' for line in lines)


def _value(value):
    if isinstance(value, list):
        return _text(' '.join(map(str, value))) or '()'
    return 'none' if value is None else _text(value)


def _text(value):
    """Returns text without the characters of Markdown, tables and HTML."""
    text = ' '.join(str(value).split()).replace('&', '&amp;').replace('<', '&lt;')
    return text if text.startswith('`') else text.replace('|', '&#124;').replace('*', '&#42;')


_TERMS = """## Licence

The program m2snet_jax is under Apache 2.0. The terms of the data above, and of the weights at the start of training,
also apply to the weights of this model. They often allow only research and teaching. Check them before you share the
weights.

## Citation

```bibtex
@inproceedings{zhao2021automatic,
  title     = {Automatic Polyp Segmentation via Multi-scale Subtraction Network},
  author    = {Zhao, Xiaoqi and Zhang, Lihe and Lu, Huchuan},
  booktitle = {Medical Image Computing and Computer Assisted Intervention (MICCAI)},
  year      = {2021}
}
@article{zhao2023m2snet,
  title   = {M$^{2}$SNet: Multi-scale in Multi-scale Subtraction Network for Medical Image Segmentation},
  author  = {Zhao, Xiaoqi and Jia, Hongpeng and Pang, Youwei and Lv, Long and Tian, Feng and Zhang, Lihe
             and Sun, Weibing and Lu, Huchuan},
  journal = {arXiv preprint arXiv:2303.10894},
  year    = {2023}
}
```

Cite the authors of the data as well.
"""
