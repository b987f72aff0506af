from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpusched.sample import write_sample
from tests.devices.fake_nvml import FakeNvml
from tests.end_to_end.machines import CudaMachine, Machine
from tests.end_to_end.support import Command


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sample's bars, and a configuration: 5 symbols × 6 windows, of which all can be trained."""
    directory = tmp_path_factory.mktemp("sample")
    symbols = write_sample(directory)
    (directory / "symbols.txt").write_text("".join(f"{symbol}\n" for symbol in symbols if symbol != "FB"))
    (directory / "config.toml").write_text(
        '[data]\nroot = "data"\n\n[windows]\nstart = 2006-01-01\nend = 2007-12-31\ndays = 122\n'
    )
    return directory


@pytest.fixture
def gpusched(sample: Path, tmp_path: Path) -> Command:
    """The command in a directory with the sample."""
    shutil.copytree(sample, tmp_path, dirs_exist_ok=True)
    return Command(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def cuda_machine(tmp_path: Path) -> CudaMachine:
    return CudaMachine(tmp_path)


@pytest.fixture
def sample_on_gpus(gpusched: Command) -> Command:
    """The sample where there are two GPUs."""
    gpusched.environment |= FakeNvml(gpusched.directory).gpus(2).environment
    return gpusched
