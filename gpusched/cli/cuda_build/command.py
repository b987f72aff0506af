"""`doctor --build-cuda`: announce the build, ask for consent, run it, and show its progress."""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gpusched.cli.cuda_build.toolkit import Machine, look
from gpusched.cli.cuda_build.workshop import Built, Workshop
from gpusched.client.drawing.terminal import open_console
from gpusched.client.drawing.text import duration
from gpusched.config import Config
from gpusched.devices.nvidia.cards import cuda_abilities
from gpusched.devices.slots import PoolRules
from gpusched.errors import InputError, UsageError

#: minutes of one core that the build takes for one architecture
MINUTES = 13


class NobodyToAsk(UsageError):
    problem = "--build-cuda replaces LightGBM and asks before it does, and there is no terminal to ask on"
    remedy = "add --yes"


class NoWorkshop(InputError):
    problem = "LightGBM cannot be built: {path}: {why}"
    remedy = "let this user write there, or set cache.dir to another directory"


def build_cuda(options: argparse.Namespace, config: Config) -> bool:
    """Build LightGBM with CUDA, try it and install it; False if the user declined. Raises GpuschedError."""
    if not options.yes and not sys.stdin.isatty():
        raise NobodyToAsk()
    with _Screen(open_console(stderr=True)) as screen, _refusals(config.cache.dir):
        workshop = Workshop(config.cache.dir, screen)
        with workshop.alone():
            workshop.put_back()
            devices = PoolRules(config).find().devices
            if devices and options.arch is None and workshop.trains_by_cuda():
                screen.say(
                    "The installed LightGBM trains by CUDA already. (--arch builds it anew, for what that names.)"
                )
                return True
            machine = look(options.arch, devices, cuda_abilities())
            built = workshop.built(machine)
            for sentence in _plan(machine, workshop, built):
                screen.say(sentence)
            if not options.yes and not _agreed():
                screen.say("Nothing was changed.")
                return False
            began = time.monotonic()
            if built is None:
                built = workshop.build(machine)
                screen.say(f"Built in {duration(time.monotonic() - began)}.")
            workshop.require_training(built, machine, gpus=bool(devices))
            workshop.replace(built, machine, gpus=bool(devices))
        for sentence in _done(machine, gpus=bool(devices)):
            screen.say(sentence)
    return True


@contextlib.contextmanager
def _refusals(cache: Path) -> Iterator[None]:
    """Turn an OSError into NoWorkshop, except that of a full disk, which `gpusched.cli` turns into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoWorkshop(path=error.filename or cache, why=error.strerror or error) from None


def _plan(machine: Machine, workshop: Workshop, built: Built | None) -> list[str]:
    toolkit = machine.toolkit
    targets = ", ".join(f"sm_{name}" for name in machine.architectures)
    if machine.gpus:
        targets += f" ({', '.join(machine.gpus)})"
    product = f"LightGBM {machine.version} with CUDA {toolkit.version} for {targets}"
    if built is not None:
        first = f"{product} is built already: {built.directory}"
    else:
        first = (
            f"{product} is to be built by {toolkit.nvcc}, {machine.jobs} files at a time, in {workshop.home}:"
            f" some {MINUTES} minutes of one core for each architecture"
        )
    nccl = f" {toolkit.nccl} (350 MB) is installed with it." if machine.nccl is None else ""
    return [
        f"{first}.",
        f"It is tried there, and then takes the place of the LightGBM in {machine.site}, which is put back if the"
        f" new one does not train. Let nothing train with it meanwhile.{nccl}",
        "The new one trains by CUDA, and on the CPU with the same models as before; it has no OpenCL (--device gpu).",
    ]


def _done(machine: Machine, *, gpus: bool) -> list[str]:
    tried = (
        "It trains by CUDA and on the CPU."
        if gpus
        else "It trains on the CPU; by CUDA it could not be tried: no GPU here."
    )
    return [
        f"LightGBM {machine.version} with CUDA is installed. {tried}",
        "Restart a daemon that uses it (it tried its GPUs with the old one). PyPI's comes back with"
        f" `{sys.executable} -m pip install --force-reinstall --no-deps lightgbm=={machine.version}`.",
    ]


def _agreed() -> bool:
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


class _Screen:
    """Shows sentences, and a bar while files are compiled; without a terminal, a line for every tenth of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("  "), BarColumn(), MofNCompleteColumn(), TextColumn("files,"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None
        self._tenths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_bar()

    def say(self, text: str) -> None:
        self._end_bar()
        self._console.print(text)

    def step(self, done: int, total: int) -> None:
        if not self._console.is_terminal:
            tenths = 10 * done // total
            if tenths > self._tenths:
                self._console.print(f"  {done} of {total} files")
            self._tenths = tenths
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def _end_bar(self) -> None:
        if self._task is not None:
            self._progress.stop()
            self._task = None
