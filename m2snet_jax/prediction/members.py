"""The models of a Predictor: which paths they have, their weights, and how their maps become one."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from flax import nnx
from jaxtyping import Float, Float32
from ml_collections import ConfigDict

from m2snet_jax.build import empty_model
from m2snet_jax.config import load_config
from m2snet_jax.errors import InputError
from m2snet_jax.models.folding import fold_batch_norms
from m2snet_jax.prediction.temperature_file import stored_temperature
from m2snet_jax.storage import local_path
from m2snet_jax.weights import load_weights, recorded_config
from m2snet_jax.weights.names import model_hash

FLIPS = ((), (2,), (1,), (1, 2))  # axes of [B, H, W, C]: none, left–right, up–down, both
CUT = 0.5  # a pixel of a member's map counts as lesion from here up
Maps = Sequence[Float[np.ndarray, 'height width classes']]


class Member(NamedTuple):
    """One model of a Predictor.

    Attributes:
        model: as it was loaded.
        size: side in pixels at which it runs.
        config: the ConfigDict that named it, None without.
        temperature: by which its logits are divided.
    """

    model: Any
    size: int
    config: Any = None
    temperature: float = 1.0

    def folded(self) -> nnx.Module:
        """Returns the model with folded batch norms; the last convolution divides by the temperature."""
        model: Any = fold_batch_norms(self.model)
        if self.temperature != 1:
            last = model.output1  # linear, as the resize after it: its weights scale the logits
            # New variables: those of the folded model are the model's own where nothing was folded.
            last.kernel = nnx.Param(last.kernel[...] / self.temperature)
            last.bias = nnx.data(nnx.Param(last.bias[...] / self.temperature))
        return model


class Prediction(NamedTuple):
    """What a Predictor finds in one image.

    Attributes:
        probability: float32 [H, W, classes], see `Predictor.probabilities`.
        agreement: mean Dice of all pairs of maps that were averaged, NaN where there is one.
    """

    probability: Float32[np.ndarray, 'height width classes']
    agreement: float = float('nan')


def find_models(given: str | Path | Sequence[str | Path], flag: str = '') -> list[Path]:
    """Returns the paths of models: of one, of a list, or of a pattern with `*` such as 'runs/fold*-seed*'.

    Raises:
        InputError: nothing has the pattern, or the list is empty.
    """
    paths = []
    for one in [given] if isinstance(given, (str, Path)) else given:
        path = local_path(one)
        if '*' in str(path) and not path.exists():
            found = sorted(glob.glob(str(path)))
            if not found:
                raise InputError(f'{flag}{one}: no model has this pattern')
            paths += map(Path, found)
        else:
            paths.append(path)
    if not paths:
        raise InputError(f'{flag}: no model is named')
    return paths


def load_member(path: Path, config: Any = None, calibrated: bool = False) -> Member:
    """Loads one model; the arguments are those of `predictor.load_model`, which names the errors."""
    bare = not path.is_dir()
    if not bare:
        config = cast(Any, ConfigDict(recorded_config(path)))
    elif config is None or isinstance(config, str):
        config = load_config(config or 'default')
    model = empty_model(config)
    try:
        load_weights(model, path, config.model.get('weights_average') if bare else None)
    except InputError as error:
        if bare and 'do not fit' in str(error):
            expected = f'{config.model.name} with {config.model.encoder} and {config.data.classes} output map(s)'
            raise InputError(f'{error} (expected {expected}; another config names another model)') from None
        raise
    return Member(model, config.data.size, config, stored_temperature(path, model_hash(model)) if calibrated else 1.0)


def mean_map(maps: Maps) -> Float32[np.ndarray, 'height width classes']:
    """Returns the mean of maps of one size, summed in float64; a single map as it is."""
    if len(maps) == 1:
        return np.asarray(maps[0])
    total = np.zeros(maps[0].shape)
    for one in maps:
        total += one
    return (total / len(maps)).astype(np.float32)


def pairwise_dice(maps: Maps) -> float:
    """Returns the mean over all pairs of maps, and over classes, of the Dice of their lesions; NaN for a single map.

    A pair without any lesion has Dice 1.
    """
    if len(maps) == 1:
        return float('nan')
    lesions = np.stack([one >= CUT for one in maps]).reshape(len(maps), -1, maps[0].shape[-1]).astype(np.float32)
    both = np.einsum('mpc,npc->cmn', lesions, lesions, optimize=True).astype(np.float64)
    areas = np.diagonal(both, axis1=1, axis2=2)
    either = areas[:, :, None] + areas[:, None, :]
    dice = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
    first, second = np.triu_indices(len(maps), 1)
    return float(dice[:, first, second].mean())
