"""Checks every file of a dataset and lists problems, warnings and near-duplicates.

python -m m2snet_jax validate --config=NAME [--root=DATA] [--json] [--output=DIR] [--config.key=value …]
python -m m2snet_jax validate --root=FOLDER          a folder of your own, as configs/folder.py reads it

Problems (exit status 1): unreadable files (also of 0 bytes), images without a mask, masks without an image, an image
and a mask of different sizes, unknown mask values, errors in train.txt, test.txt or folds.csv, no lesion in any
training mask, and identical images that are in both training and test or have different labels. Warnings (exit status
0): counts that differ from the published ones, masks with intermediate grey levels, masks without lesion (empty) or
without background (full), and near-duplicates. --json prints all pairs of near-duplicates. If there are no problems,
the data are also stored for training (docs/data.md).

--output writes to DIR: validate.json, duplicates.html, which shows the pairs, and two lists for --config.data.exclude.
near_duplicates.txt lists the training images that are in a group of near-duplicates with a test image. control.txt
lists the same number of other training images, drawn at random. To measure the effect of near-duplicates, train twice,
each time without the images of one list.
"""

import json
import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run

SHOWN = 5  # pairs of each kind in the text


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 clean, 1 problems, 2 nothing usable."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_bool('json', False, 'print the whole report as JSON', flag_values=values)
        flags.DEFINE_string('output', None, 'folder for the report, its pages and lists', flag_values=values)

    line = parse(argv, __doc__, define, config='folder')
    config, output = line.config, line.flags.output

    from m2snet_jax.build import check_config
    from m2snet_jax.data.inspection import inspect
    from m2snet_jax.report.duplicates_page import duplicates_page
    from m2snet_jax.storage import write

    check_config(config)
    report = inspect(config, _show_progress)
    if output is not None:
        near, folder = report['near_duplicates'], Path(output)
        write(folder / 'validate.json', json.dumps(report, indent=1) + '\n')
        lists = {f'{name}.txt': ''.join(f'{one}\n' for one in listed) for name, listed in near['exclude'].items()}
        has_page = near['pairs'] and config.data.name != 'phantoms'  # which have no files
        for name, text in {**lists, 'duplicates.html': duplicates_page(report) if has_page else ''}.items():
            if text:
                write(folder / name, text)
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier state of the data
    print(json.dumps(report) if line.flags.json else _text(report))
    return 1 if report['problems'] else 0


def _text(report):
    """Returns the report as text: a table of the splits, problems, warnings, near-duplicates."""
    from m2snet_jax.report.duplicates_page import summary_of

    near = report['near_duplicates']
    lines = [f'{report["dataset"]}: {report["root"]}', '', *_split_table(report['splits']), '']
    for title in ('problems', 'warnings', 'notes'):
        if title == 'notes' and not report[title]:
            continue
        lines += [f'{len(report[title])} {title}', *(f'  {line}' for line in report[title]), '']
    lines += [*_pairs_by_kind(near), summary_of(near)]
    if report['manifest_hash']:
        lines.append(f'manifest {report["manifest_hash"]}, {report["manifest"]}')
    else:
        lines.append('no manifest; correct the problems first')
    return '\n'.join(lines)


def _pairs_by_kind(near):
    """Returns the lines of a table of near-duplicates by splits, and of the first few pairs of each kind."""
    from m2snet_jax.report.duplicates_page import describe_pair

    if not near['pairs']:
        return []
    rows = [(' and '.join(dict.fromkeys(row['splits'])), row['identical'], row['near']) for row in near['counts']]
    lines = [f'{len(near["pairs"])} pairs of near-duplicates']
    lines += [f'  {line}' for line in _aligned([('splits', 'identical', 'near'), *rows])]
    # Of equal kind, a pair with an image that is trained on and one that is not is the worst.
    worst = sorted(near['pairs'], key=lambda pair: (not pair['across_split'], not pair['across_labels']))
    in_two = [pair for pair in worst if len(set(pair['splits'])) == 2]
    kinds = {
        'identical, in two splits': [pair for pair in in_two if pair['identical']],
        'near, in two splits': [pair for pair in in_two if not pair['identical']],
        'in one split': [pair for pair in worst if len(set(pair['splits'])) == 1],
    }
    for kind, pairs in kinds.items():
        if pairs:
            first = f': the first {SHOWN} of {len(pairs)}' if len(pairs) > SHOWN else ''
            lines += ['', f'{kind}{first}', *(f'  {describe_pair(pair)}' for pair in pairs[:SHOWN])]
    if any(len(pairs) > SHOWN for pairs in kinds.values()):
        lines += ['', f'all {len(worst)} pairs: --json, or --output=DIR for validate.json and duplicates.html']
    return [*lines, '']


def _split_table(splits):
    """Returns the lines of a table, one split a row."""
    columns = ('split', 'images', 'published', 'width', 'height', 'masks', 'empty', 'full', 'foreground')
    rows: list = [columns]
    for split, summary in splits.items():
        masks = ', '.join(f'{count} {kind}' for kind, count in summary['masks'].items())
        sides = [_range(summary[side]) for side in ('width', 'height')]
        counts = [summary['images'], summary['published'] or '', *sides, masks]
        share = '' if summary['foreground'] is None else f'{summary["foreground"]:.1%}'
        rows.append([split, *counts, len(summary['empty']), len(summary['full']), share])
    return _aligned(rows)


def _aligned(rows):
    """Returns the lines of rows with their columns aligned."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _range(sides):
    """Returns the least and the greatest of sides as text."""
    return '' if sides is None else str(sides[0]) if sides[0] == sides[1] else f'{sides[0]} to {sides[1]}'


def _show_progress(done, total):
    if sys.stderr.isatty():
        print(f'\rchecked {done} of {total}', end='\n' if done == total else '', file=sys.stderr, flush=True)
