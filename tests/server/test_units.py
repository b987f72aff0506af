"""The systemd units: sound, hardened, and in agreement with the daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpusched.service import manager
from tests.server.support import REPOSITORY

SYSTEM = REPOSITORY / "systemd" / "gpusched.service"
USER = REPOSITORY / "systemd" / "user" / "gpusched.service"

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt-get install systemd)"
)


def installed(unit: Path, directory: Path) -> Path:
    """The unit as it would be on a machine that has gpusched."""
    copy = directory / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    return copy


def analyze(*arguments: str, runtime: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd_analyze
@pytest.mark.parametrize(("unit", "manager"), [(SYSTEM, "--system"), (USER, "--user")], ids=["system", "user"])
def test_units_are_sound(unit: Path, manager: str, tmp_path: Path) -> None:
    assert analyze(manager, "verify", "--man=no", str(installed(unit, tmp_path)), runtime=tmp_path) == ""


@needs_systemd_analyze
def test_the_system_service_is_exposed_little(tmp_path: Path) -> None:
    unit = installed(SYSTEM, tmp_path)
    report = analyze("security", "--offline=yes", "--threshold=30", str(unit), runtime=tmp_path)
    level = re.search(r"exposure level for gpusched\.service: ([\d.]+)", report)
    assert level
    assert float(level[1]) <= 3.0


def settings(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", unit.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_units_agree_with_the_daemon(unit: Path) -> None:
    setting = settings(unit)
    assert setting["Type"] == "notify"
    assert setting["KillMode"] == "mixed"
    assert setting["OOMPolicy"] == "continue"
    assert setting["Restart"] == "on-failure"
    # While the daemon drains it asks for more time, before the time it has is over.
    assert int(setting["TimeoutStopSec"]) >= manager.EXTENSION_S
    assert int(setting["WatchdogSec"]) > manager.TURN_S
    assert setting["ExecStart"].endswith("/gpusched daemon")


def test_the_system_service_reaches_the_gpus() -> None:
    text = SYSTEM.read_text()
    assert "PrivateDevices=yes" not in text
    assert "MemoryDenyWriteExecute=yes" not in text
    for device in ("char-nvidia rw", "char-nvidia-uvm rw", "char-nvidia-caps rw", "/dev/nvidiactl rw"):
        assert f"DeviceAllow={device}\n" in text
    assert "After=network.target nvidia-persistenced.service" in text
