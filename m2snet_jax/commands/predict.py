"""Predicts a map for every image of a folder, at the image's own size. DICOM and NIfTI files keep their geometry.

python -m m2snet_jax predict --model=RUN|FILE|PATTERN … --images=FOLDER|PATTERN|FILE … --output=DIR
    [--raw[=npy|png16]] [--overlay] [--threshold=T] [--batch=N] [--table=FILE.csv|FILE.json [--smallest=N]]
    [--frames=png|clip] [--smooth=N]
    [--config=NAME] [--config.data.window=lung] [--tta=flips] [--uncertainty] [--calibrated]

DIR/NAME.png is the map as the released program writes it: 8-bit probabilities at the network's size, then resized. For
several classes the maps are NAME_1.png, NAME_2.png and so on. Instead of 8-bit maps, --raw writes float32 maps
NAME.npy, and --raw=png16 writes 16-bit maps NAME.png. --overlay adds DIR/overlays/NAME.png, the image with the outline
of the mask at --threshold (default 0.5). --threshold adds DIR/masks/NAME.png, 255 where the probability is at least T.
Images are turned as their EXIF data say. In --images, * is the name: 'scans/*_scan.tif'. To resume an interrupted
prediction, repeat the command. For a file of weights, --config defines the model and its size, by default M2SNet at 352
pixels. Exit status 1: some files could not be read; the others are predicted.

With several models (--model repeated, or a pattern in quotes such as 'runs/fold*-seed*') the map is the mean of their
probabilities. --uncertainty, with several models or flips, adds DIR/uncertainty/NAME.png, the entropy of the map (255:
one bit), and DIR/uncertainty.csv.

--table writes a row for each lesion: its position, area, diameters, circularity and probability. Area and diameters are
also in mm if the file has the spacing (see docs/measurement.md). --smallest leaves out lesions of fewer than N pixels
(of a volume: voxels).

A clip, e.g. clip.mp4, is predicted frame by frame: --frames=png (default) writes DIR/NAME/000000.png and so on,
--frames=clip the lossless DIR/NAME_maps.mkv; --threshold adds the masks, DIR/masks/NAME/000000.png and so on or
DIR/masks/NAME.mkv. --overlay adds DIR/overlays/NAME.mp4. --smooth=N averages the probabilities of the last N frames.
The table has the number and the time of each frame. If the command is repeated, clips are predicted again (see
docs/video.md).

For a NIfTI volume, DIR/NAME.nii.gz is a mask on the grid of the volume, 1 where the probability is at least T (default
0.5); --raw adds the float32 map, DIR/NAME_raw.nii.gz. For DICOM files, DIR/NAME_seg.dcm is one DICOM SEG for each
series, named after the first file of the series. DICOM and NIfTI files of more than 8 bits need a window: that of the
model or, if it has none, --config.data.window. Research use only.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import define_models, load_predictor, parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 some images could not be read, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        define_models(values)
        flags.DEFINE_multi_string('images', [], 'folder, file or pattern; several are allowed', flag_values=values)
        flags.DEFINE_string('output', None, 'folder for the maps', flag_values=values)
        flags.DEFINE_enum(
            'raw', None, ('npy', 'png16'), 'write float32 or 16-bit maps instead of 8-bit maps', flag_values=values
        )
        flags.DEFINE_bool('overlay', False, 'also draw the outline of the mask on each image', flag_values=values)
        flags.DEFINE_float('threshold', None, 'also write masks, with this threshold', 0, 1, flag_values=values)
        flags.DEFINE_string('table', None, 'file for the findings, .csv or .json', flag_values=values)
        flags.DEFINE_integer('smallest', 0, 'in the table, leave out lesions of fewer pixels', 0, flag_values=values)
        flags.DEFINE_integer('batch', 8, 'images in a batch; a smaller batch needs less memory', 1, flag_values=values)
        flags.DEFINE_bool('uncertainty', False, 'also write the entropy of each map', flag_values=values)
        flags.DEFINE_enum(
            'frames', 'png', ('png', 'clip'), 'maps of a clip: one PNG for each frame, or one clip', flag_values=values
        )
        flags.DEFINE_integer('smooth', 1, 'average probabilities over the last N frames', 1, flag_values=values)

    argv = ['--raw=npy' if word in ('--raw', '-raw') else word for word in argv]
    config, _, values, words = parse(argv, __doc__, define, config='default', words=True)
    for flag in ('model', 'output'):
        if not getattr(values, flag):
            raise InputError(f'--{flag} is missing')
    if not values.images and not words:
        raise InputError('--images is missing: name a folder or files')

    from m2snet_jax.build import check_config
    from m2snet_jax.data.pairs import join_names
    from m2snet_jax.measurement.findings import FrameFindings, about_table, check_ending, write_table
    from m2snet_jax.prediction.folders import find_images
    from m2snet_jax.prediction.video import check_clips, find_clips, predict_clips

    if values.table is not None:
        check_ending(values.table)
    elif values.smallest:
        raise InputError('--smallest is for the table; name one with --table')
    output = Path(values.output)
    clips, rest = find_clips([*values.images, *words], output)
    if clips and values.raw:
        raise InputError(f'--raw={values.raw}: not for clips ({clips[0][1]}); leave it out')
    if clips and values.uncertainty:
        raise InputError(f'--uncertainty: not for clips ({clips[0][1]}); predict the clips without it')
    images = find_images(rest, output) if rest else []
    check_clips(clips, images, output, values.frames, values.smooth)
    folders = sorted({name.rpartition('/')[0] or '.' for name, _ in images})
    if len(folders) > 1:
        print(f'note: images of {len(folders)} folders are predicted: {join_names(folders)}', file=sys.stderr)
    check_config(config)

    from m2snet_jax.devices import memory
    from m2snet_jax.devices.programs import use_compilation_cache

    use_compilation_cache()
    memory.keep_freed_memory()
    from m2snet_jax.images.decisions import image_reading
    from m2snet_jax.measurement.predicted import predicted_findings
    from m2snet_jax.prediction.folders import predict_files
    from m2snet_jax.prediction.writer import Writer

    predictor = load_predictor(values, config)
    if values.uncertainty and predictor.passes == 1:
        raise InputError('--uncertainty: needs several models (--model repeated, or a pattern) or --tta=flips')
    window = config.data.window or predictor.window
    if predictor.window not in (None, window):
        raise InputError(f'--config.data.window={window}: {values.model[0]} was trained with {predictor.window}')
    predictor.window = window
    if images:
        predictor.reading = image_reading([path for _, path in images], window, predictor.reading)
    for note in predictor.reading.notes:
        print(f'note: {note}', file=sys.stderr)
    doubt = {'uncertainty': values.uncertainty, 'variant': predictor.variant}
    writer = Writer(output, predictor, values.raw, values.overlay, values.threshold, **doubt)
    done, before, faults = predict_files(predictor, images, writer, values.batch)
    went_on = f', {before} were there already' if before else ''
    if images:
        print(f'{output}: {done} of {len(images)} images predicted{went_on}', file=sys.stderr)
    cut = 0.5 if values.threshold is None else values.threshold
    settings = {'frames': values.frames, 'outline': values.overlay, 'smooth': values.smooth, 'batch': values.batch}
    settings |= {'threshold': cut, 'with_masks': values.threshold is not None}
    frames = FrameFindings(values.smallest) if clips and values.table else None
    faults += predict_clips(predictor, clips, output, on_frame=frames and frames.add, **settings)
    if values.table is not None:
        found, notes = predicted_findings(images, writer, predictor.classes, cut, values.smallest, values.raw)
        rows = [row for one in found for row in one.rows()] + (frames.rows if frames else [])
        write_table(values.table, rows, about_table(found, cut, values.smallest, notes, frames))
        for note in notes:
            print(f'note: {note}', file=sys.stderr)
        print(f'{values.table}: {len(rows)} lesions', file=sys.stderr)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0
