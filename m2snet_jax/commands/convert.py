"""Converts a file of weights with PyTorch's names to the folder of a run, or the folder of a run to such a file.

python -m m2snet_jax convert SOURCE TARGET [--config=NAME] [--classifier]

SOURCE is a PyTorch (.pth) or safetensors file with PyTorch's names, the folder of a run, its folder `checkpoints`, or
the folder of one step in `checkpoints`. TARGET is a file NAME.safetensors, with PyTorch's names and layouts, or a new
folder, which every command accepts as the folder of a run. If SOURCE is a file, --config and --config.key=value define
the model and its size, by default M2SNet with a Res2Net-50 at 352 pixels.

The command reads TARGET back and compares it bit for bit. It prints the name, shape and size of each array, the names
of omitted arrays, and the hash of the weights. It does not overwrite TARGET. --classifier adds `resnet.fc`, the
ImageNet classifier that the PyTorch program does not use, so that PyTorch can load the file in strict mode. Its values
are those of SOURCE, or zeros.
"""

from pathlib import Path
from typing import Any

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

CLASSIFIER = {'resnet.fc.weight': (1000, 2048), 'resnet.fc.bias': (1000,)}


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 2 could not."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_bool('classifier', False, 'also write resnet.fc to a .safetensors file', flag_values=values)

    config, config_name, values, words = parse(argv, __doc__, define, config='default', words=True)
    if len(words) != 2:
        raise InputError(f'convert takes SOURCE and TARGET, but {len(words)} arguments were given')
    source, target = Path(words[0]), Path(words[1])
    to_file = target.suffix == '.safetensors'
    _check_target(target)
    if values.classifier and not to_file:
        raise InputError('--classifier: only a .safetensors file can hold it; the models here have no classifier')
    if source.is_dir() and (config_name or any(word.startswith(('--config.', '--root')) for word in argv)):
        raise InputError(f'--config: {source} contains its own config; omit --config')

    from clu.parameter_overview import get_parameter_overview

    from m2snet_jax.build import check_config
    from m2snet_jax.models.encoders import ENCODERS
    from m2snet_jax.weights import about_network, state_dict, write_safetensors
    from m2snet_jax.weights.names import model_hash

    check_config(config)
    model, config, arrays = _read(source, config)
    if values.classifier and ENCODERS[config.model.encoder].channels[-1] != CLASSIFIER['resnet.fc.weight'][1]:
        found = f'the encoder is {config.model.encoder}'
        raise InputError(f'--classifier: {found}, and only those of a Res2Net and a ResNet are resnet.fc; leave it out')
    weights = state_dict(model)
    if to_file:
        classifier = _classifier(arrays) if values.classifier else {}
        write_safetensors(target, weights | classifier, about_network(model))
    else:
        _write_folder(target, model, config, source)
    _check_written(target, config, weights)
    print(get_parameter_overview(weights, include_stats=False))
    for line in _remarks(weights, arrays, values.classifier):
        print(line)
    print(f'wrote {target}, read back equal; hash of the weights: {model_hash(model)}')


def _check_target(target):
    """Raises InputError for a target that exists, cannot be made or is of a kind that is not written."""
    if target.exists():
        raise InputError(f'{target}: exists already; remove it or name another target')
    if target.suffix in ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar', '.npz'):
        raise InputError(f'{target}: not written, because such a file is a program; name NAME.safetensors or a folder')
    if not target.absolute().parent.is_dir():
        raise InputError(f'{target}: there is no folder {target.parent}; make it first')


def _read(source, config) -> tuple[Any, Any, Any]:
    """Returns (model, its config, the file's arrays or None for a folder)."""
    from ml_collections import ConfigDict

    from m2snet_jax.build import empty_model
    from m2snet_jax.weights import load_arrays, load_weights, read_torch_file, recorded_config
    from m2snet_jax.weights.names import without_shared_prefixes

    average = config.model.weights_average
    if source.is_dir():
        config = ConfigDict(recorded_config(source))
    model = empty_model(config)
    if source.is_dir():
        return load_weights(model, source), config, None
    arrays = without_shared_prefixes(model, read_torch_file(source, average))
    try:
        return load_arrays(model, arrays, source), config, arrays
    except InputError as error:
        raise InputError(f'{error} (--config.model and --config.data.classes say which model)') from None


def _classifier(arrays):
    import numpy as np

    return {name: (arrays or {}).get(name, np.zeros(shape, np.float32)) for name, shape in CLASSIFIER.items()}


def _write_folder(target, model, config, source):
    """Writes a folder like that of a run, whole or not at all."""
    from m2snet_jax.config import to_json
    from m2snet_jax.models.model_weights import split_model
    from m2snet_jax.storage import whole, write_json
    from m2snet_jax.weights import recorded_reading, trained_config
    from m2snet_jax.weights.checkpoint import Checkpoints

    # Without the hashes of data and LossNet, no training resumes from it.
    about = {'config': to_json(config), 'manifest_hash': None, 'lossnet_hash': None, 'converted_from': str(source)}
    about['trained_with_config'] = trained_config(source) is not None
    if source.is_dir() and (reading := recorded_reading(source)) is not None:
        about['reading'] = reading
    with whole(target) as temporary:
        write_json(temporary / 'config.json', about)
        checkpoints = Checkpoints(temporary / 'checkpoints')
        checkpoints.save_model(0, split_model(model)[1])
        checkpoints.close()


def _check_written(target, config, weights):
    """Reads the target back and compares it bit for bit."""
    import numpy as np

    from m2snet_jax.build import empty_model
    from m2snet_jax.weights import load_weights, state_dict

    model = empty_model(config)
    written = state_dict(load_weights(model, target))
    if any(written[name].tobytes() != np.asarray(array).tobytes() for name, array in weights.items()):
        raise OSError(f'{target}: what was written reads back differently; the disk may be failing')


def _remarks(weights, arrays, classifier):
    """Returns lines on what was dropped from the source, and what was rounded."""
    import numpy as np

    if arrays is None:
        return ['dropped: nothing of the model (a training state, if there is one, stays in the run)']
    dropped = [name for name in arrays if name not in weights and not (classifier and name in CLASSIFIER)]
    counters = [name for name in dropped if name.endswith('num_batches_tracked')]
    named = [name for name in dropped if name not in counters]
    named += [f'{len(counters)} × num_batches_tracked'] if counters else []
    rounded = [name for name, array in weights.items() if not np.array_equal(array, arrays[name], equal_nan=True)]
    lines = [f'dropped: {", ".join(named) or "nothing"}']
    return [*lines, f'rounded to float32: {", ".join(rounded)}'] if rounded else lines
