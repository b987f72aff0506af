"""The requirements of a build of LightGBM with CUDA, checked on this machine.

`look` gathers the tools and raises an error with a remedy for the first one that is missing: every fault that can be
known in advance is reported before a build of many minutes.
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

from gpusched.core.model import Device
from gpusched.devices.nvidia.cards import CudaAbilities
from gpusched.errors import InputError, UsageError
from gpusched.programs import answer

#: seconds for the answer to a question such as --version
ANSWER_S = 60.0
#: the oldest CUDA that LightGBM builds with
OLDEST_CUDA = (11, 8)
#: the oldest pip that passes settings on to the build
OLDEST_PIP = (23, 1)
#: peak disk space of a build, its result and NCCL included
NEEDED_BYTES = 3 << 30
#: memory that nvcc needs for LightGBM's largest files: limits how many files are compiled at once
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
    remedy = "run the command as the user who owns that directory"


class NoLightGBM(InputError):
    problem = "LightGBM is not installed for {python}"
    remedy = "`{python} -m pip install lightgbm`, then run the command again"


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
    #: compute capabilities that it compiles for, such as 86 and 90a; empty if it does not list them
    known: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        return "{}.{}".format(*self.release)

    @property
    def nccl(self) -> str:
        """The distribution of NCCL for this CUDA."""
        return f"nvidia-nccl-cu{self.release[0]}"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of a build."""

    toolkit: Toolkit
    #: compute capabilities to build for, in order
    architectures: tuple[str, ...]
    #: names of the GPUs to build for; empty if --arch gave the capabilities
    gpus: tuple[str, ...]
    #: the installed LightGBM
    installed: Distribution
    #: the environment's own NCCL: the directory with `lib` and `include`; None: not installed
    nccl: Path | None
    #: files to compile at once
    jobs: int

    @property
    def version(self) -> str:
        return self.installed.version

    @property
    def site(self) -> Path:
        return site_of(self.installed)


def look(architectures: str | None, devices: Iterable[Device], abilities: CudaAbilities) -> Machine:
    """Gather the inputs of a build. `architectures` is the value of --arch, `devices` are the GPUs that are used.

    Raises InputError, UsageError.
    """
    installed = installed_lightgbm()
    _require_own_python(site_of(installed))
    _require_pip()
    if shutil.which("c++") is None and not os.environ.get("CXX"):
        raise NoCompiler()
    toolkit = find_toolkit(os.environ, abilities)
    gpus = tuple(devices)
    if architectures is not None:
        wanted = parse_architectures(architectures)
    else:
        capabilities = filter(None, (abilities.capabilities.get(gpu.pci_bus_id) for gpu in gpus))
        wanted = tuple(sorted({f"{major}{minor}" for major, minor in capabilities}, key=int))
    if not wanted:
        raise NoArchitecture()
    for architecture in wanted:
        if toolkit.known and architecture not in toolkit.known:
            names = ", ".join(sorted(toolkit.known, key=lambda text: int(text.rstrip("af"))))
            raise UnknownArchitecture(nvcc=toolkit.nvcc, found=toolkit.version, text=architecture, known=names)
    return Machine(
        toolkit=toolkit,
        architectures=wanted,
        gpus=tuple(dict.fromkeys(gpu.name for gpu in gpus)) if architectures is None else (),
        installed=installed,
        nccl=_own_nccl(site_of(installed)),
        jobs=_jobs(),
    )


def installed_lightgbm() -> Distribution:
    """The installed LightGBM. Raises NoLightGBM."""
    try:
        return importlib.metadata.distribution("lightgbm")
    except importlib.metadata.PackageNotFoundError:
        raise NoLightGBM(python=sys.executable) from None


def site_of(distribution: Distribution) -> Path:
    """The directory that contains a distribution's packages."""
    return Path(str(distribution.locate_file("")))


def parse_architectures(text: str) -> tuple[str, ...]:
    """Parse compute capabilities (`86`, `8.6`, `sm_86`) separated by commas. Raises BadArchitecture."""
    architectures: dict[str, None] = {}
    for word in text.split(","):
        match = _ARCHITECTURE.fullmatch(word.strip())
        if match is None:
            raise BadArchitecture(text=text, word=word.strip())
        architectures["".join(match.groups())] = None
    return tuple(architectures)


def find_toolkit(environment: Mapping[str, str], abilities: CudaAbilities) -> Toolkit:
    """The toolkit of the first compiler that answers. Raises NoToolkit, ToolkitTooOld, ToolkitTooNew."""
    newest = abilities.newest
    for nvcc in _compilers(environment):
        match = re.search(r"release (\d+)\.(\d+)", answer(nvcc, "--version", within_s=ANSWER_S) or "")
        if match is None:
            continue
        release = (int(match[1]), int(match[2]))
        version = f"{match[1]}.{match[2]}"
        if release < OLDEST_CUDA:
            raise ToolkitTooOld(nvcc=nvcc, found=version, oldest="{}.{}".format(*OLDEST_CUDA))
        if newest is not None and release[0] > newest[0]:
            raise ToolkitTooNew(nvcc=nvcc, found=version, newest="{}.{}".format(*newest), major=newest[0])
        codes = re.findall(r"sm_(\d+[af]?)", answer(nvcc, "--list-gpu-code", within_s=ANSWER_S) or "")
        return Toolkit(nvcc=nvcc, release=release, known=frozenset(codes))
    raise NoToolkit(which=f" of CUDA {newest[0]}" if newest else "")


def _compilers(environment: Mapping[str, str]) -> Iterator[Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := environment.get(variable):
            yield Path(home) / "bin" / "nvcc"
    if in_path := shutil.which("nvcc", path=environment.get("PATH")):
        yield Path(in_path)
    yield Path("/usr/local/cuda/bin/nvcc")
    yield from sorted(Path("/usr/local").glob("cuda-*/bin/nvcc"), reverse=True)


def _require_own_python(site: Path) -> None:
    managed = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and managed.exists():
        raise SystemPython(python=sys.executable)
    if not os.access(site, os.W_OK | os.X_OK):
        raise SiteReadOnly(site=site)


def _require_pip() -> None:
    version = re.match(
        r"pip (\d+)\.(\d+)", answer(sys.executable, "-P", "-m", "pip", "--version", within_s=ANSWER_S) or ""
    )
    oldest = "{}.{}".format(*OLDEST_PIP)
    if version is None:
        raise NoPip(python=sys.executable, what="no pip", oldest=oldest)
    if (int(version[1]), int(version[2])) < OLDEST_PIP:
        raise NoPip(python=sys.executable, what=version[0], oldest=oldest)


def _own_nccl(site: Path) -> Path | None:
    """The installed NCCL, if any: another package may need it, so it is kept, and LightGBM uses it too."""
    home = site / "nvidia" / "nccl"
    return home if (home / "lib" / "libnccl.so.2").exists() and (home / "include" / "nccl.h").exists() else None


def _jobs() -> int:
    """How many files to compile at once: one for each core, or fewer where memory is short."""
    jobs = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):
        if available := re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
            jobs = min(jobs, int(available[1]) * 1024 // BYTES_A_JOB)
    return max(1, jobs)
