"""Counts and measures the lesions in masks of any origin, and compares them with those of a reference.

python -m m2snet_jax measure --masks=MASKS [--images=IMAGES] [--table=FILE.csv|FILE.json] [--smallest=N]
    [--threshold=T]
python -m m2snet_jax measure --masks=MASKS --reference=MASKS [--images=IMAGES] [--output=DIR] [--overlap=O]

MASKS and IMAGES are folders, or patterns in which * is the name. The table has a row for each lesion; without --table
and --reference it is printed. Levels of a mask are cut at --threshold, by default 0.5. Files with class indices need
--config.data.classes; maps that `predict` wrote for several classes do not. Areas and diameters are also in mm, and
volumes in ml, if the mask, or the image of the same name in IMAGES, is a DICOM or NIfTI file that contains the spacing.
The slices of a DICOM series are one volume. --smallest leaves out lesions of fewer than N pixels (of a volume: voxels).

With --reference, lesions of the masks and of the reference are paired one to one if their intersection over union is at
least O (default 0.5). Paired lesions are 'found', the others 'missed' (in the reference) or 'invented' (in the masks).
DIR, by default agreement, gets agreement.csv, with a row for each lesion, and agreement.html, with Bland-Altman charts.
Exit status 1: some files could not be read, or have no partner; the others are measured. Research use only.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 some files were not measured, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('masks', None, 'folder or pattern of masks', flag_values=values)
        flags.DEFINE_string('reference', None, 'folder or pattern of masks to compare with', flag_values=values)
        flags.DEFINE_string('images', None, 'folder or pattern of the images, for the spacing', flag_values=values)
        flags.DEFINE_string('table', None, 'file for the findings, .csv or .json', flag_values=values)
        flags.DEFINE_string('output', None, 'with --reference: folder for table and page', flag_values=values)
        flags.DEFINE_integer(
            'smallest', 0, 'leave out lesions of fewer than this number of pixels', 0, flag_values=values
        )
        flags.DEFINE_float('threshold', 0.5, 'probability from which a pixel is lesion', 0, 1, flag_values=values)
        flags.DEFINE_float(
            'overlap', 0.5, 'with --reference: smallest intersection over union of a pair', 0, 1, flag_values=values
        )

    config, _, values, _ = parse(argv, __doc__, define, config='default')
    if values.masks is None:
        raise InputError('--masks is missing: name a folder of masks')
    if values.output is not None and values.reference is None:
        raise InputError('--output is for a comparison; name its --reference, or a file with --table')
    for flag in ('threshold', 'overlap'):
        if values[flag].value == 0:
            raise InputError(f'--{flag}=0: every pixel or pair would count; give a number above 0')

    from m2snet_jax.measurement.findings import about_table, check_ending, table_text, write_table
    from m2snet_jax.measurement.mask_folders import MaskImages, measure_masks

    if values.table is not None:
        check_ending(values.table)
    masks = MaskImages(values.masks, 'masks', config.data, values.threshold, values.images)
    found, notes, faults = measure_masks(masks, values.smallest)
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    about = about_table(found, values.threshold, values.smallest, notes)
    rows = [row for one in found for row in one.rows()]
    if values.table is not None:
        write_table(values.table, rows, about)
        print(f'{values.table}: {len(rows)} lesions in {about["images"]} images', file=sys.stderr)
    elif values.reference is None:
        print(table_text(rows, about), end='')
    if values.reference is not None:
        faults = _compare(values, config, masks.names, found, faults, about)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0


def _compare(values, config, names, found, faults, about):
    """Compares the findings of images `names` with the reference and writes table and page; returns all faults."""
    from m2snet_jax.measurement.agreement import compare_findings
    from m2snet_jax.measurement.findings import rows_text
    from m2snet_jax.measurement.mask_folders import MaskImages, measure_masks, pair_findings
    from m2snet_jax.report.agreement_page import agreement_page
    from m2snet_jax.storage import write

    reference = MaskImages(values.reference, 'reference', config.data, values.threshold, values.images)
    others, _, unread = measure_masks(reference, values.smallest)
    mine, other, faults = pair_findings(found, others, (names, reference.names), [*faults, *unread])
    agreement = compare_findings(mine, other, values.overlap)
    about = {
        'masks': values.masks,
        'reference': values.reference,
        'images': len({one.image for one in mine}),
        'overlap': f'intersection over union of at least {values.overlap:g}',
        'threshold': values.threshold,
        'smallest': about['smallest'],
    }
    left_out = {'left out': faults} if faults else {}
    output = Path(values.output or 'agreement')
    write(output / 'agreement.csv', rows_text(agreement.rows, about | left_out))
    write(output / 'agreement.html', agreement_page(agreement, about, faults))
    counts = ', '.join(f'{agreement.count(outcome)} {outcome}' for outcome in ('found', 'missed', 'invented'))
    print(f'{counts} lesions in {about["images"]} images (overlap of at least {values.overlap:g})')
    for one in agreement.differences:
        limits = '' if one.low is None else f', limits of agreement {one.low:.4g} to {one.high:.4g}'
        print(f'{one.measure}: mean difference {one.bias:.4g}{limits}')
    print(f'page: {output / "agreement.html"}', file=sys.stderr)
    return faults
