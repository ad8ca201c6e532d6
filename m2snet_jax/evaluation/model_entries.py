"""What the score sheet of models contains about them: keys of its config, entries of its summary, and warnings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from m2snet_jax.config import FREE_KEYS, flatten, to_json
from m2snet_jax.prediction.predictor import Predictor
from m2snet_jax.prediction.temperature_file import read_temperature
from m2snet_jax.storage import with_addresses
from m2snet_jax.weights import recorded_config, trained_config
from m2snet_jax.weights.pretrained import weight_warnings

OF_TRAINING = ('data.sizes', 'data.normalisation')  # the other keys of `data` describe the test sets


def set_model_keys(config: Any, predictor: Predictor, model: Path) -> None:
    """Sets the keys of a config that describe models and their training, whatever config names the test sets.

    Those of network and training are as `model`, the first one, records them. A file of weights records none.
    """
    recorded = flatten(recorded_config(model)) if model.is_dir() else {}
    of_data = ('data.', *FREE_KEYS)
    known = flatten(config)
    own = {
        key: value
        for key, value in recorded.items()
        if key in known and (key in OF_TRAINING or not key.startswith(of_data))
    }
    selected = {(member.config or {}).get('select', 'last') for member in predictor.members}
    with config.unlocked():
        config.update_from_flattened_dict(own)
        config.data.size = predictor.size
        # The sheet must say how the model was chosen.
        config.select = next(way for way in ('test', 'validation', 'last') if way in selected)


def about_maps(predictor: Predictor) -> dict[str, Any]:
    """Returns what identifies the maps of a predictor, JSON values."""
    return {'model_hash': predictor.model_hash, 'size': predictor.size, **predictor.variant}


def about_scores(config: Any, models: Sequence[Path], predictor: Predictor) -> dict[str, Any]:
    """Returns the first entries of the summary of models."""
    variant: dict[str, Any] = {'prediction': predictor.variant} if predictor.variant else {}
    if 'temperatures' in predictor.variant:
        variant['calibrations'] = [read_temperature(model) for model in models]
    names = [with_addresses(str(model)) for model in models]
    if len(names) > 1:
        variant['models'] = names
    return {'config': to_json(config), 'model': ', '.join(names), 'model_hash': predictor.model_hash, **variant}


def model_warnings(models: Sequence[Path]) -> list[str]:
    """Returns a line for each doubt about the weights that models were trained from."""
    configs = [trained for model in models if (trained := trained_config(model))]
    return list(dict.fromkeys(line for trained in configs for line in weight_warnings(ConfigDict(trained))))
