"""What a process learns from the CUDA driver, through a libcuda.so.1 that is compiled from C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.worker import cuda
from gpusched.worker.cuda import require_device
from gpusched.workload import DeviceMismatch
from tests.devices.fake_nvml import compiled, mig_uuid, uuid

SOURCE = Path(__file__).parents[1] / "devices" / "fake_cuda.c"
ASK = "from gpusched.worker.cuda import shown_devices; print(shown_devices())"


def shown(tmp_path: Path, **environment: str) -> object:
    """The answer in a process of its own."""
    library = str(compiled(SOURCE, "libcuda.so.1").parent)
    environment = {"LD_LIBRARY_PATH": library, "PATH": os.environ["PATH"], **environment}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    return eval(done.stdout)


def test_the_devices_that_cuda_shows(tmp_path: Path) -> None:
    assert shown(tmp_path, CUDA_VISIBLE_DEVICES=uuid(3)) == (uuid(3).removeprefix("GPU-"),)
    assert shown(tmp_path, CUDA_VISIBLE_DEVICES=mig_uuid(1, 2)) == (mig_uuid(1, 2).removeprefix("MIG-"),)
    two = tuple(uuid(number).removeprefix("GPU-") for number in (5, 1))
    assert shown(tmp_path, FAKE_CUDA_SHOWS=f"{uuid(5)},{uuid(1)}") == two
    assert shown(tmp_path, FAKE_CUDA_SHOWS="") == ()


def test_a_driver_that_cannot_be_asked_proves_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path, FAKE_CUDA_ERROR="999", CUDA_VISIBLE_DEVICES=uuid(0)) is None
    (tmp_path / "libcuda.so.1").write_text("")  # a library that cannot be loaded hides a real one
    assert shown(tmp_path, LD_LIBRARY_PATH=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("device", "shown", "fits"),
    [
        (uuid(1), (uuid(1)[4:],), True),
        (uuid(10).upper(), (uuid(10)[4:],), True),
        (mig_uuid(0, 1), (mig_uuid(0, 1)[4:],), True),
        (uuid(1), None, None),
        (uuid(1), (uuid(0)[4:],), False),
        (uuid(1), (uuid(1)[4:], uuid(0)[4:]), False),
        (uuid(1), (), False),
        ("cpu", (uuid(0)[4:],), None),
    ],
)
def test_it_must_be_the_device_of_the_slot_and_no_other(
    monkeypatch: pytest.MonkeyPatch, device: str, shown: tuple[str, ...] | None, fits: bool | None
) -> None:
    monkeypatch.setattr(cuda, "shown_devices", lambda: shown)
    if fits is False:
        with pytest.raises(DeviceMismatch, match="the slot's device is"):
            require_device(device)
    else:
        assert require_device(device) == (device if fits else None)
