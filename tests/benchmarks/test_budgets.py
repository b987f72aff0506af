"""The budgets that are counts, or ratios of two times of one run: they hold on a noisy machine, too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("launch", None),
        ("throughput", 1_000),
        ("events", None),
        ("commands", None),
        ("service", None),
        ("parse", None),
        ("soak", 10_000),
    ],
)
def test_what_does_not_depend_on_the_machine_holds(name: str, windows: int | None) -> None:
    command = [sys.executable, "-m", "benchmarks.budgets", "--only", name, "--json"]
    if windows is not None:
        command += ["--windows", str(windows)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    budgets = [json.loads(line) for line in ended.stdout.splitlines()]
    assert budgets, ended.stderr
    assert any(not budget["noisy"] for budget in budgets)
    assert [budget for budget in budgets if not budget["noisy"] and not budget["holds"]] == []
