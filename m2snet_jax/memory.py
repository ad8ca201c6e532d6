"""Memory of the host, as Linux and glibc hand it out. Nothing here changes a result."""

import ctypes
import os
import sys
from pathlib import Path

SETTINGS = 'GLIBC_TUNABLES'  # glibc reads it when a program starts, and only then
HUGE_PAGES = 'glibc.malloc.hugetlb'
LINUX = Path('/sys/kernel/mm/transparent_hugepage/enabled')  # whom it gives huge pages: the word in brackets
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt


def restart_with_huge_pages():
    """Starts this program anew, once, in the same process, with large buffers in huge pages.

    A training step on a CPU then takes six sevenths of its time; the rest goes into handling 4 KiB pages. Only where
    Linux leaves the choice to programs, and glibc takes it for them (2.35 or newer; an older one ignores it).
    `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` in the environment switches it off. A debugger keeps its program.

    To be called before anything is opened or printed.
    """
    settings = os.environ.get(SETTINGS, '')
    glibc = 'CS_GNU_LIBC_VERSION' in getattr(os, 'confstr_names', ())
    offered = LINUX.read_text() if glibc and LINUX.exists() else ''
    if '[madvise]' not in offered or HUGE_PAGES in settings or _debugged():
        return
    os.environ[SETTINGS] = ':'.join(filter(None, (settings, f'{HUGE_PAGES}=1')))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _debugged():
    monitoring = getattr(sys, 'monitoring', None)  # by which debuggers watch from Python 3.12 on
    return bool(sys.gettrace() or (monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID)))


def keep_freed_memory():
    """Has the C library, where it is glibc, keep the memory that a step frees for the next one.

    Else the buffers of every step are mapped and cleared anew, a twentieth of the time of inference on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
