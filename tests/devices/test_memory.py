"""What a program asks of the host's memory."""

import os
import subprocess
import sys

import pytest

from m2snet_jax.devices import memory

glibc_only = pytest.mark.skipif('CS_GNU_LIBC_VERSION' not in os.confstr_names, reason='only glibc is told to')

FREED = """
import numpy as np
from m2snet_jax.devices.memory import keep_freed_memory

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


@glibc_only
def test_memory_that_is_freed_is_kept():
    out = subprocess.run([sys.executable, '-c', FREED], check=True, capture_output=True, text=True).stdout
    given_back, kept = map(float, out.split())
    assert given_back < 16
    assert kept > 100


RESTARTS = """
import os, sys
from pathlib import Path
from m2snet_jax.devices import memory
memory.LINUX = Path(sys.argv[1])
if sys.argv[2] == 'traced':
    sys.settrace(lambda *_: None)
if sys.argv[2] == 'monitored':
    sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, 'debugger')
print(os.getpid(), flush=True)
memory.restart_with_huge_pages()
print(os.environ.get('GLIBC_TUNABLES'), sys.argv[2:], sys.flags.utf8_mode)
"""


@glibc_only
@pytest.mark.parametrize(
    ('offered', 'word', 'before', 'after'),
    [
        ('always [madvise] never', 'a b', None, 'glibc.malloc.hugetlb=1'),
        ('always [madvise] never', 'a b', 'glibc.malloc.check=0', 'glibc.malloc.check=0:glibc.malloc.hugetlb=1'),
        ('always [madvise] never', 'a b', 'glibc.malloc.hugetlb=0', 'glibc.malloc.hugetlb=0'),
        ('always [madvise] never', 'traced', None, None),
        pytest.param(
            *('always [madvise] never', 'monitored', None, None),
            marks=pytest.mark.skipif(not hasattr(sys, 'monitoring'), reason='Python 3.12 has it'),
        ),
        ('[always] madvise never', 'a b', None, None),
        ('always madvise [never]', 'a b', None, None),
        (None, 'a b', None, None),
    ],
)
def test_a_program_starts_anew_once_where_huge_pages_are_to_be_asked_for(offered, word, before, after, tmp_path):
    """In the same process, with the same interpreter's options and words."""
    switch = tmp_path / 'enabled'
    if offered is not None:
        switch.write_text(offered)
    environment = {key: value for key, value in os.environ.items() if key != memory.SETTINGS}
    if before is not None:
        environment[memory.SETTINGS] = before
    command = [sys.executable, '-X', 'utf8', '-c', RESTARTS, switch, word]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    *starts, end = done.stdout.splitlines()
    assert starts == starts[:1] * (2 if after != before else 1)
    assert end == f'{after} {[word]} 1'


@pytest.mark.skipif(not memory.LINUX.exists(), reason='Linux gives no huge pages')
@pytest.mark.parametrize('command', [['train.py'], ['-m', 'm2snet_jax']])
def test_commands_ask_for_huge_pages(command):
    """Looked at from outside, in a command that stops at once."""
    environment = {key: value for key, value in os.environ.items() if key != memory.SETTINGS}
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', *command, '--help'], env=environment, capture_output=True, text=True
    )
    starts = done.stderr.count('m2snet_jax.devices.memory\n')
    assert done.returncode == 0
    assert starts == (2 if '[madvise]' in memory.LINUX.read_text() else 1)
