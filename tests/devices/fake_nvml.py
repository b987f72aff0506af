"""A machine with GPUs that are not there: drives `fake_nvml.c`, which the real pynvml loads as its library."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pynvml
import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
GIB = 1 << 30

UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
VERSION_MISMATCH = 18
UNKNOWN = 999

EXCLUSIVE_PROCESS = 3
PROHIBITED = 2

DOUBLE_BIT_ECC = 2
XID = 8
WHOLE_GPU = -1


def library() -> Path:
    """The fake libnvidia-ml.so.1."""
    return compiled(SOURCE, "libnvidia-ml.so.1")


@functools.cache
def compiled(source: Path, name: str) -> Path:
    """A library of this name; kept between test runs as long as its source is the same."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip(f"no C compiler to build the fake {name} with")
    sources = b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
    digest = hashlib.sha256(sources).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"gpusched-fakes-{os.getuid()}-{digest}"
    path = directory / name
    if not path.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        built = directory / f"{os.getpid()}.so"
        flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{name}"]
        subprocess.run([compiler, *flags, "-o", built, source], check=True)
        built.replace(path)
    return path


class Block:
    """A function that waits until it is let go."""

    def __init__(self, fake: FakeNvml, key: str, path: Path) -> None:
        self._fake = fake
        self._key = key
        self._path = path
        self._fd = -1
        os.mkfifo(path)

    def entered(self) -> None:
        """Return when some thread is inside the function."""
        self._fd = os.open(self._path, os.O_WRONLY)

    def release(self) -> None:
        """Let it go on, and not block again."""
        self._fake.write(**{self._key: None})
        os.close(self._fd)


class FakeNvml:
    """The machine. Each method changes NVML's answers from its next call on."""

    def __init__(self, directory: Path) -> None:
        self.library = library()
        self._directory = directory
        self._path = directory / "nvml-state"
        self._state: dict[str, str] = {}
        self._events = 0
        self._at_once = False
        self.write(count=0)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process on this machine."""
        return {"LD_LIBRARY_PATH": str(self.library.parent), "FAKE_NVML_STATE": str(self._path)}

    @property
    def count(self) -> int:
        """The number of GPUs."""
        return int(self._state["count"])

    def use_here(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Make it the machine of this process, whatever library pynvml has loaded before."""
        monkeypatch.setenv("FAKE_NVML_STATE", str(self._path))
        monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(self.library)))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return self

    def gpus(self, count: int, **values: object) -> Self:
        """`count` GPUs of 48 GiB that report every value; `values` replace or (None) remove some."""
        with self.at_once():
            self.write(count=count, driver="580.95.05")
            for index in range(count):
                self.set(
                    index,
                    uuid=uuid(index),
                    name="NVIDIA RTX 6000 Ada Generation",
                    bus=index + 1,
                    memory_total=48 * GIB,
                    memory_free=47 * GIB,
                    utilisation=0,
                    temperature=40,
                    power=25_500,
                    power_limit=300_000,
                    fan=30,
                    compute_mode=0,
                    persistence=1,
                    processes="",
                    ecc=0,
                    events=XID | DOUBLE_BIT_ECC,
                )
                self.set(index, **values)
        return self

    def mig(self, gpu: int, *instances: int) -> Self:
        """Put a GPU in MIG mode, with instances of 12 GiB at these indexes; a GPU instance ID is index + 1."""
        with self.at_once():
            self.set(gpu, mig=1, mig_max=7)
            for index in instances:
                self.set(
                    f"{gpu}/{index}",
                    uuid=mig_uuid(gpu, index),
                    name="NVIDIA A100 MIG 2g.12gb",
                    memory_total=12 * GIB,
                    memory_free=11 * GIB,
                    processes="",
                    instance=index + 1,
                )
        return self

    def set(self, device: int | str, **values: object) -> Self:
        """Values of a device; None: the card does not report it."""
        self.write(**{f"{device} {key}": value for key, value in values.items()})
        return self

    def fail(self, function: str, error: int | None, device: int | str | None = None) -> Self:
        """Let a function return an error, on one device or on all; None: let it work again."""
        self.write(**{_key(f"{function}.error", device): error})
        return self

    def block(self, function: str, device: int | str | None = None) -> Block:
        """Let a function block, on one device or on all, until the block is released."""
        key = _key(f"{function}.block", device)
        path = self._directory / key.replace(" ", "-").replace("/", "-")
        block = Block(self, key, path)
        self.write(**{key: path})
        return block

    def event(self, gpu: int, kind: int, data: int = 0, instance: int = WHOLE_GPU) -> Self:
        """Let the driver report an event. `data` is the number of an XID."""
        self._events += 1
        self.write(**{f"event {self._events}": f"{gpu} {kind} {data} {instance}"})
        return self

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Whoever looks meanwhile sees nothing of the changes that are made within, and then all of them."""
        outermost, self._at_once = not self._at_once, True
        try:
            yield
        finally:
            if outermost:
                self._at_once = False
                self.write()

    def write(self, **values: object) -> None:
        """Set lines of the state file, atomically unless several calls are to be `at_once`; None removes one."""
        for key, value in values.items():
            if value is None:
                self._state.pop(key, None)
            else:
                self._state[key] = str(value)
        if self._at_once:
            return
        new = self._path.with_suffix(".new")
        new.write_text("".join(f"{key} {value}\n" for key, value in self._state.items()))
        new.replace(self._path)


def uuid(gpu: int) -> str:
    return f"GPU-{gpu:08x}-d72c-4106-c12f-20bd9faed9f6"


def mig_uuid(gpu: int, index: int) -> str:
    return f"MIG-{gpu:04x}{index:04x}-1b9e-5d9c-8ba1-11cd2a5b7f1e"


def _key(key: str, device: int | str | None) -> str:
    return key if device is None else f"{device} {key}"
