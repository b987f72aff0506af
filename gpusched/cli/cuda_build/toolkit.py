"""What it takes to build LightGBM with CUDA, and whether this machine has it.

`look` gathers it and raises with the cause and the remedy for the first thing that is missing: all that can be known
before a build of many minutes is said before it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path

import msgspec

from gpusched.cli.cuda_build import programs
from gpusched.core.model import Device
from gpusched.devices.discovery import CudaAbilities
from gpusched.errors import InputError, UsageError

#: the oldest CUDA that LightGBM builds with
OLDEST_CUDA = (11, 8)
#: the oldest pip that passes settings on to the build
OLDEST_PIP = (23, 1)
#: what a build leaves and needs at its height, with NCCL
NEEDED_BYTES = 3 << 30
#: memory that nvcc takes for LightGBM's largest files; so many are compiled at once as have that
BYTES_A_JOB = 2 << 30

_ARCHITECTURE = re.compile(r"(?:sm_|compute_)?(\d{1,2})\.?(\d[af]?)")


class NoToolkit(InputError):
    problem = "CUDA's compiler nvcc is not to be found (in PATH, CUDA_HOME/bin, /usr/local/cuda*/bin)"
    remedy = "install NVIDIA's CUDA toolkit{which}, or set CUDA_HOME to where it is"


class ToolkitTooOld(InputError):
    problem = "{nvcc} is of CUDA {found}, and LightGBM needs {oldest} or later"
    remedy = "install a newer CUDA toolkit, or set CUDA_HOME to one"


class ToolkitTooNew(InputError):
    problem = "{nvcc} makes programs for CUDA {found}, and this machine's driver runs those up to CUDA {newest}"
    remedy = "update the NVIDIA driver, or set CUDA_HOME to a toolkit of CUDA {major}"


class NoCompiler(InputError):
    problem = "no C++ compiler is to be found (c++ in PATH)"
    remedy = "install one: `apt install g++`, `dnf install gcc-c++`"


class NoPip(InputError):
    problem = "the Python of gpusched ({python}) has {what}, and needs pip {oldest} or later"
    remedy = "`{python} -m ensurepip --upgrade`, `{python} -m pip install --upgrade pip`"


class SystemPython(InputError):
    problem = "{python} belongs to the operating system, whose packages are not gpusched's to replace"
    remedy = "install gpusched into an environment of its own: `python3 -m venv DIR`"


class SiteReadOnly(InputError):
    problem = "this user may not write to {site}, where LightGBM is"
    remedy = "ask as the user to whom it belongs"


class NoLightGBM(InputError):
    problem = "LightGBM is not installed for {python}"
    remedy = "`{python} -m pip install lightgbm`, then ask again"


class NoArchitecture(UsageError):
    problem = "there is no GPU here to build for"
    remedy = "name the GPUs' compute capability, such as --arch 86 (A40, A6000), 89 (L40S, RTX 4090), 90 (H100, H200)"


class BadArchitecture(UsageError):
    problem = "--arch {text}: {word!r} is no compute capability"
    remedy = "write it as 86 or 8.6, several with commas"


class UnknownArchitecture(InputError):
    problem = "{nvcc} (CUDA {found}) does not compile for compute capability {text}, but for {known}"
    remedy = "set CUDA_HOME to a toolkit that does, or keep that GPU out with devices.exclude"


class Toolkit(msgspec.Struct, frozen=True, kw_only=True):
    """CUDA's compiler."""

    nvcc: Path
    release: tuple[int, int]
    #: compute capabilities that it compiles for, such as 86 and 90a; empty if it does not say
    known: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        return "{}.{}".format(*self.release)

    @property
    def nccl(self) -> str:
        """The distribution of NCCL that goes with it."""
        return f"nvidia-nccl-cu{self.release[0]}"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """All that a build starts from."""

    toolkit: Toolkit
    #: compute capabilities to build for, in order
    architectures: tuple[str, ...]
    #: GPUs to build for, by name; empty where they were only named by --arch
    gpus: tuple[str, ...]
    #: LightGBM as it is installed
    installed: Distribution
    #: the environment's own NCCL, the directory that has `lib` and `include`; None: it has none
    nccl: Path | None
    jobs: int

    @property
    def version(self) -> str:
        return self.installed.version

    @property
    def site(self) -> Path:
        return site_of(self.installed)


def look(asked: str | None, devices: Iterable[Device], abilities: CudaAbilities) -> Machine:
    """What there is here. `asked` is --arch, `devices` are the GPUs that are used. Raises InputError, UsageError."""
    installed = installed_lightgbm()
    _require_own_python(site_of(installed))
    _require_pip()
    if shutil.which("c++") is None and not os.environ.get("CXX"):
        raise NoCompiler()
    toolkit = find_toolkit(os.environ, abilities)
    gpus = tuple(devices)
    if asked is not None:
        wanted = parse_architectures(asked)
    else:
        told = filter(None, (abilities.capabilities.get(gpu.pci_bus_id) for gpu in gpus))
        wanted = tuple(sorted({f"{major}{minor}" for major, minor in told}, key=int))
    if not wanted:
        raise NoArchitecture()
    for architecture in wanted:
        if toolkit.known and architecture not in toolkit.known:
            known = ", ".join(sorted(toolkit.known, key=lambda text: int(text.rstrip("af"))))
            raise UnknownArchitecture(nvcc=toolkit.nvcc, found=toolkit.version, text=architecture, known=known)
    return Machine(
        toolkit=toolkit,
        architectures=wanted,
        gpus=tuple(dict.fromkeys(gpu.name for gpu in gpus)) if asked is None else (),
        installed=installed,
        nccl=_own_nccl(site_of(installed)),
        jobs=_jobs(),
    )


def installed_lightgbm() -> Distribution:
    """Raises NoLightGBM."""
    try:
        return importlib.metadata.distribution("lightgbm")
    except importlib.metadata.PackageNotFoundError:
        raise NoLightGBM(python=sys.executable) from None


def site_of(distribution: Distribution) -> Path:
    """The directory that its packages are in."""
    return Path(str(distribution.locate_file("")))


def parse_architectures(text: str) -> tuple[str, ...]:
    """`86`, `8.6`, `sm_86`, with commas. Raises BadArchitecture."""
    found: dict[str, None] = {}
    for word in text.split(","):
        match = _ARCHITECTURE.fullmatch(word.strip())
        if match is None:
            raise BadArchitecture(text=text, word=word.strip())
        found["".join(match.groups())] = None
    return tuple(found)


def find_toolkit(environment: Mapping[str, str], abilities: CudaAbilities) -> Toolkit:
    """The first compiler that answers. Raises NoToolkit, ToolkitTooOld, ToolkitTooNew."""
    newest = abilities.newest
    for nvcc in _compilers(environment):
        found = re.search(r"release (\d+)\.(\d+)", programs.answer(nvcc, "--version") or "")
        if found is None:
            continue
        release = (int(found[1]), int(found[2]))
        version = f"{found[1]}.{found[2]}"
        if release < OLDEST_CUDA:
            raise ToolkitTooOld(nvcc=nvcc, found=version, oldest="{}.{}".format(*OLDEST_CUDA))
        if newest is not None and release[0] > newest[0]:
            raise ToolkitTooNew(nvcc=nvcc, found=version, newest="{}.{}".format(*newest), major=newest[0])
        codes = re.findall(r"sm_(\d+[af]?)", programs.answer(nvcc, "--list-gpu-code") or "")
        return Toolkit(nvcc=nvcc, release=release, known=frozenset(codes))
    raise NoToolkit(which=f" of CUDA {newest[0]}" if newest else "")


def _compilers(environment: Mapping[str, str]) -> Iterator[Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := environment.get(variable):
            yield Path(home) / "bin" / "nvcc"
    if found := shutil.which("nvcc", path=environment.get("PATH")):
        yield Path(found)
    yield Path("/usr/local/cuda/bin/nvcc")
    yield from sorted(Path("/usr/local").glob("cuda-*/bin/nvcc"), reverse=True)


def _require_own_python(site: Path) -> None:
    managed = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and managed.exists():
        raise SystemPython(python=sys.executable)
    if not os.access(site, os.W_OK | os.X_OK):
        raise SiteReadOnly(site=site)


def _require_pip() -> None:
    found = re.match(r"pip (\d+)\.(\d+)", programs.answer(sys.executable, "-P", "-m", "pip", "--version") or "")
    oldest = "{}.{}".format(*OLDEST_PIP)
    if found is None:
        raise NoPip(python=sys.executable, what="no pip", oldest=oldest)
    if (int(found[1]), int(found[2])) < OLDEST_PIP:
        raise NoPip(python=sys.executable, what=found[0], oldest=oldest)


def _own_nccl(site: Path) -> Path | None:
    """What another package needs is left as it is, and will do for LightGBM."""
    home = site / "nvidia" / "nccl"
    return home if (home / "lib" / "libnccl.so.2").exists() and (home / "include" / "nccl.h").exists() else None


def _jobs() -> int:
    """Files to compile at once."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
            cores = min(cores, int(found[1]) * 1024 // BYTES_A_JOB)
    return max(1, cores)
