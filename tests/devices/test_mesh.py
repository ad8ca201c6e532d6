"""What a process sets up for its devices."""

import os
import subprocess
import sys

import pytest

IN_TURN = """
import sys
import jax
jax.config.update('jax_num_cpu_devices', int(sys.argv[1]))
import jax.numpy as jnp
import numpy as np
from m2snet_jax.devices.mesh import make_mesh, shard
from m2snet_jax.devices.programs import one_by_one
from m2snet_jax.planning.collectives import count_collectives

def function(images):
    sizes.append(len(images))
    return jnp.sin(images).sum(-1, keepdims=True)

images = np.random.default_rng(0).normal(size=(8, 5, 6, 3)).astype(np.float32)
for count in (8, 7, 4, 1):
    sizes, whole = [], images[:count]
    given = shard(whole, make_mesh()) if count % jax.device_count() == 0 else whole
    compiled = jax.jit(lambda images: one_by_one(function, images)).lower(given).compile()
    np.testing.assert_allclose(compiled(given), function(whole), rtol=1e-6)
    assert count_collectives(compiled.as_text()) == {}
    print(count, min(sizes))
"""


@pytest.mark.parametrize(('devices', 'at_once'), [(1, [1, 1, 1, 1]), (2, [2, 7, 2, 1])])
def test_on_a_cpu_each_device_takes_its_images_in_turn(devices, at_once):
    """Where the devices cannot share a batch evenly, it is taken at once."""
    command = [sys.executable, '-c', IN_TURN, str(devices)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [tuple(map(int, line.split())) for line in out.splitlines()] == list(zip((8, 7, 4, 1), at_once, strict=True))


CACHED = """
import jax
import jax.numpy as jnp
from m2snet_jax.devices.programs import use_compilation_cache
use_compilation_cache()
jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.ones(3)))
"""


@pytest.mark.parametrize('shortest', [None, '60'])
def test_even_a_short_compilation_is_kept_unless_jax_is_told_otherwise(shortest, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith('JAX_')}
    environment |= {'XDG_CACHE_HOME': str(tmp_path), 'JAX_PLATFORMS': 'cpu'}
    if shortest:
        environment['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = shortest
    subprocess.run([sys.executable, '-c', CACHED], check=True, env=environment)
    assert any(tmp_path.rglob('*lambda*')) == (shortest is None)
