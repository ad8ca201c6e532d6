"""Exports a trained model as one file: a program from images to maps of the same size, or only the weights.

python -m m2snet_jax export --model=RUN|FILE|PATTERN … [--format=stablehlo|onnx|safetensors] [--output=FILE]
    [--images=FOLDER|FILE …] [--tolerance=T] [--config=NAME]

stablehlo: for JAX on CPU, NVIDIA GPU and TPU (jax.export). onnx: for ONNX Runtime and others; needs optional packages,
see docs/export.md. Both take uint8 [B, H, W, 3] of any batch and size. Both files contain the resize, the
normalisation, the network with folded batch norms, and the resize back. safetensors: only the weights, with PyTorch's
names, as `convert` writes them.

Several models, --model repeated or a pattern in quotes, become one file that returns the mean of their probabilities;
they must run at one size. safetensors takes one model.

The file is compared with `predict` on noise and on up to eight of --images (default: a generated image). If a
probability differs by more than --tolerance T, or an 8-bit level by more than 1 + 255 T, the file is not kept and the
exit status is 1. FILE.json describes input, output, normalisation, classes, versions, hashes and the differences found.
--output is by default the model's name with the format's ending, in the current folder. An existing file is not
overwritten. For a file of weights, --config defines the model and its size, by default M2SNet at 352 pixels.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

FORMATS = ('stablehlo', 'onnx', 'safetensors')
CHECKED = 8  # at most: a program is compiled for every size


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 refused, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        about = 'folder of a run, a file of weights, or a pattern of these; several give one mean map'
        flags.DEFINE_multi_string('model', [], about, flag_values=values)
        flags.DEFINE_enum('format', 'stablehlo', FORMATS, 'format of the file', flag_values=values)
        flags.DEFINE_string('output', None, 'file to write', flag_values=values)
        flags.DEFINE_multi_string('images', [], 'folder or file for the check', flag_values=values)
        flags.DEFINE_float('tolerance', 1e-5, 'largest accepted difference of a probability', 0, 1, flag_values=values)

    config, _, values, words = parse(argv, __doc__, define, config='default', words=True)
    if not values.model:
        raise InputError('--model is missing')
    model = Path(values.model[0])
    if values.output is None and '*' in model.name:
        raise InputError('--output is missing: name the file of these models')
    output = Path(values.output or f'{model.name if model.is_dir() else model.stem}.{values.format}')
    check_output(output, values.format)

    from m2snet_jax.build import check_config
    from m2snet_jax.prediction.folders import find_images

    given = [*values.images, *words]
    files = find_images(given, output) if given else []
    check_config(config)

    from m2snet_jax.devices.programs import use_compilation_cache

    use_compilation_cache()
    from m2snet_jax.export.files import Refused, example_batches, export_model, in_words
    from m2snet_jax.images.formats import read_image
    from m2snet_jax.prediction.predictor import load_model

    predictor = load_model(values.model, config=config)
    if len(predictor.sizes) > 1:
        sizes = ' and '.join(map(str, predictor.sizes))
        raise InputError(f'--model: the models run at {sizes} pixels; only models of one size become one file')
    if len(predictor.members) > 1 and values.format == 'safetensors':
        raise InputError('--format=safetensors holds the weights of one model; give one --model')
    predictor.window = predictor.window or config.data.window
    noise, phantom = example_batches(predictor.size)
    chosen = files[:: -(-len(files) // CHECKED)] if files else []
    real = [(name, read_image(path, predictor.window)[None]) for name, path in chosen]
    try:
        about = export_model(predictor, output, values.format, [noise, *(real or [phantom])], values.tolerance)
    except Refused as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for one in about['checked']:
        print(in_words(one))
    print(f'{output}: {output.stat().st_size / 2**20:.1f} MiB, checked on {about["checked_on"]}; see {output}.json')


def check_output(path: Path, kind: str) -> None:
    """Raises InputError for a file that exists, cannot be made, or does not have the ending of its format."""
    if path.suffix != f'.{kind}':
        raise InputError(f'--output={path}: must end in .{kind}')
    if path.exists():
        raise InputError(f'--output={path}: exists already; remove it or name another file')
    if not path.absolute().parent.is_dir():
        raise InputError(f'--output={path}: there is no folder {path.parent}; make it first')
