"""The workshop of `doctor --build-cuda`: LightGBM with CUDA in the place of the one that is installed.

It is built in a directory of its own, and tried there. Only then the installed one is kept as a wheel, replaced, and
put back if the new one does not train in its place. Whoever kills this at any point has either LightGBM, or a wheel to
put back and a doctor who says so: what is kept is there before anything is replaced, and goes when all is well.

Below `<cache.dir>/lightgbm-cuda`: `log`, `lock`, `building` (gone when it is built), a directory for each build, which
serves all environments with that LightGBM, and one for each environment with what is kept of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from gpusched.cli.commands.findings import NO_CUDA_BUILD, first_line
from gpusched.cli.commands.trials import try_all
from gpusched.cli.cuda_build import programs, wheels
from gpusched.cli.cuda_build.programs import ProgramFailed
from gpusched.cli.cuda_build.toolkit import NEEDED_BYTES, Machine
from gpusched.core.model import DeviceType
from gpusched.errors import InputError
from gpusched.files import Locked, lock
from gpusched.workload import Trial

#: seconds that the new LightGBM may take to train: CUDA may have to start its driver first
TRIAL_S = 120.0

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
#: how pip, CMake, compilers and the kernel begin what they have to say of an error; file names may have the word, too
_ERROR = re.compile(r"^ERROR|\berror( [A-Z]?\d+)?: |\bCMake Error\b|No space left|\bKilled\b")
_CAUSE_CHARS = 400
_PIP: tuple[str | Path, ...] = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input")


class Building(InputError):
    problem = "{holder} is building LightGBM already"
    remedy = "wait until it has ended"


class LittleRoom(InputError):
    problem = "{path} has {free} MiB free, and a build needs {needed}"
    remedy = "make room, or set cache.dir to another file system"


class BuildFailed(InputError):
    problem = "LightGBM could not be built: {why}"
    remedy = "nothing was changed; all that was said is in {log}"


class DoesNotTrain(InputError):
    problem = "the new LightGBM does not train here: {why}"
    remedy = "nothing was changed; the build is kept, and asking again tries it again: {path}"


class NotReplaced(InputError):
    problem = "the new LightGBM could not take the place of the old one: {why}"
    remedy = "the old one is back; all that was said is in {log}"


class NotPutBack(InputError):
    problem = "LightGBM could not be put back: {why}"
    remedy = "`{command}` does it"


class Told(Protocol):
    """Hears how far it is."""

    def say(self, text: str) -> None:
        """A sentence that stays."""

    def step(self, done: int, total: int) -> None:
        """So many of the files are compiled."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A finished build."""

    directory: Path

    @property
    def wheel(self) -> Path | None:
        """LightGBM's; None where somebody has removed it."""
        return next(self.directory.glob("lightgbm-*.whl"), None)

    @property
    def nccl(self) -> Path | None:
        """NCCL's wheel; None where the environment had its own."""
        return next(self.directory.glob("nvidia_nccl_*.whl"), None)


class Workshop:
    """Where builds are made and kept."""

    def __init__(self, cache: Path, told: Told) -> None:
        self.home = cache / "lightgbm-cuda"
        self.log = self.home / "log"
        self._told = told
        self._held: tuple[int, ...] = ()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others out, and throw away what one that was killed has left. Raises Building, OSError."""
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(self.home / "lock")
        except Locked as locked:
            raise Building(holder=locked.holder) from None
        self._held = (held,)
        try:
            self.log.write_text("")
            shutil.rmtree(self.home / "building", ignore_errors=True)
            yield
        finally:
            shutil.rmtree(self.home / "building", ignore_errors=True)
            self._held = ()
            os.close(held)

    # -- the build -----------------------------------------------------------------------------------------------------

    def built(self, machine: Machine) -> Built | None:
        """The build for this machine that was made before, if it has all that is needed now."""
        built = Built(directory=self._path(machine))
        return built if built.wheel and (built.nccl or machine.nccl) else None

    def build(self, machine: Machine) -> Built:
        """Make the wheels. Raises BuildFailed, LittleRoom, OSError."""
        free = shutil.disk_usage(self.home).free
        if free < NEEDED_BYTES:
            raise LittleRoom(path=self.home, free=free >> 20, needed=NEEDED_BYTES >> 20)
        building = self.home / "building"
        out, temporary = building / "out", building / "tmp"
        for directory in (out, temporary):
            directory.mkdir(parents=True)
        environment = {**os.environ, "TMPDIR": str(temporary)}
        try:
            nccl = machine.nccl
            if nccl is None:
                self._told.say(f"Getting {machine.toolkit.nccl} …")
                self._pip("download", "--no-deps", "--only-binary=:all:", "-d", out, machine.toolkit.nccl)
                unpacked = building / "nccl"
                self._pip("install", "--no-deps", "--no-index", "--no-compile", "--target", unpacked, *out.iterdir())
                nccl = unpacked / "nvidia" / "nccl"
            self._told.say(f"Building LightGBM {machine.version} …")
            self._make(machine, _linkable(nccl, building / "link"), out, environment)
        except ProgramFailed as failed:
            raise BuildFailed(why=_cause(failed), log=self.log) from None
        for file in out.iterdir():
            _fsync(file)
        _fsync(out)
        path = self._path(machine)
        shutil.rmtree(path, ignore_errors=True)
        out.replace(path)
        _fsync(self.home)
        return Built(directory=path)

    def _make(self, machine: Machine, nccl: Path, out: Path, environment: Mapping[str, str]) -> None:
        """Compile, with NCCL's headers and library below `nccl`."""
        toolkit = machine.toolkit
        environment = {
            **environment,
            "CUDACXX": str(toolkit.nvcc),
            "PATH": os.pathsep.join([str(toolkit.nvcc.parent), environment.get("PATH", os.defpath)]),
            # LightGBM's C API includes nccl.h, and its CMake target does not get the directory
            "CPATH": os.pathsep.join(filter(None, [str(nccl / "include"), environment.get("CPATH")])),
            "CMAKE_BUILD_PARALLEL_LEVEL": environment.get("CMAKE_BUILD_PARALLEL_LEVEL", str(machine.jobs)),
        }
        defined = {
            "USE_CUDA": "ON",
            "CMAKE_CUDA_ARCHITECTURES": ";".join(f"{name}-real" for name in machine.architectures),
            "BUILD_WITH_SHARED_NCCL": "ON",
            "NCCL_ROOT": str(nccl),
            # where pip puts NCCL, seen from lightgbm/lib
            "CMAKE_INSTALL_RPATH": "$ORIGIN/../../nvidia/nccl/lib",
        }
        settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defined.items()]
        # without pip's cache, in which a build with other settings may lie
        asked: tuple[str | Path, ...] = ("--no-deps", "--no-cache-dir", "--no-binary=lightgbm", "-w", out, *settings)
        self._pip("wheel", "-v", *asked, f"lightgbm=={machine.version}", environment=environment)

    def _path(self, machine: Machine) -> Path:
        toolkit, names = machine.toolkit, "-".join(machine.architectures)
        return self.home / f"lightgbm-{machine.version}-cuda{toolkit.version}-sm{names}"

    def trains_by_cuda(self) -> bool:
        """Whether there is nothing to do: the installed LightGBM does it on a GPU that is here."""
        trials, _ = try_all(("cuda",), {}, TRIAL_S)
        return trials["cuda"].trained

    # -- the trial -----------------------------------------------------------------------------------------------------

    def require_training(self, built: Built, machine: Machine, *, gpus: bool) -> None:
        """Try it before anything is replaced. Raises DoesNotTrain, BuildFailed."""
        self._told.say("Trying it …")
        site = self.home / "building" / "site"
        try:
            self._pip("install", "--no-deps", "--no-index", "--no-compile", "--target", site, *_files(built, machine))
        except ProgramFailed as failed:
            raise BuildFailed(why=_cause(failed), log=self.log) from None
        if machine.nccl is not None:
            (site / "nvidia").symlink_to(machine.nccl.parent)
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        why = _why_not({**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, gpus=gpus)
        if why is not None:
            raise DoesNotTrain(why=why, path=built.directory)

    # -- the exchange --------------------------------------------------------------------------------------------------

    def replace(self, built: Built, machine: Machine, *, gpus: bool) -> None:
        """Install it. Whatever goes wrong, the old one is put back. Raises NotReplaced, NotPutBack, wheels.NotKept."""
        self._told.say(f"Installing it in {machine.site} …")
        kept = wheels.keep(machine.installed, _kept(self.home))
        with _uninterrupted():
            try:
                self._install(*_files(built, machine))
                why = _why_not(os.environ, gpus=gpus)
            except ProgramFailed as failed:
                why = _cause(failed)
            if why is None:
                shutil.rmtree(kept.parent)
                return
            self._put_back(kept)
            if machine.nccl is None:
                with contextlib.suppress(ProgramFailed):
                    self._pip("uninstall", "--yes", machine.toolkit.nccl)
        raise NotReplaced(why=why, log=self.log)

    def put_back(self) -> None:
        """Mend what was interrupted while LightGBM was replaced, if anything was. Raises NotPutBack."""
        kept = interrupted(self.home)
        if kept is None:
            return
        self._told.say("An exchange of LightGBM was interrupted: putting the old one back …")
        with _uninterrupted():
            self._put_back(kept)
        importlib.invalidate_caches()

    def _put_back(self, kept: Path) -> None:
        try:
            self._install(kept)
        except ProgramFailed as failed:
            raise NotPutBack(why=_cause(failed), command=put_back_command(kept)) from None
        shutil.rmtree(kept.parent)

    def _install(self, *files: Path) -> None:
        """By a pip that goes on if this process is killed, and keeps the lock."""
        command: tuple[str | Path, ...] = (*_PIP, "install", "--no-deps", "--no-index", "--force-reinstall", *files)
        programs.run(command, log=self.log, kept_open=self._held)

    def _pip(self, *arguments: str | Path, environment: Mapping[str, str] = os.environ) -> None:
        programs.run((*_PIP, *arguments), log=self.log, environment=environment, on_line=self._on_line)

    def _on_line(self, line: str) -> None:
        if found := _STEP.match(line.strip()):
            self._told.step(int(found[1]), int(found[2]))


def interrupted(home: Path) -> Path | None:
    """The wheel of the LightGBM that was in this environment, if its exchange was interrupted."""
    return next(_kept(home).glob("lightgbm-*.whl"), None)


def put_back_command(kept: Path) -> str:
    return shlex.join(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", str(kept)]
    )


def _kept(home: Path) -> Path:
    return home / f"kept-{hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:12]}"


def _files(built: Built, machine: Machine) -> tuple[Path, ...]:
    """What is to be installed: NCCL only where the environment has none."""
    return tuple(filter(None, (None if machine.nccl else built.nccl, built.wheel)))


def _why_not(environment: Mapping[str, str], *, gpus: bool) -> str | None:
    """Why a LightGBM will not do. Where there is no GPU it has to know CUDA, and need not train by it."""
    kinds: tuple[DeviceType, ...] = ("cpu", "cuda")
    trials, _ = try_all(kinds, {}, TRIAL_S, environment)
    cpu, cuda = trials["cpu"], trials["cuda"]
    if not cpu.trained:
        return first_line(cpu.why)
    if cuda.trained or (not gpus and not _lacks_cuda(cuda)):
        return None
    return first_line(cuda.why)


def _lacks_cuda(trial: Trial) -> bool:
    return NO_CUDA_BUILD in (trial.why or "")


def _linkable(nccl: Path, directory: Path) -> Path:
    """NCCL as CMake looks for it: its wheel has only the library's versioned name."""
    (directory / "lib").mkdir(parents=True)
    (directory / "lib" / "libnccl.so").symlink_to(nccl / "lib" / "libnccl.so.2")
    (directory / "include").symlink_to(nccl / "include")
    return directory


def _cause(failed: ProgramFailed) -> str:
    """The first line that speaks of an error and the one that follows, where CMake has its reason; else the last."""
    lines = [line.strip() for line in failed.output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if _ERROR.search(line):
            return " ".join(lines[number : number + 2])[:_CAUSE_CHARS]
    return lines[-1] if lines else str(failed)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Nobody who presses Ctrl-C, closes the terminal or sends SIGTERM stops what goes on inside half-way."""
    stoppers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stoppers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
