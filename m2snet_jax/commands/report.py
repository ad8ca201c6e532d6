"""Draws the page of a run anew: report.html, one file that needs nothing else, in the folder of the run.

python -m m2snet_jax report RUN …

RUN is a folder that train or evaluate wrote. The page shows the curves of training, the score tables with intervals
beside published results, the worst and best cases, how scores depend on lesion size and threshold, and calibration.
Where a model was scored, not maps of unknown origin, its card is written beside: model_card.md.
"""

from absl import flags

from m2snet_jax.commands import run
from m2snet_jax.errors import InputError


def main(argv):
    """Runs the command; returns its exit status: 0 done, 2 a folder has no score sheets."""
    return run(_main, argv)


def _main(argv):
    folders = words(argv, __doc__)
    if not folders:
        raise InputError('name the folder of a run, as in: python -m m2snet_jax report runs/quickstart')

    from m2snet_jax.evaluation.sheet import read_sheet
    from m2snet_jax.report import write_card, write_report

    for folder in folders:
        print(write_report(folder))
        if 'model_hash' in read_sheet(folder):
            print(write_card(folder))


def words(argv, about, define=None):
    """Returns the words of a command line without a config; with `define`, (words, flags)."""
    values = flags.FlagValues()
    if define:
        define(values)
    if '--help' in argv or '-h' in argv:
        print(about.strip(), values.get_help(), sep='\n\n')
        raise SystemExit(0)
    try:
        found = values(argv)[1:]
    except flags.Error as error:
        raise InputError(' '.join(str(error).split())) from None
    return (found, values) if define else found
