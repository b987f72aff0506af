"""However a window ends, the supervisor learns how, and nobody else is hurt."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import get_args

import pytest

from gpusched import artifacts
from gpusched.core.model import DeviceType, WindowResult
from gpusched.engines.local.launcher import Confines
from gpusched.worker.messages import Error, Started
from gpusched.worker.window import error_kind
from tests.worker.support import END, START, Bench, Fifo, bench


async def trained(directory: Path, code: str) -> Bench:
    """Run one window of the function `train` in this code; return where its messages and results are."""
    (directory / "odd.py").write_text(code)
    async with bench(directory) as b:
        await b.run(f"{directory}:odd:train")
    return b


async def test_a_window_that_succeeds(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.run("two_files")

    assert (end.exit_code, end.signal, end.violation, end.launcher_lost) == (0, None, None, False)
    assert end.cpu_seconds > 0
    assert end.peak_memory_bytes > 1_000_000
    started, result = b.messages
    assert isinstance(started, Started)
    assert isinstance(result, WindowResult)
    assert result.metrics == {"auc": 0.5, "undefined": None}
    assert result.artifacts_path == str(b.output / "SYM_2022-01-01_to_2022-06-30")
    assert result.fingerprint is not None
    metadata = artifacts.verify(Path(result.artifacts_path), {result.fingerprint})
    assert metadata is not None
    assert (metadata.symbol, metadata.start, metadata.end) == ("SYM", START, END)
    assert metadata.details == {"answer": 42}
    assert sorted(metadata.files) == ["model.txt", "more/labels.csv"]
    assert list((b.output / ".partial").iterdir()) == []


async def test_a_dictionary_is_the_metrics(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("returns_metrics")
    assert isinstance(b.last, WindowResult)
    assert (b.last.metrics, b.last.sample_counts, b.last.phases) == ({"auc": 0.5}, {}, {})


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("raises", "raised", "ValueError: no good ?"),
        ("bad_data", "bad_data", "no bars"),
        ("bad_parameters", "bad_parameters", "num_leaves must be positive"),
        ("device_mismatch", "device_mismatch", "DeviceMismatch: asked for a GPU, got PoCL"),
        # On a CPU slot there is no other memory to run out of.
        ("device_memory", "memory", "RuntimeError: [CUDA] out of memory /src/cuda_utils.cpp 10"),
        (
            "returns_none",
            "bad_parameters",
            "workload 'tests.worker.workloads:returns_none' returned NoneType, no Result or metrics",
        ),
    ],
)
async def test_an_exception_is_classified(tmp_path: Path, name: str, kind: str, message: str) -> None:
    async with bench(tmp_path) as b:
        end = await b.run(name)

    assert end.exit_code == 1
    assert isinstance(b.last, Error)
    assert (b.last.kind, b.last.message) == (kind, message)
    assert "Traceback (most recent call last)" in b.last.traceback
    assert not (b.output / "SYM_2022-01-01_to_2022-06-30").exists()
    assert list((b.output / ".partial").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("device_memory", "[LightGBM] [Fatal] [CUDA] out of memory /src/cuda_utils.cpp 10"),
        # the words in which LightGBM's library has OpenCL's errors
        ("device_memory", "Memory Object Allocation Failure"),
        ("device_memory", "Out of Resources"),
        ("device_lost", "[CUDA] all CUDA-capable devices are busy or unavailable"),
        ("device_lost", "CUDA-capable device(s) is/are busy or unavailable"),
        ("device_lost", "[CUDA] no CUDA-capable device is detected"),
        ("device_lost", "[CUDA] uncorrectable ECC error encountered"),
        ("device_lost", "No OpenCL device found"),
        ("device_lost", "Device Not Available"),
        ("memory", "Out of Host Memory"),
        ("memory", "std::bad_alloc"),
        ("raised", "[CUDA] an illegal memory access was encountered"),
    ],
)
def test_what_a_gpus_library_says_is_classified(kind: str, text: str) -> None:
    # on the host there is no device to blame
    on_cpu = {"device_memory": "memory", "device_lost": "raised"}.get(kind, kind)
    for device_type in get_args(DeviceType):
        assert error_kind(RuntimeError(text), device_type) == (on_cpu if device_type == "cpu" else kind)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("sample_counts={'train': 5.5}", "Expected `int`, got `float` - at `$.sample_counts[...]`"),
        ("metrics=None", "Expected `object`, got `null` - at `$.metrics`"),
        ("phases={'fit': float('nan')}", "its phases have to be finite numbers of seconds"),
        (
            "metrics={'a': chr(0xdc80)}",
            r"'utf-8' codec can't encode character '\udc80' in position 0: surrogates not allowed",
        ),
        ("metadata={'of': directory}", "it has a PosixPath, which is no JSON"),
        ("metrics=metrics", "maximum recursion depth exceeded while serializing an object"),
    ],
)
async def test_a_result_that_cannot_be_recorded_is_refused_before_it_is_committed(
    tmp_path: Path, change: str, why: str
) -> None:
    """It was committed, and its message a breach of the protocol."""
    (tmp_path / "odd.py").write_text(
        "from gpusched.workload import Result\n"
        "metrics = {}\n"
        "metrics['itself'] = metrics\n"
        "def train(task, directory, report):\n"
        "    kept = dict(metrics={}, sample_counts={}, metadata={}, phases={})\n"
        f"    return Result(**(kept | dict({change})))\n"
    )
    async with bench(tmp_path) as b:
        assert (await b.run(f"{tmp_path}:odd:train")).exit_code == 1
    assert isinstance(b.last, Error)
    assert b.last.kind == "bad_parameters"
    assert b.last.message == f"workload '{tmp_path}:odd:train' returned a Result that cannot be recorded: {why}"
    assert not (b.output / "SYM_2022-01-01_to_2022-06-30").exists()


async def test_keys_and_times_that_are_no_text_are_recorded_as_text(tmp_path: Path) -> None:
    """`classification_report(output_dict=True)`, `value_counts().to_dict()`, the last `Timestamp` of a frame."""
    b = await trained(
        tmp_path,
        "import numpy as np\n"
        "import pandas as pd\n"
        "from gpusched.workload import Result\n"
        "def train(task, directory, report):\n"
        "    metrics = {0: 0.5, 'f1': {np.int64(1): pd.NA}, 'at': pd.NaT}\n"
        "    return Result(metrics=metrics, metadata={'last': pd.Timestamp('2022-06-30 15:30')})\n",
    )
    assert isinstance(b.last, WindowResult)
    assert b.last.metrics == {"0": 0.5, "f1": {"1": None}, "at": None}
    assert b.last.fingerprint is not None
    metadata = artifacts.verify(Path(b.last.artifacts_path), {b.last.fingerprint})
    assert metadata is not None
    assert metadata.details == {"last": "2022-06-30T15:30:00"}


@pytest.mark.parametrize(
    ("raised", "kind", "message", "exit_code"),
    [
        pytest.param("sys.exit(2)", "exited", "SystemExit: 2", 2, marks=pytest.mark.thorough),
        ("sys.exit('no rows')", "exited", "SystemExit: no rows", 1),
        pytest.param("raise asyncio.CancelledError", "raised", "CancelledError", 1, marks=pytest.mark.thorough),
        ("raise Panic('index out of bounds')", "raised", "Panic: index out of bounds", 1),
        ("raise Speechless", "raised", "Speechless", 1),
        ("sys.stderr.close(); raise ValueError('no rows')", "raised", "ValueError: no rows", 1),
    ],
)
async def test_what_is_no_usual_exception_is_told_as_itself(
    tmp_path: Path, raised: str, kind: str, message: str, exit_code: int
) -> None:
    """It was: the process exited with code 1 before it reported a result."""
    (tmp_path / "odd.py").write_text(
        "import asyncio, sys\n"
        "class Panic(BaseException): ...\n"
        "class Speechless(Exception):\n"
        "    def __str__(self): raise KeyError\n"
        "def train(task, directory, report):\n"
        f"    {raised}\n"
    )
    async with bench(tmp_path) as b:
        assert (await b.run(f"{tmp_path}:odd:train")).exit_code == exit_code
    assert isinstance(b.last, Error)
    assert (b.last.kind, b.last.message, b.last.source_line) == (kind, message, f"{tmp_path / 'odd.py'}:6")
    assert list((b.output / ".partial").iterdir()) == []


async def test_a_report_leaves_an_alarm_of_the_functions_own(tmp_path: Path) -> None:
    """It took the alarm, so that a time limit of the function was none."""
    b = await trained(
        tmp_path,
        "import signal\n"
        "def late(*_): raise TimeoutError('too late')\n"
        "def train(task, directory, report):\n"
        "    signal.signal(signal.SIGALRM, late)\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "    report('fit')\n"
        "    report('fit', 1)\n"
        "    signal.pause()\n"
        "    return {}\n",
    )
    assert isinstance(b.last, Error)
    assert b.last.message == "TimeoutError: too late"


@pytest.mark.parametrize(
    "end",
    [
        "return {'auc': 0.1}",
        pytest.param("raise ValueError", marks=pytest.mark.thorough),
        pytest.param("sys.exit(0)", marks=pytest.mark.thorough),
    ],
)
async def test_a_forked_process_that_comes_back_is_not_the_window(tmp_path: Path, end: str) -> None:
    """It committed its own result, or removed the directory that its parent was writing to."""
    b = await trained(
        tmp_path,
        "import os, sys\n"
        "def train(task, directory, report):\n"
        "    if os.fork() == 0:\n"
        f"        {end}\n"
        "    os.wait()\n"
        "    (directory / 'model').touch()\n"
        "    return {'auc': 0.9}\n",
    )
    assert isinstance(b.last, WindowResult)
    assert b.last.metrics == {"auc": 0.9}
    assert [type(message) for message in b.messages] == [Started, WindowResult]
    assert (b.output / "SYM_2022-01-01_to_2022-06-30" / "model").exists()


async def test_a_file_that_is_still_open_is_no_result(tmp_path: Path) -> None:
    """It was committed without its end, which stood in the file's buffer."""
    b = await trained(
        tmp_path,
        "kept = []\n"
        "def train(task, directory, report):\n"
        "    (directory / 'sub').mkdir()\n"
        "    kept.append((directory / 'sub' / 'log.csv').open('w'))\n"
        "    kept[0].write('1,2')\n"
        "    return {}\n",
    )
    assert isinstance(b.last, Error)
    why = "sub/log.csv is still open, so its end may be missing: close it once it is written"
    assert (b.last.kind, b.last.message) == ("permanent", why)


async def test_a_log_of_its_own_and_what_it_reads_may_stay_open(tmp_path: Path) -> None:
    b = await trained(
        tmp_path,
        "import logging\n"
        "kept = []\n"
        "def train(task, directory, report):\n"
        "    logging.basicConfig(filename=directory / 'train.log')\n"
        "    logging.warning('12 bars')\n"
        "    kept.append((directory / 'train.log').open())\n"
        "    return {}\n",
    )
    assert isinstance(b.last, WindowResult)
    assert (b.output / "SYM_2022-01-01_to_2022-06-30" / "train.log").read_text() == "WARNING:root:12 bars\n"


async def test_a_long_message_is_cut(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("raises_long")

    assert isinstance(b.last, Error)
    assert len(b.last.message) == 4 * 1024
    assert len(b.last.traceback) == 64 * 1024


@pytest.mark.parametrize(
    ("name", "exit_code", "by_signal"),
    [
        ("exits_at_once", 3, None),
        ("kills_itself", None, signal.SIGKILL),
        ("segfaults", None, signal.SIGSEGV),
    ],
)
async def test_a_death_without_a_word(tmp_path: Path, name: str, exit_code: int | None, by_signal: int | None) -> None:
    async with bench(tmp_path) as b:
        end = await b.run(name)
        assert (end.exit_code, end.signal, end.violation) == (exit_code, by_signal, None)
        assert [type(message) for message in b.messages] == [Started]
        if name == "segfaults":
            assert "Fatal Python error: Segmentation fault" in b.log.read_text()

        assert (await b.run("nothing")).exit_code == 0


async def test_memory_beyond_the_limit_fails_that_window_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        neighbour = await b.fork("prints_much", symbol="NEIGHBOUR")
        process = await b.launcher.fork(
            b.job("hogs_memory"), Confines(log_path=b.log, env={}, memory_limit_bytes=256 * 1024 * 1024)
        )
        end = await process.wait(b.messages.append)

        assert end.exit_code == 1
        assert isinstance(b.last, Error)
        assert b.last.kind == "memory"
        assert end.peak_memory_bytes < 300 * 1024 * 1024
        assert (await neighbour.wait(b.messages.append)).exit_code == 0


async def test_who_sent_the_kill_is_known(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "fifo")
    async with bench(tmp_path) as b:
        process = await b.fork("hangs", fifo=fifo.path)
        await fifo.number()
        assert process.process.shared_bytes > 1 << 20
        process.signal(signal.SIGKILL)
        ours = await process.wait(b.messages.append)
        process = await b.fork("hangs", fifo=fifo.path)
        os.kill(await fifo.number(), signal.SIGKILL)
        theirs = await process.wait(b.messages.append)
    assert (ours.signal, ours.killed) == (signal.SIGKILL, True)
    assert (theirs.signal, theirs.killed) == (signal.SIGKILL, False)


async def test_output_goes_to_the_log(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.run("prints_much")
        await b.run("nothing")

    assert end.exit_code == 0
    log = b.log.read_text()
    assert log.count("\n") == 20_001
    assert log.endswith("x\nto stderr\n")
    assert b.log.stat().st_mode & 0o777 == 0o600
    assert b.log.parent.stat().st_mode & 0o777 == 0o700
