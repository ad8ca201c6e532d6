"""Predicts a map for every image of a folder, at the image's own size; of DICOM and NIfTI files in their geometry.

python -m m2snet_jax predict --model=RUN|FILE --images=FOLDER|PATTERN|FILE … --output=DIR [--raw[=npy|png16]]
    [--overlay] [--threshold=T] [--batch=N] [--config=NAME] [--config.data.window=lung]

Maps are written as the released program writes them: probabilities cut to 8 bits at the network's size, then resized:
DIR/NAME.png, or NAME_1.png, NAME_2.png … of several classes. --raw writes the probabilities themselves, resized in
float, as float32 NAME.npy, or as 16-bit NAME.png. --overlay adds DIR/overlays/NAME.png, the outline of what is marked,
and --threshold adds DIR/masks/NAME.png, 255 where the probability is at least T. Any image file is read, a rotation
that EXIF asks for is applied. In a PATTERN, * is the name: 'scans/*_scan.tif'. The same command again resumes where it
stopped. A file of weights takes its model and size from --config, by default M2SNet at 352 pixels. Status 1: some
files could not be read, the others are done.

A NIfTI volume gives DIR/NAME.nii.gz, a mask on its grid, cut at T or one half, and with --raw NAME_raw.nii.gz. DICOM
files also give a DICOM SEG for each series, DIR/NAME_seg.dcm after its first file. Files of more than 8 bits need the
window that the model was trained with, or one from --config.data.window where it has none. Research use only.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 some images could not be read, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('model', None, 'folder of a run, or a file of weights', flag_values=values)
        flags.DEFINE_multi_string('images', [], 'folder, file or pattern, also several', flag_values=values)
        flags.DEFINE_string('output', None, 'folder for the maps', flag_values=values)
        flags.DEFINE_enum('raw', None, ('npy', 'png16'), 'write unquantised probabilities', flag_values=values)
        flags.DEFINE_bool('overlay', False, 'also draw what is marked on each image', flag_values=values)
        flags.DEFINE_float('threshold', None, 'also write masks cut at this probability', 0, 1, flag_values=values)
        flags.DEFINE_integer('batch', 8, 'images at once, which bounds the memory', 1, flag_values=values)

    argv = ['--raw=npy' if word in ('--raw', '-raw') else word for word in argv]
    config, _, values, words = parse(argv, __doc__, define, config='default', words=True)
    for flag in ('model', 'output'):
        if getattr(values, flag) is None:
            raise InputError(f'--{flag} is missing')
    if not values.images and not words:
        raise InputError('--images is missing: name a folder or files')

    from m2snet_jax.build import check_config
    from m2snet_jax.prediction.folders import find_images

    output = Path(values.output)
    images = find_images([*values.images, *words], output)
    check_config(config)

    from m2snet_jax.devices import memory
    from m2snet_jax.devices.programs import use_compilation_cache

    use_compilation_cache()
    memory.keep_freed_memory()
    from m2snet_jax.images.decisions import image_reading
    from m2snet_jax.prediction.folders import predict_files
    from m2snet_jax.prediction.predictor import load_model
    from m2snet_jax.prediction.writer import Writer

    predictor = load_model(values.model, config=config)
    window = config.data.window or predictor.window
    if predictor.window not in (None, window):
        raise InputError(f'--config.data.window={window}: {values.model} was trained with {predictor.window}')
    predictor.window = window
    predictor.reading = image_reading([path for _, path in images], window, predictor.reading)
    for note in predictor.reading.notes:
        print(f'note: {note}', file=sys.stderr)
    writer = Writer(output, predictor, values.raw, values.overlay, values.threshold)
    done, before, faults = predict_files(predictor, images, writer, values.batch)
    went_on = f', {before} were there already' if before else ''
    print(f'{output}: {done} of {len(images)} images predicted{went_on}', file=sys.stderr)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0
