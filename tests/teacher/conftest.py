from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpusched.teacher import train_window
from gpusched.workload import Result
from tests.teacher.support import ignore, walk, window_task, write_daily


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A window of 120 daily bars, trained once for all tests, and its root: the artifacts are in `artifacts`."""
    root = tmp_path_factory.mktemp("trained")
    write_daily(root / "data", "ABC", walk(140))
    (root / "artifacts").mkdir()
    result = train_window(window_task(root), root / "artifacts", ignore)
    return root, result


@pytest.fixture
def root(trained: tuple[Path, Result], tmp_path: Path) -> Path:
    """A data root of one's own, with the bars of `trained`."""
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    return tmp_path
