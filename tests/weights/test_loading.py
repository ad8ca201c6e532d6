"""What it costs to load a whole model, 110 MB: in a fresh process, as a user does it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import dict_of, storage, tensor, write_stream, write_zip

from m2snet_jax.__main__ import main
from m2snet_jax.build import create_model
from m2snet_jax.weights import state_dict

pytestmark = pytest.mark.usefixtures('compiled_quickly')

PROGRAM = """
import json, re, sys, time
import jax
from flax import nnx
from m2snet_jax import load_model

def megabytes():  # the most that this program ever had; the parent's is left out, unlike in resource.getrusage
    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024

memory, begun = megabytes(), (time.perf_counter(), time.process_time())
predictor = load_model(sys.argv[1])
jax.block_until_ready(nnx.state(predictor.model))
seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
print(json.dumps({'seconds': seconds, 'megabytes': megabytes() - memory, 'hash': predictor.model_hash}))
"""


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """The same weights as a file of each kind and as a folder of ours."""
    folder = tmp_path_factory.mktemp('weights')
    arrays = {name: np.ascontiguousarray(array) for name, array in state_dict(create_model('m2snet')).items()}
    assert 110e6 < sum(array.nbytes for array in arrays.values()) < 112e6
    save_file(arrays, folder / 'a.safetensors')
    names, strides = {}, lambda shape: tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
    for key, (name, array) in enumerate(arrays.items()):
        names[name] = tensor(storage('FloatStorage', str(key), array.size), 0, array.shape, strides(array.shape))
    storages = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    write_zip(folder / 'zip.pth', dict_of(names), storages)
    write_stream(folder / 'stream.pth', dict_of(names), storages)
    assert main(['m2snet_jax', 'convert', str(folder / 'a.safetensors'), str(folder / 'ours')]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads the memory of a process as Linux tells it')
def test_a_whole_model_loads_in_seconds_and_little_memory(sources):
    hashes = set()
    for name in ('a.safetensors', 'zip.pth', 'stream.pth', 'ours'):
        done = subprocess.run(
            [sys.executable, '-c', PROGRAM, str(sources / name)],
            cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(done.stdout)
        print(name, found)
        hashes.add(found['hash'])
        assert found['seconds'][1] < 10  # of the processor; about 1 to 2
        assert found['megabytes'] < 400
    assert len(hashes) == 1
