"""What a process sets up for its devices."""

import os
import subprocess
import sys

import pytest

FREED = """
import numpy as np
from m2snet_jax.mesh import keep_freed_memory

def kept():
    def pages():
        return int(open('/proc/self/statm').read().split()[1])
    before = pages()
    np.ones(2**27, np.uint8)
    return (pages() - before) * 4 / 2**10

given_back = kept()
keep_freed_memory()
print(given_back, kept())
"""


@pytest.mark.skipif('CS_GNU_LIBC_VERSION' not in os.confstr_names, reason='only glibc is told to')
def test_memory_that_is_freed_is_kept():
    out = subprocess.run([sys.executable, '-c', FREED], check=True, capture_output=True, text=True).stdout
    given_back, kept = map(float, out.split())
    assert given_back < 16
    assert kept > 100
