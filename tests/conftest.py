import os

import jax
import pytest
from absl import flags

# One compilation cache for the whole run, kept between runs; a program that was compiled once is only read.
CACHE = os.path.join(os.path.dirname(__file__), '..', '.pytest_cache', 'jax')
jax.config.update('jax_compilation_cache_dir', os.path.abspath(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
flags.FLAGS.mark_as_parsed()  # grain reads an absl flag, and tests have no command line of their own


@pytest.fixture
def float64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
