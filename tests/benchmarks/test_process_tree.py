"""The benchmarks count every process that a command starts: none may escape, however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

#: seconds of processor time that the innermost process burns
BURNT_S = 0.3
_BURN = f"import time\nwhile time.process_time() < {BURNT_S}: pass"
_WAITS = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
#: ends at once, so that its child is an orphan
_LEAVES = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
_IGNORES = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); {_WAITS}"
#: In a process of its own: it adopts orphans.
_MEASURE = """
import subprocess, sys
from benchmarks.process_tree import Watched, adopt_orphans, measured, watched
adopt_orphans()
seen = Watched()
with measured() as used, watched(seen):
    subprocess.run([sys.executable, "-c", *sys.argv[1:]])
print(used.seconds, seen.seconds, seen.peak_bytes)
"""


def _measure(*script: str) -> tuple[float, float, float]:
    """Processor seconds measured and seen, and the largest memory seen, of a script and its arguments."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *script], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    used, seen, peak = map(float, done.stdout.split())
    return used, seen, peak


@pytest.mark.parametrize("parent", [_WAITS, _LEAVES], ids=["waited for", "left behind"])
def test_processor_time_of_grandchildren_is_counted(parent: str) -> None:
    used, _, _ = _measure(parent, _BURN)
    assert used >= BURNT_S


def test_what_nobody_can_count_is_seen() -> None:
    used, seen, _ = _measure(_IGNORES, _BURN)
    assert used < BURNT_S
    assert seen > used


def test_memory_is_the_whole_trees() -> None:
    megabytes = "held = b'x' * 40_000_000\n"
    _, _, peak = _measure(f"{megabytes}{_WAITS}", f"{megabytes}{_BURN}")
    assert 80e6 < peak < 200e6
