"""Writes the page of a run, report.html, again.

python -m m2snet_jax report RUN …

RUN is a folder that train or evaluate wrote. The page shows training curves, score tables with intervals and published
scores, the worst and best cases, scores by lesion size and by threshold, and calibration. If a model was scored, the
command also writes its model card, model_card.md.
"""

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 2 a folder has no score sheets."""
    return run(_main, argv)


def _main(argv):
    folders = parse(argv, __doc__, config=None, words=True).words
    if not folders:
        raise InputError('the folder of a run is missing; example: report runs/quickstart')

    from m2snet_jax.evaluation.sheets import read_sheets
    from m2snet_jax.report import write_card, write_report

    for folder in folders:
        scores = read_sheets(folder)
        print(write_report(scores, folder))
        if 'model_hash' in scores.summary:
            print(write_card(scores, folder))
