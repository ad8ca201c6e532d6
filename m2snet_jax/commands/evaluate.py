"""Scores a model, or maps that any program wrote, and writes the score sheets.

python -m m2snet_jax evaluate --model=RUN|FILE [--config=NAME] [--root=DATA] [--output=DIR] [--config.key=value …]
python -m m2snet_jax evaluate --maps=MAPS --config=NAME [--root=DATA] [--sets=NAME,…] [--output=DIR]
python -m m2snet_jax evaluate --maps=MAPS --masks=MASKS [--images=IMAGES] [--output=DIR]

A model is scored on every test set of the config, by default its own config. MAPS, MASKS and IMAGES are folders, or
patterns in which * is the name, e.g. 'truth/*_reader1.gif'. The map of an image is MAPS/<set>/<name>.png, or
MAPS/<name>.png if no other set has this name. Maps of several classes are <name>_1, <name>_2 and so on. Masks are
those of the config, or files in MASKS with the same names; a prefix or suffix that all masks share is ignored. Scores
of every protocol are printed beside published scores. scores/, report.html and, for a model, model_card.md are written
to DIR. Exit status 1: some maps are missing or unreadable; the others are scored.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 some maps could not be scored, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('model', None, 'folder of a run, or a file of weights', flag_values=values)
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
    given = [path for path in (values.model, values.maps) if path is not None]
    if len(given) != 1:
        raise InputError('give either --model, to predict and score, or --maps, to score existing maps')
    if values.maps is not None and values.masks is None and not named:
        raise InputError('--maps needs the masks: name a folder with --masks, or test sets with --config')
    from m2snet_jax.data.patterns import top_folder

    source = Path(given[0])
    named_after = top_folder(source).resolve() if '*' in given[0] else source
    name = named_after.name if named_after.is_dir() else named_after.stem
    output = Path(values.output or Path('evaluations') / name)
    print(f'folder for the scores: {output}', file=sys.stderr, flush=True)

    from m2snet_jax.build import check_config
    from m2snet_jax.devices.memory import keep_freed_memory
    from m2snet_jax.devices.programs import use_compilation_cache
    from m2snet_jax.evaluation.foreign_maps import evaluate_maps
    from m2snet_jax.evaluation.sheets import check_same_source, write_sheets
    from m2snet_jax.evaluation.table import text
    from m2snet_jax.evaluation.test_sets import evaluate_model, own_config
    from m2snet_jax.report import write_card, write_report

    use_compilation_cache()
    keep_freed_memory()
    if values.model is not None and not named:
        config = own_config(source, config)
    check_config(config)
    if values.model is not None:
        scores, faults = evaluate_model(source, config, values.sets, output), []
    else:
        check_same_source(output, source)
        scores, faults = evaluate_maps(source, config, output, values.sets, values.masks, values.images)
    write_report(scores, output)
    if values.model is not None:
        write_card(scores, output)
    write_sheets(scores, output)
    print(text(scores.summary))
    print(f'report: {output / "report.html"}', file=sys.stderr)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0
