"""Scores a model, or maps that any program wrote, and writes the score sheets.

python -m m2snet_jax evaluate --model=RUN|FILE|PATTERN … [--config=NAME] [--root=DATA] [--output=DIR]
    [--cross-validate] [--tta=flips] [--calibrated] [--config.key=value …]
python -m m2snet_jax evaluate --maps=MAPS --config=NAME [--root=DATA] [--sets=SET,…] [--output=DIR]
python -m m2snet_jax evaluate --maps=MAPS --masks=MASKS [--images=IMAGES] [--output=DIR]

A model is scored on every test set of --config, by default the config that it was trained with; a file of weights needs
--config. Several models, --model repeated or a pattern in quotes such as 'runs/busi/m2snet/fold*-seed*', are scored as
one, by the mean of their probabilities. With --cross-validate each image of the dataset is scored by the models that
were not trained on it.

MAPS, MASKS and IMAGES are folders, or patterns in which * is the name, e.g. 'truth/*_reader1.gif'. The map of an image
is MAPS/SET/NAME.png or, if no name occurs in two sets, MAPS/NAME.png. Maps of several classes are NAME_1, NAME_2 and so
on. Masks are those of the config, or files in MASKS with the same names; a prefix or suffix that all masks share is
ignored.

Scores of every protocol are printed, those of `released` beside published scores of the test sets of --config. scores/,
report.html and, for a model, model_card.md are written to DIR. Exit status 1: some maps are missing or unreadable; the
others are scored.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import define_models, load_predictor, parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 some maps could not be scored, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        define_models(values)
        about = 'score each image by the models that were not trained on it'
        flags.DEFINE_bool('cross-validate', False, about, flag_values=values)
        flags.DEFINE_string('maps', None, 'folder or pattern of maps to score', flag_values=values)
        flags.DEFINE_string(
            'masks', None, 'folder or pattern of masks; by default masks of the config', flag_values=values
        )
        flags.DEFINE_string(
            'images', None, 'with --masks: folder or pattern of images, for the report', flag_values=values
        )
        flags.DEFINE_list('sets', None, 'test sets to score; by default all', flag_values=values)
        default = 'folder for the scores; by default evaluations/NAME, with the name of the model or of the maps'
        flags.DEFINE_string('output', None, default, flag_values=values)

    config, named, values, _ = parse(argv, __doc__, define, config='default')
    given = values.model or [values.maps]
    if bool(values.model) == (values.maps is not None):
        raise InputError('give either --model, to predict and score, or --maps, to score existing maps')
    if values.maps is not None and values.masks is None and not named:
        raise InputError('--maps needs the masks: name a folder with --masks, or test sets with --config')
    from m2snet_jax.data.patterns import top_folder

    if values.maps is not None and (values['cross-validate'].value or values.tta != 'none' or values.calibrated):
        raise InputError('--cross-validate, --tta and --calibrated are for --model')
    source = Path(given[0])
    named_after = top_folder(source).resolve() if '*' in given[0] else source
    name = named_after.name if named_after.is_dir() else named_after.stem
    output = Path(values.output or Path('evaluations') / name)
    print(f'folder for the scores: {output}', file=sys.stderr, flush=True)

    from m2snet_jax.build import check_config
    from m2snet_jax.devices.memory import keep_freed_memory
    from m2snet_jax.devices.programs import use_compilation_cache
    from m2snet_jax.evaluation.cross_validation import cross_validate
    from m2snet_jax.evaluation.foreign_maps import evaluate_maps
    from m2snet_jax.evaluation.sheets import check_same_source, write_sheets
    from m2snet_jax.evaluation.table import text
    from m2snet_jax.evaluation.test_sets import evaluate_model, own_config
    from m2snet_jax.prediction.members import find_models
    from m2snet_jax.report import write_card, write_report

    use_compilation_cache()
    keep_freed_memory()
    models = find_models(values.model, '--model=') if values.model else []
    if models and not named:
        config = parse(argv, None, define, config='default', load=lambda _: own_config(models[0])).config
    check_config(config)
    check_same_source(output, None if models else source)
    if values['cross-validate'].value:
        if values.sets:
            raise InputError('--sets: --cross-validate scores every image of the dataset; leave it out')
        predictors = [load_predictor(values, config, one) for one in models]
        scores, faults = cross_validate(predictors, models, config, output), []
    elif models:
        scores, faults = evaluate_model(load_predictor(values, config), models, config, values.sets, output), []
    else:
        scores, faults = evaluate_maps(source, config, output, values.sets, values.masks, values.images)
    write_report(scores, output)
    if models:
        write_card(scores, output)
    write_sheets(scores, output)
    print(text(scores.summary))
    print(f'report: {output / "report.html"}', file=sys.stderr)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0
