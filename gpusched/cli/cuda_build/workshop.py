"""The workshop of `doctor --build-cuda`: replace the installed LightGBM by one with CUDA.

The new LightGBM is built and tried in a separate directory. Only then is the installed one saved as a wheel and
replaced, and put back if the new one does not train in its place. A kill at any point leaves either a working LightGBM,
or a wheel of the old one and a doctor that reports it: the wheel is written before anything is replaced, and removed
only after the new LightGBM has trained.

`<cache.dir>/lightgbm-cuda` contains `log`, `lock`, `building` (removed after a build), a directory for each build,
which serves all environments with that LightGBM, and one for each environment with the wheel of its old LightGBM.
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
from gpusched.files import Locked, flush, lock
from gpusched.workload import Trial

#: seconds for the new LightGBM to train: CUDA may have to start its driver first
TRIAL_S = 120.0

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
#: starts of error messages of pip, CMake, compilers and the kernel; the word alone would also match file names
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
    remedy = "nothing was changed; the whole output is in {log}"


class DoesNotTrain(InputError):
    problem = "the new LightGBM does not train here: {why}"
    remedy = "nothing was changed; the build is kept in {path}, and running the command again tries it again"


class NotReplaced(InputError):
    problem = "the new LightGBM could not take the place of the old one: {why}"
    remedy = "the old one is back; the whole output is in {log}"


class NotPutBack(InputError):
    problem = "LightGBM could not be put back: {why}"
    remedy = "`{command}` does it"


class Display(Protocol):
    """The display of the build's progress."""

    def say(self, text: str) -> None:
        """Show a sentence that stays visible."""

    def step(self, done: int, total: int) -> None:
        """Show that `done` of `total` files are compiled."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A finished build."""

    directory: Path

    @property
    def wheel(self) -> Path | None:
        """LightGBM's wheel; None if somebody has removed it."""
        return next(self.directory.glob("lightgbm-*.whl"), None)

    @property
    def nccl(self) -> Path | None:
        """NCCL's wheel; None if the environment had its own NCCL."""
        return next(self.directory.glob("nvidia_nccl_*.whl"), None)


class Workshop:
    """The directory in which builds are made and kept."""

    def __init__(self, cache: Path, display: Display) -> None:
        self.home = cache / "lightgbm-cuda"
        self.log = self.home / "log"
        self._display = display
        self._held: tuple[int, ...] = ()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds out, and remove the left-overs of a killed one. Raises Building, OSError."""
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = lock(self.home / "lock")
        except Locked as locked:
            raise Building(holder=locked.holder) from None
        self._held = (descriptor,)
        try:
            self.log.write_text("")
            shutil.rmtree(self.home / "building", ignore_errors=True)
            yield
        finally:
            shutil.rmtree(self.home / "building", ignore_errors=True)
            self._held = ()
            os.close(descriptor)

    # -- the build -----------------------------------------------------------------------------------------------------

    def built(self, machine: Machine) -> Built | None:
        """An earlier build for this machine, if it has every wheel that is needed now."""
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
                self._display.say(f"Getting {machine.toolkit.nccl} …")
                self._pip("download", "--no-deps", "--only-binary=:all:", "-d", out, machine.toolkit.nccl)
                unpacked = building / "nccl"
                self._pip("install", "--no-deps", "--no-index", "--no-compile", "--target", unpacked, *out.iterdir())
                nccl = unpacked / "nvidia" / "nccl"
            self._display.say(f"Building LightGBM {machine.version} …")
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
        """Build LightGBM's wheel, with NCCL's headers and library below `nccl`."""
        toolkit = machine.toolkit
        environment = {
            **environment,
            "CUDACXX": str(toolkit.nvcc),
            "PATH": os.pathsep.join([str(toolkit.nvcc.parent), environment.get("PATH", os.defpath)]),
            # LightGBM's C API includes nccl.h, but its CMake target lacks the include directory
            "CPATH": os.pathsep.join(filter(None, [str(nccl / "include"), environment.get("CPATH")])),
            "CMAKE_BUILD_PARALLEL_LEVEL": environment.get("CMAKE_BUILD_PARALLEL_LEVEL", str(machine.jobs)),
        }
        defined = {
            "USE_CUDA": "ON",
            "CMAKE_CUDA_ARCHITECTURES": ";".join(f"{name}-real" for name in machine.architectures),
            "BUILD_WITH_SHARED_NCCL": "ON",
            "NCCL_ROOT": str(nccl),
            # the directory where pip installs NCCL, relative to lightgbm/lib
            "CMAKE_INSTALL_RPATH": "$ORIGIN/../../nvidia/nccl/lib",
        }
        settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defined.items()]
        # without pip's cache, which may contain a build with other settings
        options: tuple[str | Path, ...] = ("--no-deps", "--no-cache-dir", "--no-binary=lightgbm", "-w", out, *settings)
        self._pip("wheel", "-v", *options, f"lightgbm=={machine.version}", environment=environment)

    def _path(self, machine: Machine) -> Path:
        toolkit, names = machine.toolkit, "-".join(machine.architectures)
        return self.home / f"lightgbm-{machine.version}-cuda{toolkit.version}-sm{names}"

    def trains_by_cuda(self) -> bool:
        """Whether the installed LightGBM already trains by CUDA on a GPU of this machine."""
        trials, _ = try_all(("cuda",), {}, TRIAL_S)
        return trials["cuda"].trained

    # -- the trial -----------------------------------------------------------------------------------------------------

    def require_training(self, built: Built, machine: Machine, *, gpus: bool) -> None:
        """Try a build before anything is replaced. Raises DoesNotTrain, BuildFailed."""
        self._display.say("Trying it …")
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
        """Install a build, or put the old LightGBM back if that fails. Raises NotReplaced, NotPutBack, NotKept."""
        self._display.say(f"Installing it in {machine.site} …")
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
        """Put the old LightGBM back if its replacement was interrupted. Raises NotPutBack."""
        kept = interrupted(self.home)
        if kept is None:
            return
        self._display.say("An exchange of LightGBM was interrupted: putting the old one back …")
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
        """Install by a pip that continues if this process is killed, and then keeps the lock."""
        command: tuple[str | Path, ...] = (*_PIP, "install", "--no-deps", "--no-index", "--force-reinstall", *files)
        programs.run(command, log=self.log, kept_open=self._held)

    def _pip(self, *arguments: str | Path, environment: Mapping[str, str] = os.environ) -> None:
        programs.run((*_PIP, *arguments), log=self.log, environment=environment, on_line=self._on_line)

    def _on_line(self, line: str) -> None:
        if step := _STEP.match(line.strip()):
            self._display.step(int(step[1]), int(step[2]))


def interrupted(home: Path) -> Path | None:
    """The wheel of this environment's old LightGBM, if its replacement was interrupted."""
    with contextlib.suppress(PermissionError):  # a cache of somebody else's
        return next(_kept(home).glob("lightgbm-*.whl"), None)
    return None


def put_back_command(kept: Path) -> str:
    return shlex.join(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", str(kept)]
    )


def _kept(home: Path) -> Path:
    return home / f"kept-{hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:12]}"


def _files(built: Built, machine: Machine) -> tuple[Path, ...]:
    """The wheels to install: NCCL's only if the environment has no NCCL."""
    return tuple(filter(None, (None if machine.nccl else built.nccl, built.wheel)))


def _why_not(environment: Mapping[str, str], *, gpus: bool) -> str | None:
    """Why a LightGBM is not usable, or None. Without a GPU it must be built with CUDA, but need not train by it."""
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
    """Link NCCL under the name that CMake looks for: its wheel has only the library's versioned name."""
    (directory / "lib").mkdir(parents=True)
    (directory / "lib" / "libnccl.so").symlink_to(nccl / "lib" / "libnccl.so.2")
    (directory / "include").symlink_to(nccl / "include")
    return directory


def _cause(failed: ProgramFailed) -> str:
    """The first line with an error and the one after it, where CMake states the reason; or else the last line."""
    lines = [line.strip() for line in failed.output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if _ERROR.search(line):
            return " ".join(lines[number : number + 2])[:_CAUSE_CHARS]
    return lines[-1] if lines else str(failed)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Within the context, ignore Ctrl-C, SIGTERM and a closed terminal, so that an exchange is not left half-done."""
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
        flush(descriptor)
    finally:
        os.close(descriptor)
