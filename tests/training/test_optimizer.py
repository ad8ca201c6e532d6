"""The optimiser against a literal transcription of PyTorch's SGD, and the schedule against its formula."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m2snet_jax.training.optimizer import sgd, triangular


def test_triangle_is_constant_within_an_epoch_and_symmetric():
    rate = triangular(0.05, epochs=4, steps_per_epoch=10)
    values = [float(rate(step)) for step in range(40)]
    np.testing.assert_allclose(values, np.repeat([0.02, 0.04, 0.04, 0.02], 10), rtol=1e-6)


def test_triangle_of_an_odd_number_of_epochs_reaches_the_peak():
    assert float(triangular(0.05, epochs=5, steps_per_epoch=7)(14)) == pytest.approx(0.05)


def literal_sgd(parameters, gradients, rates, factors, momentum=0.9, weight_decay=5e-4):
    """torch.optim.SGD(nesterov=True), a tensor at a time."""
    velocity = {name: None for name in parameters}
    parameters = dict(parameters)
    for step, rate in enumerate(rates):
        for name in parameters:
            gradient = gradients[step][name] + weight_decay * parameters[name]
            before = velocity[name]
            velocity[name] = gradient if before is None else momentum * before + gradient
            update = gradient + momentum * velocity[name]
            parameters[name] = parameters[name] - rate * factors[name] * update
    return parameters


@pytest.mark.parametrize(('encoder_lr_factor', 'freeze_stem'), [(1.0, False), (0.1, False), (0.1, True), (1.0, True)])
def test_sgd_is_pytorchs(encoder_lr_factor, freeze_stem, float64):
    rng = np.random.default_rng(0)
    names = {
        ('encoder', 'conv1'): 0.0 if freeze_stem else encoder_lr_factor,
        ('encoder', 'bn1'): 0.0 if freeze_stem else encoder_lr_factor,
        ('encoder', 'layer1'): encoder_lr_factor,
        ('output1', 'conv1'): 1.0,  # only the encoder's stem goes by this name
    }

    def tree(values):
        nested = {}
        for (top, leaf), value in values.items():
            nested.setdefault(top, {})[leaf] = jnp.asarray(value)
        return nested

    start = {name: rng.standard_normal(3) for name in names}
    gradients = [{name: rng.standard_normal(3) for name in names} for _ in range(5)]
    rate = triangular(0.05, epochs=5, steps_per_epoch=1)
    optimizer = sgd(rate, encoder_lr_factor=encoder_lr_factor, freeze_stem=freeze_stem)
    parameters, state = tree(start), optimizer.init(tree(start))
    for one in gradients:
        updates, state = optimizer.update(tree(one), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    truth = literal_sgd(start, gradients, [float(rate(step)) for step in range(5)], names)
    for (top, leaf), value in truth.items():
        np.testing.assert_allclose(parameters[top][leaf], value, rtol=1e-12)
        assert np.array_equal(parameters[top][leaf], start[top, leaf]) == (names[top, leaf] == 0)
