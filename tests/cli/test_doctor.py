"""The doctor tells which devices work, and never makes things worse."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest
import talib
from rich.console import Console

from gpusched.cli.commands import doctor
from gpusched.cli.commands.findings import (
    Check,
    Imported,
    device_check,
    files_check,
    gpu_notes,
    library_checks,
    lightgbm_checks,
    space_check,
    state_check,
)
from gpusched.cli.commands.trials import try_all
from gpusched.config import load
from gpusched.core.model import DeviceChoice, DeviceType
from gpusched.devices.kind import Note
from gpusched.workload import Trial
from tests.devices.fake_cuda import OUT_OF_MEMORY, FakeCuda
from tests.devices.fake_nvml import FakeNvml, uuid
from tests.end_to_end.support import REPOSITORY, Command
from tests.waiting import PATIENCE_S

GOOD = Trial(trained=True, version="4.6.0")
NO_CUDA = Trial(trained=False, why="CUDA Tree Learner was not enabled in this build.\nPlease recompile …")
NO_OPENCL = Trial(trained=False, why="No OpenCL device found")


@pytest.fixture
def gpusched(tmp_path: Path) -> Command:
    """Without OpenCL drivers, whose kernels may take half a minute to compile."""
    command = Command(tmp_path)
    command.environment["OCL_ICD_VENDORS"] = str(tmp_path)
    return command


def test_it_really_trains_and_says_the_rest(gpusched: Command, tmp_path: Path) -> None:
    (tmp_path / "data" / "AAPL").mkdir(parents=True)
    found = gpusched.json("doctor")
    checks = {check["name"]: check for check in found["checks"]}
    assert found["ok"]
    assert checks["lightgbm"]["status"] == "ok"
    assert "trains on cpu" in checks["lightgbm"]["message"]
    assert {"lightgbm gpu", "lightgbm cuda", "cores", "files", "cache", "output", "daemon", "data"} <= set(checks)
    assert "holds 1 symbol" in checks["data"]["message"]
    for check in found["checks"]:
        assert check["status"] in ("ok", "warning", "problem")
        assert check["message"]


@pytest.mark.thorough
def test_in_a_pipe_it_is_tab_separated_and_a_problem_ends_it_with_4(gpusched: Command) -> None:
    gpusched.environment["CUDA_VISIBLE_DEVICES"] = ""
    out = gpusched("doctor", "--set", "devices.fallback=none", "--data-root", "none", code=4)
    lines = [line.split("\t") for line in out.splitlines()]
    assert {len(line) for line in lines} == {4}
    assert ["warning", "data"] in [line[:2] for line in lines]
    (problem,) = (line for line in lines if line[0] == "problem")
    assert problem[1] == "device"
    assert "forbids the CPU" in problem[2]
    assert ["ok", "gpu", "CUDA_VISIBLE_DEVICES= is the mask of what may be used", ""] in lines


@pytest.fixture
def fake_lightgbm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module that trials import instead of LightGBM."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    return tmp_path / "lightgbm.py"


def trial(kind: DeviceType, seconds: float = 30) -> Trial:
    return try_all((kind,), {}, seconds)[0][kind]


def test_a_broken_lightgbm_is_a_problem(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("raise OSError('libgomp.so.1: cannot open shared object file')\n")
    tried = trial("cpu")
    assert (tried.trained, tried.why) == (False, "libgomp.so.1: cannot open shared object file")
    first, *_ = lightgbm_checks({"cpu": tried, "gpu": tried, "cuda": tried})
    assert (first.status, "libgomp" in first.message) == ("problem", True)
    assert "apt install libgomp1" in first.remedy


@pytest.mark.thorough
def test_the_command_fails_where_lightgbm_does(gpusched: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "lightgbm.py").write_text("raise ImportError('no such thing')\n")
    gpusched.environment["PYTHONPATH"] = os.pathsep.join([str(broken), gpusched.environment["PYTHONPATH"]])
    found = gpusched.json("doctor", code=4)
    assert not found["ok"]
    problem = next(check for check in found["checks"] if check["status"] == "problem")
    assert problem["message"] == "LightGBM does not train: no such thing"
    assert "pip install" in problem["remedy"]


def test_what_lies_in_the_current_directory_is_not_taken_for_lightgbm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows do not see it either."""
    (tmp_path / "lightgbm.py").write_text("raise ImportError\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert trial("cpu").trained


def test_one_that_crashes_says_how(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert trial("gpu").why == "the process ended with signal 11: it said nothing"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """CUDA's, which shows one GPU."""
    fake = FakeCuda(tmp_path)
    for name, value in (fake.environment | {"CUDA_VISIBLE_DEVICES": uuid(0)}).items():
        monkeypatch.setenv(name, value)
    return fake


def test_one_that_aborts_says_why(fake_lightgbm: Path, driver: FakeCuda) -> None:
    fake_lightgbm.write_text(
        "import os, sys\n"
        "print('[LightGBM] [Fatal] [CUDA] unknown error /src/a.cu 17', file=sys.stderr, flush=True)\n"
        "print('terminate called after throwing an instance of \\'E\\'', file=sys.stderr, flush=True)\n"
        "os.abort()\n"
    )
    assert trial("cuda").why == "[CUDA] unknown error"


def test_what_cuda_says_stands_unless_lightgbm_knows_better(fake_lightgbm: Path, driver: FakeCuda) -> None:
    driver.fail("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY)
    fake_lightgbm.write_text("import os\nos.abort()\n")
    said = "out of memory: cuDevicePrimaryCtxRetain returned CUDA_ERROR_OUT_OF_MEMORY"
    assert trial("cuda").why == said
    fake_lightgbm.write_text("raise ImportError('not enabled in this build')\n")
    assert trial("cuda").why == "not enabled in this build"


def test_one_that_leaves_says_its_last_line(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("import sys\nprint('x' * 10)\nsys.exit('first\\nlast')\n")
    assert trial("gpu").why == "the process ended with exit code 1: last"


def test_one_that_hangs_is_ended_with_all_that_it_has_started(fake_lightgbm: Path, tmp_path: Path) -> None:
    """The child holds the output open, as a linker of an OpenCL driver would."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fake_lightgbm.write_text(
        f"import os, signal\nif os.fork() == 0:\n    held = open({str(fifo)!r}, 'wb')\nsignal.pause()\n"
    )
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    assert trial("gpu", 2).why == "it did not answer in time"
    # The end of file: the child is gone, or this would wait for ever.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_trials_do_not_wait_for_each_other(fake_lightgbm: Path) -> None:
    """Both only go on when the other one has begun."""
    meeting = fake_lightgbm.with_name("meeting")
    os.mkfifo(meeting)
    fake_lightgbm.write_text(
        "import os, sys\n"
        f"os.open({str(meeting)!r}, os.O_RDONLY if sys.argv[1] == 'cpu' else os.O_WRONLY)\n"
        "raise ImportError('we met')\n"
    )
    trials, imported = try_all(("cpu", "gpu"), {"TA-Lib": "talib", "none": "no_such_module"}, 30)
    assert [tried.why for tried in trials.values()] == ["we met", "we met"]
    assert imported["TA-Lib"].version == talib.__version__
    assert imported["none"].why == "No module named 'no_such_module'"


@pytest.mark.parametrize(
    ("gpu", "status", "word"),
    [
        (Trial(trained=True, device="NVIDIA A40"), "ok", "NVIDIA A40"),
        (Trial(trained=True, device="pthread-haswell-AMD EPYC"), "warning", "that is no GPU"),
        (Trial(trained=True, device="cpu-haswell-AMD EPYC"), "warning", "that is no GPU"),
        (NO_OPENCL, "warning", "OpenCL driver"),
    ],
)
def test_what_opencl_found_is_judged(gpu: Trial, status: str, word: str) -> None:
    _, check, cuda = lightgbm_checks({"cpu": GOOD, "gpu": gpu, "cuda": NO_CUDA})
    assert check.status == status
    assert word in check.message + check.remedy
    assert "gpusched doctor --build-cuda" in cuda.remedy


def test_a_data_root_that_is_missing_or_empty_has_a_remedy(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        check = doctor._data_check(root)
        assert check.status == "warning"
        assert "--data-root" in check.remedy
    (tmp_path / "AAPL.csv").touch()
    assert doctor._data_check(tmp_path).status == "ok"


def test_every_mark_has_a_plain_form() -> None:
    assert all(plain.isascii() for _, plain, _ in doctor._MARKS.values())


@pytest.mark.thorough
def test_it_names_the_gpus_and_those_that_the_configuration_leaves_out(gpusched: Command, tmp_path: Path) -> None:
    gpusched.environment |= FakeNvml(tmp_path).gpus(2).environment
    gpusched.environment.pop("CUDA_VISIBLE_DEVICES", None)
    asked = ("--set", 'devices.exclude=["01:00.0", "H100"]')
    found = gpusched.json("doctor", *asked)["checks"]
    checks = [check for check in found if check["name"] == "gpu"]
    assert [check["status"] for check in checks] == ["ok", "ok", "ok", "warning"]
    assert uuid(1) in checks[1]["message"]
    assert checks[2]["message"] == f"{uuid(0)} is not used: devices.include, devices.exclude"
    assert checks[3]["message"] == "devices.exclude: 'H100' is no GPU here"
    assert uuid(0) in checks[3]["remedy"]
    # It is there, but this LightGBM trains on none without OpenCL drivers.
    (device,) = (check for check in found if check["name"] == "device")
    assert (device["status"], device["message"]) == (
        "warning",
        "windows train on the CPU: LightGBM trains on no GPU here",
    )


# -- meaning of findings -----------------------------------------------------------------------------------------------

ON_GPU = Trial(trained=True, device="NVIDIA A40")
ON_PROCESSOR = Trial(trained=True, device="cpu-haswell-AMD EPYC")


@pytest.mark.parametrize(
    ("wanted", "gpus", "fallback", "gpu", "cuda", "status", "says"),
    [
        ("cpu", 0, False, NO_OPENCL, NO_CUDA, "ok", "windows train on the CPU"),
        ("auto", 0, True, NO_OPENCL, NO_CUDA, "ok", "windows train on the CPU: there is no GPU"),
        ("auto", 0, True, ON_GPU, NO_CUDA, "ok", "windows train on the CPU: there is no GPU"),
        ("auto", 0, False, NO_OPENCL, NO_CUDA, "problem", "forbids the CPU"),
        ("auto", 1, True, ON_GPU, NO_CUDA, "ok", "windows train on the CPU or on 1 GPU, device type gpu, whichever"),
        ("auto", 1, False, ON_GPU, NO_CUDA, "ok", "windows train on 1 GPU, device type gpu"),
        ("mixed", 1, False, ON_GPU, NO_CUDA, "ok", "windows train on the CPU and 1 GPU, device type gpu, at once"),
        ("mixed", 0, False, NO_OPENCL, NO_CUDA, "ok", "windows train on the CPU: there is no GPU"),
        ("auto", 2, True, ON_GPU, GOOD, "ok", "windows train on the CPU or on 2 GPUs, device type cuda, whichever"),
        ("auto", 2, True, ON_PROCESSOR, NO_CUDA, "warning", "windows train on the CPU: LightGBM trains on no GPU"),
        ("auto", 2, False, NO_OPENCL, NO_CUDA, "problem", "LightGBM trains on no GPU here, and devices.fallback"),
        ("gpu", 1, True, ON_GPU, GOOD, "ok", "device type gpu"),
        ("gpu", 1, True, ON_PROCESSOR, GOOD, "problem", "does not train with device type gpu"),
        ("cuda", 1, True, ON_GPU, NO_CUDA, "problem", "does not train with device type cuda"),
        ("cuda", 0, True, NO_OPENCL, GOOD, "problem", "there is no GPU"),
    ],
)
def test_where_windows_will_train(
    wanted: DeviceChoice, gpus: int, fallback: bool, gpu: Trial, cuda: Trial, status: str, says: str
) -> None:
    check = device_check(wanted, gpus=gpus, fallback=fallback, trials={"cpu": GOOD, "gpu": gpu, "cuda": cuda})
    assert check.status == status
    assert says in check.message
    assert bool(check.remedy) == (status != "ok")


def test_processors_will_do_for_a_gpu_where_that_is_allowed() -> None:
    trials: dict[DeviceType, Trial] = {"cpu": GOOD, "gpu": ON_PROCESSOR, "cuda": NO_CUDA}
    assert device_check("gpu", gpus=1, fallback=True, trials=trials, cpu_opencl=True).status == "ok"


@pytest.mark.parametrize(
    ("soft", "hard", "slots", "status", "remedy"),
    [
        (1024, 4096, 8, "ok", ""),
        (None, None, 8, "ok", ""),
        (1024, 4096, 1000, "warning", "before `gpusched run`: `ulimit -n 2128`; the daemon raises its own limit"),
        (1024, None, 1000, "warning", "before `gpusched run`: `ulimit -n 2128`; the daemon raises its own limit"),
        (1024, 1024, 1000, "warning", "raise the limit to 2128: `ulimit -Hn 2128`, LimitNOFILE= of a service"),
    ],
)
def test_files_are_counted_against_slots(
    soft: int | None, hard: int | None, slots: int, status: str, remedy: str
) -> None:
    check = files_check(soft, hard, slots)
    assert (check.status, check.remedy) == (status, remedy)
    assert f"{slots} slots need" in check.message


def test_talib_is_needed_and_pandas_may_be() -> None:
    why = "cannot import name 'x'\nmore"
    talib, pandas = library_checks({"TA-Lib": Imported(why=why), "pandas": Imported(why=why)})
    assert (talib.status, pandas.status) == ("problem", "warning")
    assert talib.message == "TA-Lib cannot be imported, no window can be trained: cannot import name 'x'"
    assert "pip install" in talib.remedy
    (fine,) = library_checks({"pandas": Imported(version="3.0")})
    assert (fine.status, fine.message) == ("ok", "pandas 3.0")


def test_notes_on_gpus_end_with_what_to_do() -> None:
    broken = Note("the driver is not loaded: GPUs cannot be used", "try `modprobe nvidia`")
    first, second = gpu_notes((broken, Note("no GPU")))
    assert (first.message, first.remedy) == (
        "the driver is not loaded: GPUs cannot be used",
        "try `modprobe nvidia`",
    )
    assert second.message == "no GPU"
    assert second.remedy


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    good = doctor._space_check("cache", tmp_path / "not" / "yet" / "there", "give another")
    assert good.status in ("ok", "warning")  # by the room on this machine
    assert "can be written" in good.message
    assert not (tmp_path / "not").exists()
    bad = doctor._space_check("cache", tmp_path / "file" / "below", "give another")
    assert (bad.status, bad.remedy) == ("warning", "give another")
    assert f"{tmp_path / 'file'} is not a directory" in bad.message
    assert doctor._space_check("cache", tmp_path / ("x" * 5000), "give another").status == "warning"
    little = space_check("output", "/out", why=None, free_bytes=5 << 20, remedy="give another")
    assert (little.status, little.message) == ("warning", "/out can be written, but only 5 MiB are free")


def test_trials_need_no_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing temporary can be written, the doctor was an internal error."""
    monkeypatch.setattr(tempfile, "tempdir", "/not/there")
    _, imported = try_all((), {"pytest": "pytest"}, PATIENCE_S)
    assert imported["pytest"].version == pytest.__version__


def test_a_daemon_without_room_for_its_state_is_a_warning() -> None:
    assert state_check("/var/lib/gpusched", 5 << 30).message == "its state is in /var/lib/gpusched, with 5 GiB free"
    little = state_check("/var/lib/gpusched", 5 << 20)
    assert (little.status, little.message) == ("warning", "its state in /var/lib/gpusched has only 5 MiB of disk left")
    assert list(doctor._state_check(Path("/var/lib/gpusched/not/for/us"))) == []


def test_what_is_no_symbol_is_not_counted(tmp_path: Path) -> None:
    for name in ("AAPL", ".cache", "A B"):
        (tmp_path / name).mkdir()
    for name in ("MSFT.parquet", "README.txt", ".hidden.csv"):
        (tmp_path / name).touch()
    assert "holds 2 symbols" in doctor._data_check(tmp_path).message


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".csv.gz", ".txt", ".TXT", ".parquet"])
def test_symbols_of_every_format_are_counted(suffix: str, tmp_path: Path) -> None:
    """Of compressed files and texts it said that there were no symbols."""
    for name in ("AAPL", "MSFT"):
        (tmp_path / f"{name}{suffix}").touch()
    assert "holds 2 symbols" in doctor._data_check(tmp_path).message


def test_a_terminal_gets_marks_and_nothing_that_it_would_obey(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        Check(name="one", status="ok", message="fine"),
        Check(name="two", status="warning", message="bad \x1b[2J [red]thing", remedy="mend it"),
        Check(name="three", status="problem", message="worse", remedy="mend it"),
    ]
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(Console, "is_terminal", True)
    doctor._print(checks)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "✓ one: fine",
        "! two: bad \N{REPLACEMENT CHARACTER}[2J [red]thing",
        "    mend it",
        "✗ three: worse",
        "    mend it",
    ]


def test_a_daemon_that_does_not_answer_rightly_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    config = load(flags=[("daemon.socket", str(path), "--socket")], environ={}).config
    assert next(doctor._daemon_checks(config)).status == "ok"  # nobody needs one
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            link, _ = listener.accept()
            link.sendall(b"SSH-2.0\n")
            link.close()

        other = threading.Thread(target=answer)
        other.start()
        check = next(doctor._daemon_checks(config))
        other.join(PATIENCE_S)
    assert check.status == "warning"
    assert "is not a gpusched daemon" in check.message
    assert check.remedy
