import gc
import os
import signal

import jax
import pytest
from absl import flags
from compilation_cache import CACHE

from m2snet_jax.devices.cache_entries import protect_cache_entries

# Most of the time of a test run is compiling. XLA's older code for fused operations compiles them in two thirds of the
# time. The variable is read when jax is first used, here and in processes that are started. With a variable that is set
# already, also an empty one, tests compile as users do.
QUICK = '--xla_cpu_use_fusion_emitters=false'
os.environ.setdefault('XLA_FLAGS', QUICK)

# Tests send Ctrl-C. A shell starts its jobs in the background with that signal ignored, and they pass this on.
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(100_000)  # tracing makes many small objects
jax.config.update('jax_compilation_cache_dir', CACHE)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
protect_cache_entries()  # workers read what another one writes
flags.FLAGS.mark_as_parsed()  # grain reads an absl flag, and tests have no command line of their own


@pytest.fixture
def float64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='module')
def compiled_quickly():
    """Compiles without most optimisations, here and in processes that are started: in less than half of the time.

    Not for files that compare numbers with the released program's.
    """
    if os.environ['XLA_FLAGS'] != QUICK:
        yield
        return
    variable, option = 'JAX_DISABLE_MOST_OPTIMIZATIONS', 'jax_disable_most_optimizations'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, '1')
        jax.config.update(option, True)
        yield
        jax.config.update(option, False)


@pytest.fixture(scope='module')
def plain_encoder():
    """Makes 'plain' the name of a small encoder, where the encoder is not the subject: it compiles in a few seconds."""
    from tiny_models import Plain

    from m2snet_jax.models.encoders import ENCODERS, Encoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, 'plain', Encoder(Plain, Plain.channels, (4, 4, 8, 16, 32)))
        yield


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A server with the bucket `gs://bucket`, for this process and those that it starts."""
    from bucket_server import Server

    from m2snet_jax.buckets import client, copies

    server = Server()
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', server.address)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr(copies, 'state', copies.Copies())
    client.storage_client.cache_clear()
    yield server
    client.storage_client.cache_clear()
    server.close()
