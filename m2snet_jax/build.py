"""From a config to the model and the LossNet that it names, with their initial weights."""

import types
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from m2snet_jax.config_values import check_values
from m2snet_jax.errors import InputError
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.windows import parse_window
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.models.lossnet import LossNet
from m2snet_jax.models.m2snet import MODELS, MSNet, check_switches
from m2snet_jax.weights import load_weights

LOSSNET_SEED = 224  # fixed: every run of a config has the same random LossNet
STEM = ('conv1', 'bn1')  # the attributes of an encoder that `optimizer.freeze_stem` does not train


def check_config(config: Any) -> None:
    """Raises InputError for the first key of a config whose value cannot be used."""
    check_values(config)
    for key, value, known in (
        ('model.name', config.model.name, MODELS),
        ('model.encoder', config.model.encoder, ENCODERS),
    ):
        if value not in known:
            raise InputError(f'--config.{key}={value}: must be one of {", ".join(known)}')
    try:
        check_switches(config.model.encoder, **_switches(config))
    except InputError as error:
        raise InputError(f'--config.model.{error}') from None
    parse_window(config.data.window)
    parse_colors(config.data.colors, config.data.classes)


def build_model(config: Any) -> MSNet:
    """Returns the model that a config names, in training mode, with its initial weights."""
    name, encoder, classes = config.model.name, config.model.encoder, config.data.classes
    model = create_model(name, encoder, classes, config.dtype, config.seed, **_switches(config))
    if config.optimizer.freeze_stem and not all(hasattr(model.encoder, part) for part in STEM):
        raise InputError(f'--config.optimizer.freeze_stem=True: {encoder} has no stem, {" and ".join(STEM)}; unset it')
    model.encoder.remat = config.remat
    if config.model.encoder_weights is not None and config.model.weights is None:
        load_weights(model.encoder, config.model.encoder_weights, config.model.weights_average)
    if config.model.weights is not None:
        load_weights(model, config.model.weights, config.model.weights_average)
    return model


def build_lossnet(config: Any) -> LossNet | None:
    """Returns the LossNet of a config, None if its weight is 0."""
    if not config.loss.lossnet:
        return None
    lossnet = LossNet(size=config.loss.lossnet_size, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(LOSSNET_SEED))
    if config.loss.lossnet_weights is not None:
        load_weights(lossnet, config.loss.lossnet_weights)
    return lossnet


def create_model(
    name: str,
    encoder: str = 'res2net50',
    classes: int = 1,
    dtype: str = 'float32',
    seed: int = 0,
    **switches: Any,
) -> MSNet:
    """Returns a model by name, in training mode, with random weights from `seed`; switches as `MSNet` takes them."""
    return MODELS[name](encoder, classes, **switches, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(params=seed))


def empty_model(config: Any) -> MSNet:
    """Returns the float32 model that a config names, without values, which are slow to draw, for `load_weights`."""

    def build():
        key = jax.random.key(0)
        # No value is computed, so one key is enough; nnx.Rngs would take 0.5 s to count them.
        rngs: Any = types.SimpleNamespace(params=lambda: key)
        return MODELS[config.model.name](config.model.encoder, config.data.classes, **_switches(config), rngs=rngs)

    return nnx.eval_shape(build)


def _switches(config):
    """Returns the switches of the network in a config, arguments of `MSNet`."""
    model = config.model
    return {
        'columns': model.columns,
        'filters': model.filters,
        'operation': model.operation,
        'add_level': model.add_level,
        'drop_path': model.drop_path,
    }
