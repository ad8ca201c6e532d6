"""Looks at every file of a dataset before anything is trained on it, and lists all that is wrong or worth knowing.

python -m m2snet_jax validate --config=NAME [--root=DATA] [--json] [--output=DIR] [--config.key=value …]
python -m m2snet_jax validate --root=FOLDER          a folder of your own, as configs/folder.py reads it

Problems (status 1): files that are unreadable, empty, without partner or of another size than it, masks with unknown
values, faulty lists, only empty masks to train on, images that are equal byte for byte across the split or under two
labels. Warnings (status 0): counts that differ from the published ones, masks that are not clean, full or empty, and
every pair of near-duplicate images. When every file can be used the data are prepared, with their manifest beside,
whose hash stands in the score sheets. With --output, DIR gets validate.json, duplicates.html with pairs side by side,
and two lists for --config.data.exclude: near_duplicates.txt, training images in one group of near-duplicates with a
test image, and control.txt, as many others drawn at random, to see what leaving out the first is worth.
"""

import json
import os
import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv):
    """Runs the command; returns its exit status: 0 clean, 1 problems, 2 nothing usable."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_bool('json', False, 'print the whole report as JSON', flag_values=values)
        flags.DEFINE_string('output', None, 'folder for the files that are written', flag_values=values)

    if not any(word.lstrip('-').partition('=')[0] in ('config', 'help', 'h') for word in argv[1:]):
        argv = [argv[0], '--config=folder', *argv[1:]]
    config, values, words = parse(argv, __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')

    from m2snet_jax.config import check_config
    from m2snet_jax.data.inspection import inspect
    from m2snet_jax.data.sheet import duplicates_page

    check_config(config)
    report = inspect(config, _show_progress)
    if values.output is not None:
        _write(Path(values.output), 'validate.json', json.dumps(report, indent=1) + '\n')
        if report['near_duplicates']['pairs'] and config.data.name != 'phantoms':  # which have no files
            _write(Path(values.output), 'duplicates.html', duplicates_page(report))
        for name, excluded in report['near_duplicates']['exclude'].items():
            if excluded:
                _write(Path(values.output), f'{name}.txt', ''.join(f'{one}\n' for one in excluded))
    print(json.dumps(report) if values.json else _text(report))
    return 1 if report['problems'] else 0


def _text(report):
    """Returns the report in words: a table of the splits, then problems, then warnings."""
    from m2snet_jax.data.sheet import describe_pair, summary_of

    near = report['near_duplicates']
    sections = {
        'problems': report['problems'],
        'warnings': report['warnings'],
        'pairs of near-duplicates': map(describe_pair, near['pairs']),
    }
    lines = [f'{report["dataset"]}: {report["root"]}', '', *_table(report['splits']), '']
    for title, found in sections.items():
        found = list(found)
        lines += [f'{len(found)} {title}', *(f'  {line}' for line in found), '']
    lines.append(summary_of(near))
    if report['manifest_hash']:
        lines.append(f'manifest {report["manifest_hash"]}, {report["manifest"]}')
    else:
        lines.append('no manifest: the problems stand in the way')
    return '\n'.join(lines)


def _table(splits):
    """Returns the lines of a table, one split a row."""
    columns = ('split', 'images', 'published', 'width', 'height', 'masks', 'empty', 'full', 'foreground')
    rows = [columns]
    for split, summary in splits.items():
        masks = ', '.join(f'{count} {kind}' for kind, count in summary['masks'].items())
        sides = [_range(summary[side]) for side in ('width', 'height')]
        counts = [summary['images'], summary['published'] or '', *sides, masks]
        share = '' if summary['foreground'] is None else f'{summary["foreground"]:.1%}'
        rows.append([split, *map(str, counts), str(len(summary['empty'])), str(len(summary['full'])), share])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _range(sides):
    """Returns the least and the greatest of sides as text."""
    return '' if sides is None else str(sides[0]) if sides[0] == sides[1] else f'{sides[0]} to {sides[1]}'


def _show_progress(done, total):
    if sys.stderr.isatty():
        print(f'\rlooked at {done} of {total}', end='\n' if done == total else '', file=sys.stderr, flush=True)


def _write(folder, name, text):
    """Writes a file of the output, whole or not at all."""
    temporary = folder / f'.{name}.{os.getpid()}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, folder / name)
    except OSError as error:
        raise InputError(f'--output={folder}: cannot be written ({error.strerror}); name another folder') from None
