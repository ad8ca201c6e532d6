"""Drop path in the training step: its draws depend on the seed and the step alone."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from m2snet_jax import MSNet
from m2snet_jax.models.encoders import pvt
from m2snet_jax.training.step import create_train_state, make_train_step

pytestmark = pytest.mark.usefixtures('compiled_quickly')


def losses_of(seed, first=0, steps=2):
    """The losses of steps that change no parameter, so that they differ by the dropped paths alone."""
    optimizer = optax.set_to_zero()
    model = MSNet('pvt_v2_b2', columns=1, drop_path=0.5, rngs=nnx.Rngs(0))
    graph, state = create_train_state(model, optimizer)
    train_step = make_train_step(graph, optimizer, drop_path_seed=seed)
    state = state.replace(step=jnp.asarray(first, jnp.int32))
    rng = np.random.default_rng(0)
    batch = {'image': rng.standard_normal((2, 33, 33, 3), np.float32), 'mask': np.ones((2, 33, 33, 1), np.float32)}
    losses = []
    for _ in range(steps):
        state, found = train_step(state, None, batch)
        losses.append(float(found['loss']))
    return losses


@pytest.mark.slow
def test_dropped_paths_depend_on_seed_and_step_alone(monkeypatch):
    monkeypatch.setitem(pvt.DEPTHS, 'pvt_v2_b2', (1, 1, 1, 1))
    losses = losses_of(seed=0)
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]
    assert losses_of(seed=0, first=1, steps=1) == losses[1:]  # as after resuming
    assert losses_of(seed=1, steps=1) != losses[:1]
