from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.support import REPOSITORY, Daemon
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


def test_a_session_as_in_a_notebook(tmp_path: Path) -> None:
    """Under a minute, with the start of the daemon."""
    with Daemon(tmp_path / "daemon") as daemon:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "examples" / "notebook.py")],
            cwd=tmp_path,
            env=os.environ | {"GPUSCHED_SOCKET": str(daemon.socket), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^finished \{.*'succeeded': 16", done.stdout, re.MULTILINE), done.stdout
    assert "of 16 models predict a constant" in done.stdout
    assert "validation" in done.stdout.splitlines()[-1]
