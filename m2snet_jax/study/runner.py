"""Runs the cells of a study, one ordinary run after the other; what is finished is not run again."""

from collections.abc import Callable

import jax

from m2snet_jax.config import read_record
from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.errors import InputError
from m2snet_jax.study.definition import Cell, check_folder
from m2snet_jax.study.run_logs import training_seconds
from m2snet_jax.training.logs import duration, log
from m2snet_jax.training.loop import train_and_evaluate
from m2snet_jax.weights.pretrained import weights_path


def run_study(cells: list[Cell], after: Callable[[], object] = lambda: None) -> list[str]:
    """Trains and scores the cells that are not finished, in their order; an interrupted run resumes.

    Args:
        after: called whenever a run is finished.

    Returns:
        One line per run that failed: its loss is not finite, or it starts from a run that failed.

    Raises:
        InputError: a cell cannot be run; nothing is trained then.
        SystemExit: on SIGTERM or Ctrl-C; the current run has saved its last step.
    """
    check(cells)
    runs, failed = runs_of(cells), {}
    for number, cell in enumerate(runs, start=1):
        if cell.is_finished:
            continue
        log(f'run {number} of {len(runs)}: {cell.name} ({progress(runs)})')
        if cell.source is not None and cell.source.folder in failed:
            failed[cell.folder] = not_run(cell)
            continue
        try:
            train_and_evaluate(cell.config, cell.folder)
        except FloatingPointError as error:
            failed[cell.folder] = f'{cell.name}: {error}'
            log(f'error: {failed[cell.folder]}')
            continue
        jax.clear_caches()  # the next run compiles its own steps; without this their memory would add up
        after()
    log(progress(runs))
    return list(failed.values())


def runs_of(cells: list[Cell]) -> list[Cell]:
    """Returns one cell for each run, the first of those that share a folder."""
    runs = {}
    for cell in cells:
        runs.setdefault(cell.folder, cell)
    return list(runs.values())


def not_run(cell: Cell) -> str:
    """Returns the line for a cell that starts from a run that failed."""
    return f'{cell.name}: not run, because it starts from {cell.source.name if cell.source else ""}'


def check(cells: list[Cell]) -> None:
    """Raises InputError if a cell has no data, no weights to start from, or the folder of another run."""
    for cell in cells:
        check_folder(cell)
    unfinished = [cell for cell in cells if not cell.is_finished]
    for cell in unfinished:
        config = cell.config
        files = [config.model.encoder_weights, config.loss.lossnet_weights if config.loss.lossnet else None]
        files += [config.model.weights] if cell.source is None else []
        for name in filter(None, files):
            _named(cell, weights_path, name)
    hashes = {}
    for cell in cells if unfinished else ():
        data = cell.config.data.to_json()
        if data not in hashes:
            hashes[data] = _named(cell, open_dataset, cell.config).manifest_hash
        path = cell.folder / 'config.json'
        if path.exists() and read_record(cell.folder)['manifest_hash'] != hashes[data]:
            raise InputError(
                f'{cell.folder}: was trained on other data (the hash of their manifest differs); give the same data, '
                'or name another --workdir'
            )


def progress(runs: list[Cell], jobs: int = 1) -> str:
    """Returns as text how many runs are finished and the time left of `jobs` at a time, estimated from their times."""
    seconds = {cell.folder: training_seconds(cell.folder) for cell in runs if cell.is_finished}
    left = [cell for cell in runs if not cell.is_finished]
    text = f'{len(seconds)} of {len(runs)} runs finished'
    trained = [time for cell in runs if cell.source is None and (time := seconds.get(cell.folder))]
    if not left or not trained:
        return text
    total = 0.0
    for cell in left:
        alike = [time for one in runs if one.variant == cell.variant and (time := seconds.get(one.folder))]
        alike = alike or (trained if cell.source is None else [0.0])
        total += sum(alike) / len(alike)
    return f'{text}, about {duration(total / jobs)} of training left'


def _named(cell, function, argument):
    """Returns what a function returns; an InputError names the cell."""
    try:
        return function(argument)
    except InputError as error:
        raise InputError(f'{cell.name}: {error}') from None
