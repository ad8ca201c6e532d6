"""The folder of a run, its only state: may it be written, does it hold the same run, is that run finished."""

import json
import os

from m2snet_jax.config import changed_keys
from m2snet_jax.data.manifest import to_csv
from m2snet_jax.errors import InputError


def check_writable(workdir):
    """Raises InputError if the folder cannot be made or written."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f'--workdir={workdir}: {existing} is a file; name a folder')
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f'--workdir={workdir}: {existing} cannot be written; name another folder')


def check_same_run(config, about, workdir):
    """Raises InputError if the folder holds a run whose result another config, or other data, would have given.

    Args:
        config: of the run that is to start or go on.
        about: what identifies it, as `write_about` keeps it.
        workdir: the folder, which need not exist.
    """
    path = workdir / 'config.json'
    if not path.exists():
        return
    recorded = json.loads(path.read_text())
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


def write_about(about, manifest, workdir):
    """Makes the run's folder with `config.json` and `manifest.csv`; a resumed run leaves them as they are."""
    if (workdir / 'config.json').exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--workdir={workdir}: cannot be made ({error.strerror}); name another folder') from None
    for name, text in (('manifest.csv', to_csv(manifest)), ('config.json', json.dumps(about, indent=1) + '\n')):
        temporary = workdir / f'.{name}'
        temporary.write_text(text)
        os.replace(temporary, workdir / name)


def is_scored(workdir, total):
    """Whether the score sheet of a run of `total` steps is complete."""
    path = workdir / 'scores' / 'summary.json'
    return path.exists() and json.loads(path.read_text()).get('step') == total
