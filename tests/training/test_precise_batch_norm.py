"""Precise batch norm: plain means over batches, for the shared norms over all their calls."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax import M2SNet, MSNet
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.model_weights import merge_model, split_model
from m2snet_jax.training.precise_batch_norm import precise_batch_stats

pytestmark = pytest.mark.usefixtures('compiled_quickly')


def batches():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((2, 48, 48, 3)), jnp.float32) for _ in range(3)]


def with_precise_statistics(model):
    graph, weights = split_model(model)
    return merge_model(graph, weights.replace(batch_stats=precise_batch_stats(graph, weights, batches())), train=True)


@pytest.mark.parametrize('kind', [MSNet, pytest.param(M2SNet, marks=pytest.mark.slow)])
def test_statistics_are_plain_means(kind):
    model = kind('res2net14', rngs=nnx.Rngs(0))
    after = with_precise_statistics(model)
    first = [np.asarray(model.encoder.conv1[0](images), np.float64).reshape(-1, 32) for images in batches()]
    norm = after.encoder.conv1[1]
    np.testing.assert_allclose(norm.mean[...], np.mean([one.mean(0) for one in first], 0), atol=1e-5)
    np.testing.assert_allclose(norm.var[...], np.mean([one.var(0, ddof=1) for one in first], 0), rtol=1e-4)
    assert norm.momentum == (0.9, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(('columns', 'calls_a_pass'), [(5, 20), (3, 14), (2, 8)])
def test_shared_norms_are_measured_over_all_their_calls_and_frozen_for_the_others(columns, calls_a_pass, monkeypatch):
    model = M2SNet('res2net14', columns=columns, rngs=nnx.Rngs(0))
    after = with_precise_statistics(model)

    calls = []
    update_statistics = BatchNorm._update_statistics

    def record(norm, mean, var, count, frozen):
        calls.append((norm, np.asarray(mean), np.asarray(var) * count / (count - 1)))
        update_statistics(norm, mean, var, count, frozen)

    monkeypatch.setattr(BatchNorm, '_update_statistics', record)
    for images in batches():
        model(images)
    for index in range(2):
        shared = [(mean, var) for norm, mean, var in calls if norm is model.pyramid.filters[index].norm]
        assert len(shared) == calls_a_pass * 3
        measured = after.pyramid.filters[index].norm
        np.testing.assert_allclose(measured.mean[...], np.mean([mean for mean, _ in shared]), rtol=1e-3)
        np.testing.assert_allclose(measured.var[...], np.mean([var for _, var in shared]), rtol=1e-3)

    calls.clear()
    for full_one in after.pyramid.filters:
        full_one.eval()
    unit = after.pyramid.units['x2_x1'].project.norm
    measured = np.asarray(unit.mean[...])
    for images in batches():
        after(images)
    seen = [mean for norm, mean, _ in calls if norm is unit]
    np.testing.assert_allclose(measured, np.mean(seen, 0), atol=1e-4)
