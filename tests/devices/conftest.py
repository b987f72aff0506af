from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched.devices.nvidia import sampler
from tests.devices.fake_nvml import FakeNvml
from tests.waiting import PATIENCE_S


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """A machine whose NVML works and has no GPU yet, seen by this process."""
    monkeypatch.setattr(sampler, "_WAIT_S", 0.01)
    yield FakeNvml(tmp_path).use_here(monkeypatch)
    # a thread that samples must not live to see the next test's machine
    for thread in threading.enumerate():
        if thread.name == "nvml":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
