"""A CUDA driver that is not there: drives `fake_cuda.c`, which window processes load as their libcuda.so.1."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.devices.fake_nvml import EXCLUSIVE_PROCESS, FakeNvml, compiled

SOURCE = Path(__file__).with_name("fake_cuda.c")

OUT_OF_MEMORY = 2
DEVICE_UNAVAILABLE = 46
NO_DEVICE = 100
ECC_UNCORRECTABLE = 214
UNKNOWN = 999


class FakeCuda:
    """The driver. Each method changes CUDA's answers from its next call on."""

    def __init__(self, directory: Path) -> None:
        self.library = compiled(SOURCE, "libcuda.so.1")
        self._path = directory / "cuda-state"
        self._calls = directory / "cuda-calls"
        self._memory = ""
        self._failures: dict[tuple[str, str], str] = {}
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that finds it; the library's directory goes before any other there."""
        return {"LD_LIBRARY_PATH": str(self.library.parent), "FAKE_CUDA_STATE": str(self._path)}

    def fail(self, function: str, error: int | None, device: str = "*", *, times: int | None = None) -> Self:
        """Let a function return an error, where the mask says `device` or everywhere; None: let it work again.

        `times`: only so often from now on, counted over all processes.
        """
        mark = self._path.with_name(f"cuda-{function}-{len(self._failures)}-{error}")
        often = "" if times is None else f"{mark} {times}"
        self._failures.pop((function, device), None)
        if error is not None:
            self._failures[function, device] = f"{error} {device} {often}"
        self._write()
        return self

    def memory(self, total_mib: int, context_mib: int, nvml: FakeNvml) -> Self:
        """Give each card so much memory, of which a context takes some, and let NVML show who holds it."""
        held = self._path.with_name("cuda-memory")
        self._memory = f"memory {held} {total_mib} {context_mib}"
        self._write()
        for gpu in range(nvml.count):
            nvml.set(gpu, memory_total=total_mib << 20, memory_free=total_mib << 20, held=held)
        return self

    def exclusive(self, nvml: FakeNvml) -> Self:
        """Put each card in EXCLUSIVE_PROCESS mode; after `memory`, whose account tells who holds it."""
        self._memory += "\nexclusive"
        self._write()
        for gpu in range(nvml.count):
            nvml.set(gpu, compute_mode=EXCLUSIVE_PROCESS)
        return self

    def calls(self) -> list[str]:
        """`function mask` of every call so far, in order."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def _write(self) -> None:
        lines = [f"{function} {failure}" for (function, _), failure in self._failures.items()]
        new = self._path.with_suffix(".new")
        new.write_text("\n".join([f"calls {self._calls}", self._memory, *lines, ""]))
        new.replace(self._path)
