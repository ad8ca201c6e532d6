"""The optimizers against literal transcriptions of PyTorch's, and the schedules against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m2snet_jax import InputError, load_config
from m2snet_jax.training.optimizer import adamw, build_optimizer, cosine, sgd, triangular


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


def literal_adamw(parameters, gradients, rates, factors, weight_decay, clip=None):
    """torch.optim.AdamW after torch.nn.utils.clip_grad_value_, a tensor at a time."""
    parameters = dict(parameters)
    first = {name: 0.0 for name in parameters}
    second = dict(first)
    for step, rate in enumerate(rates, start=1):
        for name in parameters:
            gradient = gradients[step - 1][name]
            gradient = gradient if clip is None else np.clip(gradient, -clip, clip)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            update = mean / (np.sqrt(square) + 1e-8) + weight_decay * parameters[name]
            parameters[name] = parameters[name] - rate * factors[name] * update
    return parameters


def after_steps(optimizer, start, gradients):
    """Parameters {(top, leaf): array} after one update for each of `gradients`."""

    def tree(values):
        nested = {}
        for (top, leaf), value in values.items():
            nested.setdefault(top, {})[leaf] = jnp.asarray(value)
        return nested

    parameters, state = tree(start), optimizer.init(tree(start))
    for one in gradients:
        updates, state = optimizer.update(tree(one), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return {name: parameters[name[0]][name[1]] for name in start}


@pytest.mark.parametrize(('encoder_lr_factor', 'freeze_stem'), [(1.0, False), (0.1, True)])
@pytest.mark.parametrize('clip', [None, 0.5])
def test_adamw_is_pytorchs(clip, encoder_lr_factor, freeze_stem, float64):
    rng = np.random.default_rng(0)
    factors = {
        ('encoder', 'conv1'): 0.0 if freeze_stem else encoder_lr_factor,
        ('encoder', 'layer1'): encoder_lr_factor,
        ('output1', 'conv1'): 1.0,
    }
    start = {name: rng.standard_normal(5) for name in factors}
    gradients = [{name: rng.standard_normal(5) for name in factors} for _ in range(6)]
    rate = cosine(1e-2, 6, 2)
    options = {'weight_decay': 0.1, 'encoder_lr_factor': encoder_lr_factor, 'freeze_stem': freeze_stem, 'clip': clip}
    truth = literal_adamw(start, gradients, [float(rate(step)) for step in range(6)], factors, 0.1, clip)
    for name, value in after_steps(adamw(rate, **options), start, gradients).items():
        # optax computes 1 − β^step in float32.
        np.testing.assert_allclose(value, truth[name], rtol=1e-7, atol=1e-8)
        assert np.array_equal(value, start[name]) == (factors[name] == 0)


def test_clip_limits_each_element_before_the_weight_decay(float64):
    start = {('output1', 'kernel'): np.array([2.0, -1.0, 0.5])}
    gradients = [{('output1', 'kernel'): np.array([9.0, -0.2, -7.0])}] * 3
    clipped = [{('output1', 'kernel'): np.array([0.5, -0.2, -0.5])}] * 3
    rate = triangular(0.05, epochs=3, steps_per_epoch=1)
    found = after_steps(sgd(rate, clip=0.5), start, gradients)
    truth = literal_sgd(start, clipped, [float(rate(step)) for step in range(3)], {name: 1.0 for name in start})
    for name, value in truth.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)


def test_cosine_rises_linearly_and_falls_to_zero():
    rate = cosine(0.01, total=50, warmup=10)
    steps = np.arange(51)
    falling = 0.005 * (1 + np.cos(np.pi * (steps - 10) / 40))
    truth = np.where(steps < 10, 0.001 * steps, falling)
    np.testing.assert_allclose([float(rate(step)) for step in steps], truth, rtol=1e-5, atol=1e-9)
    rate = cosine(0.01, total=20)
    truth = 0.005 * (1 + np.cos(np.pi * np.arange(21) / 20))
    np.testing.assert_allclose([float(rate(step)) for step in range(21)], truth, rtol=1e-5, atol=1e-9)


def test_the_config_chooses_optimizer_and_schedule(float64):
    changes = {
        'optimizer.name': 'adamw', 'optimizer.schedule': 'cosine', 'optimizer.warmup': 1.5, 'optimizer.peak_lr': 1e-3,
        'optimizer.weight_decay': 0.01, 'optimizer.clip': 0.5, 'optimizer.scale_lr_with_batch': True, 'batch': 32,
    }  # fmt: skip
    start = {('output1', 'kernel'): np.array([2.0, -1.0])}
    gradients = [{('output1', 'kernel'): np.array([9.0, -0.2]) * step} for step in range(1, 13)]
    found = after_steps(build_optimizer(load_config('quickstart', **changes), 12, 4), start, gradients)
    rates = [float(cosine(2e-3, 12, 6)(step)) for step in range(12)]
    truth = literal_adamw(start, gradients, rates, {name: 1.0 for name in start}, 0.01, 0.5)
    for name, value in truth.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7)


def test_a_warmup_as_long_as_the_run_is_refused():
    config = load_config('quickstart', **{'optimizer.schedule': 'cosine', 'optimizer.warmup': 3.0})
    with pytest.raises(InputError, match=r'--config\.optimizer\.warmup=3: 12 steps, but the run has 12'):
        build_optimizer(config, 12, 4)
