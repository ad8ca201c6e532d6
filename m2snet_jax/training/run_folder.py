"""Checks of the folder of a run before it starts, and the files that it starts with."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from m2snet_jax.config import changed_keys, read_record
from m2snet_jax.data.manifest import to_csv
from m2snet_jax.errors import InputError
from m2snet_jax.storage import write, write_json


def check_writable(workdir: Path) -> None:
    """Raises InputError if the folder cannot be made or written."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f'--workdir={workdir}: {existing} is a file; name a folder')
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f'--workdir={workdir}: {existing} cannot be written; name another folder')


def check_same_run(config: Any, about: dict, workdir: Path) -> None:
    """Raises InputError if the folder has a run of another config, of other data or with another LossNet.

    `about` describes the run that starts or resumes, as `write_about` writes it.
    """
    if not (workdir / 'config.json').exists():
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
    """Makes the run's folder with `manifest.csv` and `config.json`; a resumed run leaves them as they are."""
    if (workdir / 'config.json').exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--workdir={workdir}: cannot be made ({error.strerror}); name another folder') from None
    write(workdir / 'manifest.csv', to_csv(manifest))
    write_json(workdir / 'config.json', about)
