"""The temperature of a model, which `calibrate` fits: where it is stored, and how it is read."""

import json
from pathlib import Path
from typing import Any

from m2snet_jax.errors import InputError
from m2snet_jax.storage import write_json
from m2snet_jax.weights import run_folder

NAME = 'temperature.json'


def temperature_path(model: Path) -> Path:
    """Returns where the temperature of a model lies: in the folder of its run, or beside its file."""
    return run_folder(model) / NAME if model.is_dir() else model.with_name(f'{model.name}.{NAME}')


def write_temperature(model: Path, about: dict[str, Any]) -> Path:
    """Writes what `calibrate` found, JSON values, `temperature` and `model_hash` among them; returns the path."""
    path = temperature_path(model)
    write_json(path, about)
    return path


def read_temperature(model: Path) -> dict[str, Any]:
    """Returns what `write_temperature` wrote; raises InputError where there is nothing readable."""
    path = temperature_path(model)
    try:
        about = json.loads(path.read_text(encoding='utf-8'))
        if float(about['temperature']) > 0 and about['model_hash']:
            return about
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f'{path}: no readable temperature; run calibrate --model={model} first')


def stored_temperature(model: Path, model_hash: str) -> float:
    """Returns the temperature of a model; raises InputError where there is none, or one of other weights."""
    about = read_temperature(model)
    if about['model_hash'] != model_hash:
        raise InputError(
            f'{temperature_path(model)}: was fitted for other weights ({about["model_hash"][:12]}) than those of '
            f'{model} ({model_hash[:12]}); run calibrate again'
        )
    return float(about['temperature'])
