"""The inheritance of a window process: all that it needs, and nothing else."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusched.core.model import WindowResult
from gpusched.engines.local.launcher import Confines
from tests.worker.support import Bench, bench


async def shown(b: Bench, names: list[str], **arguments: Any) -> dict[str, Any]:
    process = await b.launcher.fork(
        b.job("shows_itself", names=json.dumps(names)),
        Confines(log_path=b.log, **{"env": {}, **arguments}),
    )
    assert (await process.wait(b.messages.append)).exit_code == 0
    assert isinstance(b.last, WindowResult)
    return {**b.last.metrics, "forked": process.pid}


async def test_a_window_process_is_a_session_of_its_own_with_nothing_left_of_the_launcher(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        window = await shown(b, [])
        assert window["pid"] == window["session"] == window["group"] == window["forked"]
        assert window["parent"] == b.launcher_pid == window["preloaded_by"]
        # The standard ones, the pipe, the output directory, `.partial`, and its own, which is locked.
        assert window["descriptors"] == [0, 1, 2, 3, 4, 5, 6]
        assert window["stdin_is_null"]
        assert window["log_mode"] == 0o600
        assert window["blocked"] == []
        assert window["term_is_default"]
        assert window["wakeup"] == -1
        assert window["gc"]
        assert window["core_limit"] == 0
        assert window["data_limit"] == resource.RLIM_INFINITY
        assert window["oom_score_adj"] >= 500


async def test_environment_affinity_and_limits_are_as_asked(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    names = ["CUDA_VISIBLE_DEVICES", "PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY"]
    async with bench(tmp_path) as b:
        window = await shown(
            b,
            names,
            env={"CUDA_VISIBLE_DEVICES": "GPU-0", "PATH": None, "OPENBLAS_NUM_THREADS": "2"},
            cpus=(cpu, 4711),
            memory_limit_bytes=1 << 40,
        )
        assert window["environment"] == {
            "CUDA_VISIBLE_DEVICES": "GPU-0",
            "PATH": None,
            "OMP_NUM_THREADS": "3",
            "OPENBLAS_NUM_THREADS": "2",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        assert window["cpus"] == [cpu]
        assert window["data_limit"] == 1 << 40

        # None of it stays: the next window starts from the launcher's.
        after = await shown(b, ["CUDA_VISIBLE_DEVICES", "PATH"], cpus=(4711,))
        assert after["environment"] == {
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "PATH": os.environ.get("PATH"),
        }
        assert after["cpus"] == sorted(os.sched_getaffinity(0))


def test_the_launcher_stays_small() -> None:
    """Every fork copies the page tables of all that the launcher has imported."""
    probe = "import gpusched.worker.launcher, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "gpusched.worker.window" in modules
    assert {"asyncio", "anyio", "rich", "pandas", "numpy", "lightgbm", "subprocess", "shutil"}.isdisjoint(modules)


def test_artifacts_need_no_numpy() -> None:
    probe = "import gpusched.artifacts, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "pandas", "lightgbm", "asyncio", "shutil"}.isdisjoint(modules)


@pytest.mark.parametrize("seeds", [False, pytest.param(True, marks=pytest.mark.thorough)])
async def test_windows_do_not_share_numpys_random_numbers(tmp_path: Path, seeds: bool) -> None:
    """All had those of the launcher's state."""
    (tmp_path / "draws.py").write_text(
        "import numpy.random\n"
        f"{seeds} and numpy.random.seed(1)\n"
        "def train(task, directory, report): return {'drawn': numpy.random.random()}\n"
    )
    drawn: dict[str, set[object]] = {"A": set(), "B": set()}
    for _ in range(2):
        async with bench(tmp_path) as b:
            for symbol, numbers in drawn.items():
                await b.run(f"{tmp_path}:draws:train", symbol)
                assert isinstance(b.last, WindowResult)
                numbers.add(b.last.metrics["drawn"])
    assert drawn["A"].isdisjoint(drawn["B"])
    assert {len(numbers) for numbers in drawn.values()} == {1 if seeds else 2}
