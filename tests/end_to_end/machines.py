"""Machines with two GPUs of the fake NVML library, which the real pynvml loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpusched.config import STATE_DIR
from gpusched.metadata import read_metadata
from gpusched.store.store import Store
from tests.devices.fake_cuda import FakeCuda
from tests.devices.fake_nvml import FakeNvml
from tests.end_to_end.support import Command, index
from tests.server.support import Daemon

#: 6 symbols × 2 windows
ASKED = ("symbols.txt", "-o", "out", "--data-root", "data", "--start", "2022-01-01", "--end", "2022-01-20")
DAYS = ("--window-days", "10")
WINDOWS = 12


class Machine(Command):
    """The command where there are two GPUs, for windows of 6 symbols."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.nvml = FakeNvml(directory).gpus(2)
        # by the environment, since a batch cannot ask a daemon for other slots
        self.environment |= self.nvml.environment | {"GPUSCHED_DEVICES_SLOTS": "1"}
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        (directory / "data").mkdir()
        (directory / "symbols.txt").write_text("".join(f"S{number}\n" for number in range(6)))

    def asked(self, workload: str, **settings: object) -> list[str]:
        settings = {
            "run.workload": f"tests.devices.workloads:{workload}",
            "run.device": "cuda",
        } | settings
        return [*ASKED, *DAYS, *(text for key, value in settings.items() for text in ("--set", f"{key}={value}"))]


def details(output: Path) -> list[dict[str, Any]]:
    """The view of each window, with the device that it was given."""
    found = []
    for line in index(output):
        metadata = read_metadata(Path(line["artifacts_path"]))
        assert metadata is not None
        found.append(
            metadata.details
            | {"device": metadata.device, "device_type": metadata.device_type, "device_seen": metadata.device_seen}
        )
    return found


def failures(output: Path) -> set[tuple[str, str]]:
    """The kinds and messages of failure of all attempts."""
    with Store.open(output / STATE_DIR / "state.db") as store:
        keys = [row.key for batch in store.batches() for row in store.windows(batch.id)]
        ended = (attempt for key in keys for attempt in store.attempts(key))
        return {(attempt.ending, attempt.message) for attempt in ended if attempt.ending and attempt.message}


@contextlib.contextmanager
def service(machine: Machine, *settings: str) -> Iterator[Path]:
    """A daemon on the machine, for its commands; the socket."""
    socket, state = machine.directory / "s", machine.directory / "state"
    daemon = Daemon(machine.directory / "notices")
    machine.environment |= {"GPUSCHED_SOCKET": str(socket), "STATE_DIRECTORY": str(state)}
    machine.environment["NOTIFY_SOCKET"] = daemon.listen()
    with daemon.notices, machine.start("daemon", *settings) as process, contextlib.ExitStack() as stack:
        stack.callback(process.terminate)
        daemon.wait_for_notice("READY=1")
        yield socket


class CudaMachine(Machine):
    """With a CUDA driver."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.cuda = FakeCuda(directory)
        libraries = [self.environment["LD_LIBRARY_PATH"], self.cuda.environment["LD_LIBRARY_PATH"]]
        self.environment |= self.cuda.environment | {"LD_LIBRARY_PATH": ":".join(libraries)}
