"""The launcher's heap before it forks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
linux.lay_out_heap()
print(json.dumps([before, free_in_holes()]))
"""

HUGE = """
import json, re
from gpusched.worker import linux

linux.lay_out_heap()
linux.lay_out_heap()  # as for a second function of the same module
maps = re.split(r"\\n(?=[0-9a-f]+-)", open("/proc/self/smaps").read())
heap = [text for text in maps if "[heap]" in text]
size, resident = (sum(int(re.search(name + r": +([0-9]+)", text)[1]) for text in heap if " hg" in text)
                  for name in ("Size", "Rss"))
print(json.dumps([size, resident]))
"""


def test_new_memory_lies_side_by_side() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=False)
    if "mallinfo2" in run.stderr:
        pytest.skip("this C library does not tell what its heap looks like")
    before, after = json.loads(run.stdout)
    assert before > 900_000
    assert after < 10_000


def test_what_a_forked_process_allocates_may_lie_in_huge_pages() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no huge pages")
    run = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    size_kb, resident_kb = json.loads(run.stdout)
    assert size_kb >= 8 * 1024
    assert resident_kb == 0, "one that the launcher touches is copied, page by page, by every window"
