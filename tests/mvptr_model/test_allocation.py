"""Freed memory stays with the process: no more page faults when it is taken again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Take and free 64 MB again and again (up to 32, glibc itself learns to keep), and print the page faults: before, and after.
SCRIPT = """
import ctypes, resource, torch
from mvptr_model.allocation import keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: with large pages there are few faults to begin with

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults(10)
if keep_freed_memory():
    faults(10)
    print(left, faults(10))
"""


def test_kept() -> None:
    """In a process of its own, for it cannot be undone."""
    # Nor torch's own large pages, which other modules ask for.
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    if not done.stdout:
        pytest.skip("malloc is not glibc's")
    left, kept = map(int, done.stdout.split())
    pages = 10 * 4 * 2**24 // os.sysconf("SC_PAGE_SIZE")
    if left < 0.6 * pages:
        pytest.skip(f"the system gives {pages} pages in {left} faults")
    assert kept < left / 10
