"""`doctor --build-cuda`, with a pip and a compiler that are made up: their arguments, and the files left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from gpusched.cli.commands.findings import lightgbm_checks
from gpusched.cli.cuda_build import command as build_cuda
from gpusched.cli.cuda_build import toolkit, wheels
from gpusched.devices.nvidia.cards import CudaAbilities
from gpusched.errors import GpuschedError
from gpusched.workload import Trial
from tests.devices.fake_nvml import FakeNvml
from tests.end_to_end.support import REPOSITORY, Command
from tests.waiting import PATIENCE_S

#: a LightGBM that trains on the CPU, and by CUDA if `{}` raises nothing
LIGHTGBM = """\
__version__ = "9.8.7"
WHICH = {which!r}
register_logger = Dataset = lambda *more: None
def train(params, *more, **others):
    kind = params["device_type"]
    {train}
"""
OLD = LIGHTGBM.format(
    which="old", train="if kind != 'cpu': raise RuntimeError('CUDA Tree Learner was not enabled in this build')"
)
NEW = LIGHTGBM.format(which="new", train="")
NO_DEVICE = LIGHTGBM.format(which="new", train="if kind != 'cpu': raise RuntimeError('no CUDA-capable device')")
NVCC = """\
#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V{release}.0" ;;
--list-gpu-code) printf 'sm_75\\nsm_86\\nsm_89\\nsm_90\\n' ;;
esac
"""


#: the end of the error of a step before the installation
UNCHANGED = "cannot be done after hint: nothing was changed"


class Place(Command):
    """The command where LightGBM is made up, and so are the tools that build it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.site, self.pip = directory / "site", directory / "pip"
        self.pip.mkdir()
        self.plan: dict[str, Any] = {"site": str(self.site), "lightgbm": NO_DEVICE, "fails": [], "waits": []}
        info = self.site / "lightgbm-9.8.7.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightgbm\nVersion: 9.8.7\n")
        (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-any\n")
        (info / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in ("METADATA", "WHEEL", "RECORD")))
        with (info / "RECORD").open("a") as record:
            record.write("lightgbm/__init__.py,,\n../../bin/elsewhere,,\n")
        (self.site / "lightgbm").mkdir()
        (self.site / "lightgbm" / "__init__.py").write_text(OLD)
        nvcc = directory / "cuda" / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text(NVCC.format(release="13.0"))
        nvcc.chmod(0o755)
        self.environment |= {
            "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).with_name("fake_pip"), self.site, REPOSITORY))),
            "FAKE_PIP": str(self.pip),
            "CUDA_HOME": str(nvcc.parent.parent),
            "CXX": "c++",
            "OCL_ICD_VENDORS": str(directory),
        }
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)

    @property
    def home(self) -> Path:
        return self.directory / "cache" / "gpusched" / "lightgbm-cuda"

    @property
    def which(self) -> str:
        """The LightGBM that is installed now."""
        names = {"'old'": "old", "'new'": "new"}
        text = (self.site / "lightgbm" / "__init__.py").read_text()
        return next(which for word, which in names.items() if word in text)

    def start(self, *arguments: object, reads: bool = False) -> subprocess.Popen[str]:
        (self.pip / "plan.json").write_text(json.dumps(self.plan))
        return super().start(*arguments, reads=reads)

    def build(self, *more: str, code: int = 0) -> str:
        """Everything that it says, with its lines joined."""
        out, err = self.said("doctor", "--build-cuda", "--yes", *more, code=code)
        return " ".join((err + out).split())

    def calls(self, word: str) -> list[list[str]]:
        """The arguments of each call of pip."""
        every = [json.loads(line) for line in (self.pip / "calls").read_text().splitlines()]
        return [call for call in every if call[0] == word]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    if shutil.disk_usage(tmp_path).free < toolkit.NEEDED_BYTES:
        pytest.skip("a build is refused where so little of the disk is free")
    return Place(tmp_path)


@contextlib.contextmanager
def waiting(place: Place, step: str) -> Iterator[subprocess.Popen[str]]:
    """A build that has come to a step of pip, which ends with the context."""
    place.plan["waits"] = [step]
    fifo = place.pip / step
    os.mkfifo(fifo)

    def give_up() -> None:
        """A build that ended before opens the FIFO for nobody."""
        process.wait()
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))

    with place.start("doctor", "--build-cuda", "--yes", "--arch", "90") as process:
        watcher = threading.Thread(target=give_up)
        watcher.start()
        with fifo.open("w"):
            assert process.poll() is None, process.communicate()
            yield process
    watcher.join()


@pytest.mark.thorough
def test_without_a_gpu_it_is_built_for_what_was_named(place: Place) -> None:
    told = place.build("--arch", "8.6,sm_90")
    assert place.which == "new"
    assert "LightGBM 9.8.7 with CUDA 13.0 for sm_86, sm_90" in told
    assert "by CUDA it could not be tried: no GPU here" in told
    assert "2 of 2 files" in told
    # the doctor has the last word
    assert "LightGBM 9.8.7 trains on cpu" in told
    (wheel,) = place.calls("wheel")
    settings = dict(
        word.removeprefix("--config-settings=cmake.define.").split("=", 1) for word in wheel if "cmake.define" in word
    )
    assert settings.pop("NCCL_ROOT").startswith(str(place.home))
    assert settings == {
        "USE_CUDA": "ON",
        "CMAKE_CUDA_ARCHITECTURES": "86-real;90-real",
        "BUILD_WITH_SHARED_NCCL": "ON",
        "CMAKE_INSTALL_RPATH": "$ORIGIN/../../nvidia/nccl/lib",
    }
    assert {"--no-deps", "--no-cache-dir", "--no-binary=lightgbm", "lightgbm==9.8.7"} <= set(wheel)
    assert place.calls("download")[0][-1] == "nvidia-nccl-cu13"
    assert (place.site / "nvidia" / "nccl" / "lib" / "libnccl.so.2").exists()
    assert sorted(path.name for path in place.home.iterdir()) == [
        "lightgbm-9.8.7-cuda13.0-sm86-90",
        "lock",
        "log",
    ]


@pytest.mark.slow
def test_it_is_built_for_the_gpus_that_are_used_and_tried_on_them(place: Place) -> None:
    nvml = FakeNvml(place.directory).gpus(3, capability="8.9").set(1, capability="8.6").set(2, capability="6.1")
    nvml.write(cuda_version=13000)
    place.environment |= nvml.environment
    left_out = ("--set", 'devices.exclude=["03:00.0"]')
    flag = place.directory / "there"
    trains = (
        f"if kind != 'cpu' and not __import__('os').path.exists({str(flag)!r}): raise RuntimeError('out of memory')"
    )
    place.plan["lightgbm"] = LIGHTGBM.format(which="new", train=trains)
    assert "the new LightGBM does not train here: out of memory" in place.build(*left_out, code=4)
    assert place.which == "old"
    # the build is kept, for the reason why it does not train may pass
    flag.touch()
    told = place.build(*left_out)
    assert "for sm_86, sm_89 (NVIDIA RTX 6000 Ada Generation) is built already" in told
    assert "It trains by CUDA and on the CPU" in told
    assert "trains by CUDA already" in place.build(*left_out)
    (wheel,) = place.calls("wheel")
    assert "--config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=86-real;89-real" in wheel
    assert place.which == "new"


@pytest.mark.parametrize(
    ("step", "says"),
    [
        pytest.param("download", f"could not be built: error: download {UNCHANGED}", marks=pytest.mark.slow),
        pytest.param("wheel", f"could not be built: error: wheel {UNCHANGED}", marks=pytest.mark.thorough),
        pytest.param("target", f"could not be built: error: target {UNCHANGED}", marks=pytest.mark.thorough),
        ("install", "could not be put back: error: install cannot be done"),
    ],
)
def test_a_step_that_fails_changes_nothing(place: Place, step: str, says: str) -> None:
    place.plan["fails"] = [step]
    assert says in place.build("--arch", "90", code=4)
    assert place.which == "old"
    assert not (place.home / "building").exists()
    assert "error.cpp\nerror: " in (place.home / "log").read_text()


@pytest.mark.parametrize(
    "breaks", ["import", pytest.param("cpu", marks=pytest.mark.slow), pytest.param("no cuda", marks=pytest.mark.slow)]
)
def test_one_that_does_not_train_is_not_installed(place: Place, breaks: str) -> None:
    lightgbm = {"import": "raise ImportError('libnccl.so.2: no such file')", "no cuda": OLD}
    place.plan["lightgbm"] = lightgbm.get(breaks, LIGHTGBM.format(which="new", train="raise RuntimeError('broken')"))
    why = {"import": "libnccl.so.2: no such file", "cpu": "broken", "no cuda": "CUDA Tree Learner was not enabled"}
    assert f"the new LightGBM does not train here: {why[breaks]}" in place.build("--arch", "90", code=4)
    assert place.which == "old"
    assert not place.calls("install")[-1].count("--force-reinstall")


@pytest.mark.slow
def test_one_that_trains_only_where_it_was_tried_is_taken_back(place: Place) -> None:
    place.plan["lightgbm"] = (
        NO_DEVICE + f"\nif __file__.startswith({str(place.site)!r}): raise ImportError('not here')\n"
    )
    told = place.build("--arch", "90", code=4)
    assert "could not take the place of the old one: not here hint: the old one is back" in told
    assert place.which == "old"
    assert not (place.site / "nvidia").exists()
    assert not list(place.home.glob("kept-*"))


@pytest.fixture
def halted(place: Place) -> Place:
    """A build that was killed while pip had removed the old LightGBM, and pip with it."""
    with waiting(place, "install-half") as process:
        process.kill()
        process.communicate()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if _is_pip(path, place):
                os.kill(int(path.parent.name), signal.SIGKILL)
    place.plan["waits"] = []
    return place


def _is_pip(path: Path, place: Place) -> bool:
    try:
        command = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"--force-reinstall" in command and any(str(place.directory).encode() in word for word in command)


@pytest.mark.thorough
def test_whoever_kills_it_half_way_finds_the_old_one_and_is_told_so(halted: Place) -> None:
    assert not (halted.site / "lightgbm").exists()
    (kept,) = halted.home.glob("kept-*/lightgbm-9.8.7-py3-none-any.whl")
    halted.environment["PYTHONPATH"] += os.pathsep + str(halted.directory)
    checks = halted.json("doctor")["checks"]
    (told,) = (check for check in checks if "interrupted" in check["message"])
    assert told["remedy"].endswith(f"-m pip install --no-deps --no-index --force-reinstall {kept}` undoes it")
    # and asking again puts it back and goes on from there
    assert "putting the old one back" in halted.build("--arch", "90")
    assert (halted.which, len(halted.calls("wheel"))) == ("new", 1)
    assert not list(halted.home.glob("kept-*"))


@pytest.mark.slow
def test_only_one_builds_at_a_time(place: Place) -> None:
    with waiting(place, "wheel") as first:
        assert f"the process {first.pid} is building LightGBM already" in place.build("--arch", "90", code=4)
    assert (first.returncode, place.which) == (0, "new")


@pytest.mark.slow
def test_an_interrupted_build_ends_with_all_that_it_has_started(place: Place) -> None:
    with waiting(place, "wheel") as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, place.which) == (130, "old")
    assert not (place.home / "building").exists()


def test_a_cache_that_cannot_be_written(place: Place) -> None:
    (place.directory / "file").touch()
    said = place.build("--arch", "90", "--set", f"cache.dir={place.directory}/file/below", code=4)
    assert f"LightGBM cannot be built: {place.directory}/file/below" in said


def test_it_asks_and_no_is_no(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no terminal to ask on" in place.said("doctor", "--build-cuda", "--arch", "90", code=2)[1]
    assert not (place.pip / "calls").exists()
    for typed, agreed in (("y", True), ("YES ", True), ("", False), ("n", False)):
        monkeypatch.setattr("builtins.input", lambda prompt, typed=typed: typed)
        assert build_cuda._agreed() is agreed


# -- requirements ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("86", ("86",)), ("8.6, sm_90", ("86", "90")), ("120,12.0", ("120",)), ("compute_90a", ("90a",))],
)
def test_architectures_as_people_write_them(text: str, found: tuple[str, ...]) -> None:
    assert toolkit.parse_architectures(text) == found


@pytest.mark.parametrize("text", ["", "9", "x", "86;90", "86,,90", "1234"])
def test_what_is_no_architecture(text: str) -> None:
    with pytest.raises(toolkit.BadArchitecture):
        toolkit.parse_architectures(text)


@pytest.mark.parametrize(
    ("release", "newest", "refused"),
    [
        ("13.0", None, None),
        ("12.4", (13, 0), None),
        ("13.1", (13, 0), None),  # minor versions are compatible
        ("13.0", (12, 8), toolkit.ToolkitTooNew),
        ("11.7", (12, 8), toolkit.ToolkitTooOld),
    ],
)
def test_a_toolkit_goes_with_a_driver(
    tmp_path: Path, release: str, newest: tuple[int, int] | None, refused: type[GpuschedError] | None
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(NVCC.format(release=release))
    nvcc.chmod(0o755)
    environment = {"CUDA_HOME": str(tmp_path), "PATH": ""}
    abilities = CudaAbilities(newest=newest)
    if refused is not None:
        with pytest.raises(refused):
            toolkit.find_toolkit(environment, abilities)
        return
    found = toolkit.find_toolkit(environment, abilities)
    assert (found.version, found.nccl) == (release, f"nvidia-nccl-cu{release[:2]}")
    assert found.known == {"75", "86", "89", "90"}


def test_what_is_missing_is_said_before_anything_is_built(place: Place) -> None:
    assert "does not compile for compute capability 61, but for 75, 86, 89, 90" in place.build("--arch", "61", code=4)
    assert "there is no GPU here to build for" in place.build(code=2)
    assert place.said("doctor", "--yes", code=2)[1].startswith("error: --yes goes with --build-cuda")
    assert not place.calls("download")


def test_an_installed_package_is_kept_as_a_wheel_that_pip_can_install(tmp_path: Path) -> None:
    installed = distribution("lightgbm")
    wheel = wheels.keep(installed, tmp_path)
    target = tmp_path / "target"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        target,
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    files = [entry for entry in installed.files or () if entry.parts[0] == "lightgbm" and entry.suffix != ".pyc"]
    assert len(files) > 10
    for entry in files:
        assert (target / entry).read_bytes() == Path(str(installed.locate_file(entry))).read_bytes()


def test_a_cuda_build_without_nccl_is_told_so_and_never_to_take_pypis() -> None:
    broken = Trial(trained=False, why="libnccl.so.2: cannot open shared object file: No such file or directory")
    for check in lightgbm_checks({"cpu": broken, "gpu": broken, "cuda": broken}):
        if check.name != "lightgbm gpu":
            assert "nvidia-nccl-cu13" in check.remedy
            assert "reinstall" not in check.remedy


@pytest.mark.parametrize(
    ("why", "remedy"),
    [
        ("[CUDA] no kernel image is available for execution on the device", "is built for other GPUs"),
        ("[CUDA] CUDA driver version is insufficient for CUDA runtime version", "update the NVIDIA driver"),
        (
            "out of memory: cuDevicePrimaryCtxRetain returned CUDA_ERROR_OUT_OF_MEMORY",
            "nothing, if windows are to train",
        ),
    ],
)
def test_a_build_that_does_not_go_with_the_machine(why: str, remedy: str) -> None:
    good, bad = Trial(trained=True), Trial(trained=False, why=why)
    _, _, cuda = lightgbm_checks({"cpu": good, "gpu": bad, "cuda": bad})
    assert cuda.remedy.startswith(remedy) or remedy in cuda.remedy
