"""The table of the family: arithmetic against published counts, and a run with small networks."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2snet_jax.benchmark import family
from m2snet_jax.config import load_config
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.models.kernels import convolve_depthwise
from m2snet_jax.models.layers import resize

pytestmark = pytest.mark.usefixtures('compiled_quickly')


@pytest.mark.parametrize(('name', 'count'), [('vgg16', 15_346_630_656), ('resnet50', 4_087_136_256)])
def test_multiply_adds_of_encoders_are_those_published_for_torchvision_without_the_classifier(name, count):
    encoder = nnx.eval_shape(lambda: ENCODERS[name](name, rngs=nnx.Rngs(0)))
    assert family.multiply_adds(encoder, 224) == count


def test_a_depthwise_convolution_counts_nine_products_a_value_and_resizing_none():
    class Net(nnx.Module):
        def __call__(self, x):
            return resize(convolve_depthwise(x, jnp.ones((3, 3, 1, 3))), 20, 20)

    assert family.multiply_adds(Net(), 10) == 10 * 10 * 3 * 9


@pytest.mark.slow
def test_networks_are_timed_in_turn_and_drawn_as_a_table(monkeypatch):
    monkeypatch.setattr(family, 'FIRST', {'model.name': 'm2snet', 'model.encoder': 'res2net14'})
    monkeypatch.setattr(family, 'FAMILY', ({}, {'model.name': 'msnet'}))
    config = load_config('default', **{'data.size': 40})
    rows = family.time_family(config, make_mesh(1), 1)
    first, second = rows
    assert first['parameters'] - second['parameters'] == 256  # scale and bias of the two shared norms
    assert first['multiply_adds'] == second['multiply_adds'] > 0
    assert (first['ratio'], second['ratio']) == (1, second['milliseconds'] / first['milliseconds'])
    lines = family.table(rows, 40).splitlines()
    assert lines[0] == '| network | parameters | GMAC at 40² | ms | ÷ first |'
    assert lines[2].startswith(f'| `name=m2snet`, `encoder=res2net14` | {first["parameters"]:,} | ')
    assert np.isfinite(first['milliseconds'])
