"""Scores a model, or maps that any program wrote, and writes the score sheets.

python -m m2snet_jax evaluate --model=RUN|FILE [--config=NAME] [--root=DATA] [--output=DIR] [--config.key=value …]
python -m m2snet_jax evaluate --maps=DIR --config=NAME [--root=DATA] [--sets=NAME,…] [--output=DIR]
python -m m2snet_jax evaluate --maps=DIR --masks=DIR [--images=DIR] [--output=DIR]

A model predicts and is scored on every test set of the config (by default its own). Maps are taken by name from
DIR/<set>/<name>.png, or DIR/<name>.png where that is no other set's name; png, jpg, bmp and tif are read, several
classes as <name>_1, <name>_2 and so on. Masks come from the config, or from a folder with the same names. Scores are
printed by every protocol, each under its name, beside published ones; DIR gets scores/, report.html and, of a model,
model_card.md. Status 1: maps are missing or unreadable; the others are scored.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv):
    """Runs the command; returns its exit status: 0 done, 1 some maps could not be scored, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('model', None, 'folder of a run, or a file of weights', flag_values=values)
        flags.DEFINE_string('maps', None, 'folder of maps to score', flag_values=values)
        flags.DEFINE_string('masks', None, "folder of masks, in place of the config's test sets", flag_values=values)
        flags.DEFINE_string('images', None, 'with --masks: folder of images, for the report', flag_values=values)
        flags.DEFINE_list('sets', None, 'the test sets to score; by default all', flag_values=values)
        default = 'folder of the sheets; by default evaluations/NAME of the model or of the maps'
        flags.DEFINE_string('output', None, default, flag_values=values)

    named = any(word.lstrip('-').partition('=')[0] in ('config', 'help', 'h') for word in argv[1:])
    config, values, words = parse(argv if named else [argv[0], '--config=default', *argv[1:]], __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')
    if (values.model is None) == (values.maps is None):
        raise InputError('give either --model, to predict and score, or --maps, to score maps on disk')
    if values.maps is not None and values.masks is None and not named:
        raise InputError('--maps needs the masks: name a --config, whose test sets are taken, or a folder with --masks')
    source = Path(values.model or values.maps)
    output = Path(values.output or Path('evaluations') / (source.name if source.is_dir() else source.stem))
    print(f'folder of the sheets: {output}', file=sys.stderr, flush=True)

    from m2snet_jax.config import check_config
    from m2snet_jax.evaluation.sheet import read_sheet
    from m2snet_jax.evaluation.table import text
    from m2snet_jax.report import write_card, write_report

    if values.model is not None:
        config = config if named else _own_config(source, config)
        check_config(config)
        faults = _evaluate_model(source, config, values.sets, output)
    else:
        check_config(config)
        faults = _evaluate_maps(source, config, values, output)
    write_report(output)
    if values.model is not None:
        write_card(output)
    print(text(read_sheet(output)))
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0


def _own_config(model, given):
    """Returns the config that a run recorded, with the keys that the command line changes in `given`."""
    from ml_collections import ConfigDict

    from m2snet_jax.config import flatten, load_config
    from m2snet_jax.weights import recorded_config

    if not model.is_dir():
        raise InputError(f'--model={model}: a file of weights has no test sets; name a --config')
    default, config = load_config('default'), load_config('default')
    changed = {key: value for key, value in flatten(given).items() if value != flatten(default)[key]}
    with config.unlocked():
        config.update(ConfigDict(recorded_config(model)))
        config.update_from_flattened_dict(changed)
    return config


def _evaluate_model(model, config, sets, output):
    """Predicts and scores; returns no faults."""
    from ml_collections import ConfigDict

    from m2snet_jax import memory
    from m2snet_jax import mesh as devices

    devices.use_compilation_cache()
    memory.keep_freed_memory()
    from m2snet_jax.config import to_json
    from m2snet_jax.data.datasets import open_dataset
    from m2snet_jax.evaluation import evaluate
    from m2snet_jax.evaluation.folders import claim_folder
    from m2snet_jax.evaluation.sheet import versions, write_summary
    from m2snet_jax.predictor import load_model
    from m2snet_jax.weights import trained_config
    from m2snet_jax.weights.pretrained import weight_warnings

    dataset = _chosen(open_dataset(config), sets)
    predictor = load_model(model, config=config)
    if predictor.classes != config.data.classes:
        raise InputError(f'--model={model}: predicts {predictor.classes} classes, the config has {config.data.classes}')
    with config.unlocked():
        config.data.size = predictor.size
        # Whatever config names the test sets, the sheet must tell how the model was chosen.
        config.select = predictor.config.get('select', 'last')
    mesh = devices.make_mesh()
    about = {'model': str(model), 'model_hash': predictor.model_hash}
    claim_folder(output / 'maps', {'model_hash': predictor.model_hash, 'size': predictor.size})
    state = devices.replicate(predictor.state, mesh)
    warnings = weight_warnings(ConfigDict(trained)) if (trained := trained_config(model)) else []
    scores, _ = evaluate(lambda images: predictor.step(*state, images), dataset, config, mesh, output, warnings)
    write_summary(output, scores, {'config': to_json(config), **about, 'versions': versions()})
    return []


def _evaluate_maps(folder, config, values, output):
    """Scores maps on disk; returns a line for each that is missing or unreadable."""
    from m2snet_jax.config import to_json
    from m2snet_jax.evaluation import evaluate_maps
    from m2snet_jax.evaluation.folders import MaskFolder, find_maps
    from m2snet_jax.evaluation.sheet import versions

    if values.masks is not None:
        masks = MaskFolder(values.masks, values.images)
        tests, names, about = {'test': masks}, {'test': masks.names}, {'config': None, 'masks': values.masks}
    else:
        from m2snet_jax.data.datasets import open_dataset

        dataset = _chosen(open_dataset(config), values.sets)
        tests = dataset.tests
        names = {test_set: [row['name'] for row in dataset.manifest if row['split'] == test_set] for test_set in tests}
        about = {'config': to_json(config), 'manifest_hash': dataset.manifest_hash}
    found, missing, extra = find_maps(folder, names, config.data.classes)
    faults = [
        f'{folder}: {len(absent)} of {len(names[test_set])} maps of {test_set} are missing: {", ".join(absent)}'
        for test_set, absent in missing.items()
    ]
    if extra:
        shown = ', '.join(extra[:8]) + (', …' if len(extra) > 8 else '')
        print(f'warning: {folder}: {len(extra)} files belong to no mask and are left out: {shown}', file=sys.stderr)
    about |= {'maps': str(folder), 'missing': missing, 'extra': len(extra), 'versions': versions()}
    _, unreadable = evaluate_maps(found, tests, config, output, about)
    return faults + unreadable


def _chosen(dataset, sets):
    """Returns the dataset with the test sets named in `sets` alone."""
    import dataclasses

    if not dataset.tests:
        raise InputError('this config has no test set with masks: set --config.data.fold, or name another config')
    for name in sets or ():
        if name not in dataset.tests:
            raise InputError(f'--sets={name}: no such test set; there are {", ".join(dataset.tests)}')
    return dataclasses.replace(dataset, tests={name: dataset.tests[name] for name in sets or dataset.tests})
