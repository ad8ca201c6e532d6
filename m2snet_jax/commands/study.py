"""Trains several variants and seeds of a config and compares their scores, with intervals.

python -m m2snet_jax study --config=configs/studies/NAME.py [--root=DATA] [--workdir=DIR] [--jobs=N]
    [--reference=FOLDER] [--config.key=value …]
python -m m2snet_jax study --config=… --workdir=DIR --table          only the table of the finished runs

A study file lists variants of a config with their seeds and folds, the most important first (see
m2snet_jax/study/definition.py). The runs are trained in DIR/VARIANT/fold<F>-seed<S> (without folds: seed<S>), one after
the other, or N at a time with --jobs=N, each on an equal share of the cores. With another number of cores the last bits
of a loss may differ. To resume an interrupted study, repeat the command. `--config.key=value` changes a key of all
variants. After each run the table is written to DIR/study.json and, with losses and published scores, to
DIR/study.html. --reference names a folder with the scores of another program, one JSON file for each run: model, seed,
per_image {name: [Dice, IoU, MAE]} and, optionally, fold, loss_per_epoch and seconds. Which of these images have a
lesion is taken from the runs of the study, by name. Exit status 1: a run failed.
"""

import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError
from m2snet_jax.study.definition import base_config, cells_of, check_folder, load_study


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 a run failed, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        default = 'folder of the study; by default runs/study-NAME'
        flags.DEFINE_string('workdir', None, default, flag_values=values)
        flags.DEFINE_integer('jobs', 1, 'runs at a time, on a CPU', lower_bound=1, flag_values=values)
        flags.DEFINE_bool('table', False, 'only show the table of the finished runs', flag_values=values)
        flags.DEFINE_string('reference', None, "folder with JSON files of another program's scores", flag_values=values)

    def load(name):
        studies.append(load_study(name))
        return base_config(studies[0])

    studies = []
    config, _, values, _ = parse(argv, __doc__, define, load=load)
    (study,) = studies
    workdir = Path(values.workdir or f'runs/study-{study.name}')
    cells = cells_of(study, config, workdir)
    print(f'folder of the study: {workdir}', file=sys.stderr, flush=True)

    from m2snet_jax.evaluation.references import read_references
    from m2snet_jax.study.results import study_table
    from m2snet_jax.study.study_page import write_study
    from m2snet_jax.study.study_text import text

    references = None if values.reference is None else read_references(values.reference)
    failures = []
    if values.table:
        for cell in cells:
            check_folder(cell)
        if not workdir.is_dir():
            raise InputError(f'--workdir={workdir}: no such folder; to train the study there, omit --table')
    else:
        from m2snet_jax.devices.programs import use_compilation_cache

        use_compilation_cache()
        from m2snet_jax.study.jobs import run_side_by_side
        from m2snet_jax.study.runner import run_study

        def after():
            write_study(study_table(study, cells, references), workdir)

        failures = run_study(cells, after) if values.jobs == 1 else run_side_by_side(cells, values.jobs, after)
    table = study_table(study, cells, references)
    if workdir.is_dir():
        write_study(table, workdir)
    print(text(table))
    for line in failures:
        print(f'error: {line}', file=sys.stderr)
    return 1 if failures else 0
