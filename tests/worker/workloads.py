"""Workloads that behave as badly as windows can. Named `tests.worker.workloads:<name>`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from gpusched.worker.child import PIPE
from gpusched.workload import (
    BadData,
    BadParameters,
    DeviceMismatch,
    NoData,
    Report,
    Result,
    SurveyTask,
    Task,
    WindowSurvey,
)

_RESULT = Result(
    metrics={"auc": 0.5, "undefined": float("nan")},
    sample_counts={"train": 8, "validation": 2},
    metadata={"answer": 42},
    phases={"train": 0.25},
    fingerprint="f" * 64,
)


def preload() -> None:
    """Leaves a mark by which a window can tell that it was forked from a preloaded launcher.

    SIGUSR1 makes the launcher hang.
    """
    sys.preloaded_by = os.getpid()  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda number, frame: signal.pause())


def survey(task: SurveyTask) -> list[WindowSurvey]:
    if task.symbol == "BAD":
        raise BadData("no bars at all")
    if task.symbol == "BUG":
        raise ZeroDivisionError("division by zero")
    if task.symbol == "KILLED":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.symbol == "MEMORY":
        raise MemoryError("no room")
    if task.symbol == "DISK":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if task.symbol == "POINTS" and task.shared.setdefault("first", task.settings["point"]) != task.settings["point"]:
        raise NoData(f"not at {task.settings['point']}, after {task.shared['first']}")
    windows = task.windows[1:] if task.symbol == "SHORT" else task.windows
    return [
        WindowSurvey(
            start=window.start,
            end=window.end,
            bars=object() if task.symbol == "ODD" else 100,  # type: ignore[arg-type]  # nothing can encode it
            usable_rows=90,
            fingerprint="f" * 64,
        )
        for window in windows
    ]


# -- that end well -----------------------------------------------------------------------------------------------------


def nothing(task: Task, directory: Path, report: Report) -> Result:
    return _RESULT


def two_files(task: Task, directory: Path, report: Report) -> Result:
    report("write")
    (directory / "model.txt").write_text(f"model of {task.label}\n")
    (directory / "more").mkdir()
    (directory / "more" / "labels.csv").write_text("1,2\n" * 10)
    return _RESULT


def many_rounds(task: Task, directory: Path, report: Report) -> Result:
    """Reports 100,000 rounds in less than a second."""
    for number in range(100_000):
        report("train", number, 100_000)
    return _RESULT


def reports_anything(task: Task, directory: Path, report: Any) -> Result:
    """One call with values that are no whole number or no text, until the test says so."""
    report(*{"array": ("train", Decimal(3), 10.0), "text": ("\ud800" * 10**7, None, "two")}[task.symbol])
    wait_for_line(task)
    return _RESULT


def lasting_phase(task: Task, directory: Path, report: Report) -> Result:
    """One call right at the start of a phase in which nothing else is reported, until the test says so."""
    report("train", 1, 2)
    wait_for_line(task)
    return _RESULT


def reports_in_a_thread(task: Task, directory: Path, report: Report) -> Result:
    """As a library does that calls back from a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            pool.submit(report, "train", number, 3).result()
    return _RESULT


class _Tee:
    """A stream that cannot be flushed, in the place of another one."""

    def write(self, text: str) -> int:
        return len(text)


def replaces_its_streams(task: Task, directory: Path, report: Report) -> Result:
    sys.stdout = sys.stderr = cast(TextIO, _Tee())
    return _RESULT


def replaces_its_streams_and_raises(task: Task, directory: Path, report: Report) -> NoReturn:
    sys.stdout, sys.stderr = cast(TextIO, None), cast(TextIO, object())
    raise KeyboardInterrupt


def prints_much(task: Task, directory: Path, report: Report) -> Result:
    for _ in range(20_000):
        print("x" * 99)
    os.write(2, b"to stderr\n")
    return _RESULT


def floods_its_log(task: Task, directory: Path, report: Report) -> Result:
    """5 MB, by a program that it starts, and when the test says so some more."""
    print("the first line", flush=True)
    subprocess.run(["seq", "1", "700000"], check=True)
    say(task, os.getpid())
    wait_for_line(task)
    print("the last line", flush=True)
    return _RESULT


def waits(task: Task, directory: Path, report: Report) -> Result:
    """Until the test says so."""
    say(task, os.getpid())
    wait_for_line(task)
    return _RESULT


def shows_itself(task: Task, directory: Path, report: Report) -> Result:
    """The process's environment, as the metrics of its result."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    core, _ = resource.getrlimit(resource.RLIMIT_CORE)
    metrics: dict[str, Any] = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgrp(),
        "descriptors": open_descriptors(),
        "environment": {name: os.environ.get(name) for name in json.loads(task.settings["names"])},
        "cpus": sorted(os.sched_getaffinity(0)),
        "data_limit": limit,
        "core_limit": core,
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "stdin_is_null": os.path.samestat(os.fstat(0), Path(os.devnull).stat()),
        "log_mode": stat.S_IMODE(os.fstat(1).st_mode),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "term_is_default": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "wakeup": signal.set_wakeup_fd(-1),
        "gc": gc.isenabled(),
        "preloaded_by": getattr(sys, "preloaded_by", None),
    }
    return Result(metrics=metrics, sample_counts={}, metadata={}, phases={})


# -- that end badly ----------------------------------------------------------------------------------------------------


def raises(task: Task, directory: Path, report: Report) -> NoReturn:
    (directory / "half").write_text("half")
    raise ValueError("no good \udcff")


def raises_long(task: Task, directory: Path, report: Report) -> NoReturn:
    raise ValueError("a" * 1_000_000)


def bad_data(task: Task, directory: Path, report: Report) -> NoReturn:
    raise BadData("no bars")


def bad_parameters(task: Task, directory: Path, report: Report) -> NoReturn:
    raise BadParameters("num_leaves must be positive")


def device_mismatch(task: Task, directory: Path, report: Report) -> NoReturn:
    raise DeviceMismatch("asked for a GPU, got PoCL")


def device_memory(task: Task, directory: Path, report: Report) -> NoReturn:
    raise RuntimeError("[CUDA] out of memory /src/cuda_utils.cpp 10")


def returns_metrics(task: Task, directory: Path, report: Report) -> dict[str, float]:
    return {"auc": 0.5}


def returns_none(task: Task, directory: Path, report: Report) -> None:
    return None


def exits(task: Task, directory: Path, report: Report) -> NoReturn:
    sys.exit(2)


def interrupts_itself(task: Task, directory: Path, report: Report) -> NoReturn:
    print("Traceback (most recent call last):\nOSError: an earlier one, which was handled", file=sys.stderr)
    raise KeyboardInterrupt


def exits_at_once(task: Task, directory: Path, report: Report) -> NoReturn:
    os._exit(3)


def kills_itself(task: Task, directory: Path, report: Report) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def segfaults(task: Task, directory: Path, report: Report) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError


def hangs(task: Task, directory: Path, report: Report) -> NoReturn:
    say(task, os.getpid())
    while True:
        signal.pause()


def ignores_term(task: Task, directory: Path, report: Report) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hangs(task, directory, report)


def has_child(task: Task, directory: Path, report: Report) -> NoReturn:
    """A child in its group, that holds the pipe open and ignores SIGTERM. Then it hangs."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    say(task, child)
    hangs(task, directory, report)


def leaves_child(task: Task, directory: Path, report: Report) -> Result:
    """Returns while a child in its group still holds the pipe open."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    say(task, child)
    return _RESULT


def leaves_daemon(task: Task, directory: Path, report: Report) -> Result:
    """Returns while a child of a child, in a session of its own, still holds the pipe open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            say(task, os.getpid())
            while True:
                signal.pause()
        while True:
            signal.pause()
    wait_for_line(task)
    return _RESULT


def has_daemon(task: Task, directory: Path, report: Report) -> NoReturn:
    """A child in a session of its own. Then it hangs."""
    if os.fork() == 0:
        os.setsid()
        hangs(task, directory, report)
    hangs(task, directory, report)


def has_program(task: Task, directory: Path, report: Report) -> NoReturn:
    """A program in a session of its own, whose parent has gone. Then it hangs."""
    if os.fork() == 0:
        say(task, subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
        os._exit(0)
    os.wait()
    hangs(task, directory, report)


def executes(task: Task, directory: Path, report: Report) -> Result:
    """Leaves a running program behind."""
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    say(task, program.pid)
    program.returncode = 0  # so that it does not complain
    return _RESULT


def hogs_memory(task: Task, directory: Path, report: Report) -> NoReturn:
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def asks_for_a_pebibyte(task: Task, directory: Path, report: Report) -> NoReturn:
    bytearray(1 << 50)
    raise AssertionError


def starts_thread(task: Task, directory: Path, report: Report) -> Result:
    threading.Thread(target=time.sleep, args=(0,)).start()
    return _RESULT


# -- that abuse the pipe -----------------------------------------------------------------------------------------------


def writes_garbage(task: Task, directory: Path, report: Report) -> Result:
    os.write(PIPE, b"\x00\xff garbage\n")
    return _RESULT


def claims_another_place(task: Task, directory: Path, report: Report) -> Result:
    claim: dict[str, object] = {"type": "result", "artifacts_path": "/elsewhere", "fingerprint": None, "device": "cpu"}
    claim |= {"metrics": {}, "sample_counts": {}, "device_type": "cpu", "phases": {}, "seconds": 1}
    os.write(PIPE, json.dumps(claim).encode() + b"\n")
    os._exit(0)


def writes_unknown_message(task: Task, directory: Path, report: Report) -> Result:
    os.write(PIPE, b'{"type":"victory"}\n')
    return _RESULT


def writes_half_a_line(task: Task, directory: Path, report: Report) -> NoReturn:
    os.write(PIPE, b'{"type":"progr')
    os._exit(0)


def writes_long_line(task: Task, directory: Path, report: Report) -> Result:
    line = b"y" * (10 << 20)
    while line:
        line = line[os.write(PIPE, line) :]
    return _RESULT


def writes_endless_progress(task: Task, directory: Path, report: Report) -> NoReturn:
    line = b'{"type":"progress","phase":"train","round":1,"rounds":2}\n' * 100
    while True:
        os.write(PIPE, line)


# -- help --------------------------------------------------------------------------------------------------------------


def open_descriptors() -> list[int]:
    """All but those that this looks with."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.readlink().parts[:2] != ("/", "proc"):
                found.append(int(path.name))
    return sorted(found)


def say(task: Task, number: int) -> None:
    """Tell the test a number, through the FIFO it gave."""
    with Path(task.settings["fifo"]).open("w") as fifo:
        fifo.write(f"{number}\n")


def wait_for_line(task: Task) -> None:
    with Path(task.settings["back"]).open() as fifo:
        select.select([fifo], [], [])
        fifo.readline()
