"""The cost of a command before it does anything: `python -m benchmarks.commands`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

REPOSITORY = Path(__file__).parents[1]
REPEAT = 10
#: modules that only the daemon and windows need, and that cost a client tens of milliseconds to import
HEAVY = frozenset({"anyio", "asyncio", "lightgbm", "multiprocessing", "numpy", "pandas", "sqlite3", "talib"})

#: runs the command, then prints the modules that it imported on stderr; for an interpreter that imports nothing by
#: itself
_LISTED = """
import sys
before = set(sys.modules)
from gpusched.cli import run
try:
    code = run(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
import json
print(json.dumps([code, sorted(set(sys.modules) - before)]), file=sys.stderr)
"""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    #: from shell to prompt, the median
    seconds: float
    #: modules that it imported, beyond those of a bare interpreter
    modules: int
    #: the `HEAVY` ones among them
    heavy: tuple[str, ...]


def measure(*arguments: str) -> Command:
    imported = modules(*arguments)
    return Command(seconds=seconds(*arguments), modules=len(imported), heavy=tuple(sorted(HEAVY & imported)))


def seconds(*arguments: str) -> float:
    taken = []
    for _ in range(REPEAT):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gpusched", *arguments], check=True, capture_output=True, cwd=REPOSITORY)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def modules(*arguments: str) -> set[str]:
    """Names of all modules that the command imports."""
    done = subprocess.run(
        [sys.executable, "-c", _LISTED, *arguments], check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


def main() -> None:
    version = measure("--version")
    print(f"`gpusched --version`  {version.seconds:.2f} s, {version.modules} modules {' '.join(version.heavy)}")


if __name__ == "__main__":
    main()
