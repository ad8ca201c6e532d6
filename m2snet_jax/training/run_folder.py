"""Checks of the folder of a run before it starts, its lock, and the files that it starts with."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from m2snet_jax.config import changed_keys, read_record
from m2snet_jax.data.manifest import to_csv
from m2snet_jax.devices import processes
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.sheets import scored_step
from m2snet_jax.folder_lock import lock
from m2snet_jax.storage import local_path, write, write_json
from m2snet_jax.weights.checkpoint import saved_steps


def check_writable(workdir: str | Path) -> None:
    """Raises InputError if the folder is at an address that is no bucket's, or cannot be made or written."""
    workdir = local_path(workdir, '--workdir', written=True)
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f'--workdir={workdir}: {existing} is a file; name a folder')
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f'--workdir={workdir}: {existing} cannot be written; name another folder')


@contextlib.contextmanager
def only_writer(workdir: Path) -> Iterator[None]:
    """Makes the folder and holds its lock, in the first process for all of a run.

    Raises:
        InputError: the folder cannot be made, or another run writes it; in every process of this run.
    """
    with contextlib.ExitStack() as stack:
        refusal = None
        if processes.is_primary():
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(workdir))
            except OSError as error:
                refusal = f'{workdir}: cannot be made ({error.strerror}); name another folder'
            except InputError as error:
                refusal = str(error)
        if refusal := processes.gather(refusal)[0]:
            raise InputError(f'--workdir={refusal}')
        yield


def is_begun(workdir: Path) -> bool:
    """Whether the folder has a checkpoint or scores. A folder without can start a run of any config."""
    return bool(saved_steps(workdir / 'checkpoints')) or scored_step(workdir) is not None


def check_same_run(config: Any, about: dict, workdir: Path) -> None:
    """Raises InputError if the folder has a run of another config, of other data or with another LossNet.

    `about` describes the run that starts or resumes, as `write_about` writes it.
    """
    if not (workdir / 'config.json').exists() or not is_begun(workdir):
        return
    recorded = read_record(workdir)
    changes = [f'{key} {before} → {now}' for key, before, now in changed_keys(config, recorded['config'])]
    if recorded['manifest_hash'] != about['manifest_hash']:
        changes.append('the data (manifest hash)')
    if recorded['lossnet_hash'] != about['lossnet_hash'] and not changes:
        changes.append('the weights of LossNet')
    if changes:
        free = next(path for n in range(2, 10**6) if not (path := workdir.with_name(f'{workdir.name}-{n}')).exists())
        raise InputError(
            f'--workdir={workdir}: holds a run of another config, changed: {", ".join(changes)}; '
            f'give the same config to go on, or start a new run with --workdir={free}'
        )


def write_about(about: dict, manifest: Iterable[dict], workdir: Path) -> None:
    """Writes `manifest.csv` and `config.json` into the run's folder; a run that resumes leaves them as they are."""
    if (workdir / 'config.json').exists() and is_begun(workdir):
        return
    write(workdir / 'manifest.csv', to_csv(manifest))
    write_json(workdir / 'config.json', about)
