"""The launcher's heap before it forks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HOLES = """
import ctypes, json
from gpusched.worker import linux

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

linux._libc.mallinfo2.restype = Mallinfo2

def free_in_holes():
    info = linux._libc.mallinfo2()
    return info.fordblks - info.keepcost

pieces = [bytearray(2000) for _ in range(1000)]
del pieces[::2]
before = free_in_holes()
linux.fill_heap_holes()
print(json.dumps([before, free_in_holes()]))
"""


def test_new_memory_lies_side_by_side() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=False)
    if "mallinfo2" in run.stderr:
        pytest.skip("this C library does not tell what its heap looks like")
    before, after = json.loads(run.stdout)
    assert before > 900_000
    assert after < 10_000
