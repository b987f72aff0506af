"""The judgement of an end: its kind, and whether trying again can help."""

from __future__ import annotations

import signal
from typing import get_args

import msgspec
import pytest

from gpusched.core.failures import (
    MAX_LOSSES,
    TREATMENTS,
    Exit,
    Killer,
    Retry,
    backoff,
    classify,
    judge,
    last_traceback,
    last_words,
)
from gpusched.core.model import Limits, WindowResult
from gpusched.core.states import Ending, Failed, Failure, FailureKind, Lost, Outcome, Skipped, TimedOut
from tests.core.support import RESULT, failure

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
#: nothing runs when it is noticed
AFTERWARDS = {"missing"}
FATAL = {"no_data", "bad_data", "bad_parameters", "memory", "permanent"} | AFTERWARDS
NOBODYS = {
    *("host_memory", "device_memory", "device_mismatch", "device_lost"),
    *("node_lost", "launch_refused", "launcher_lost", "interrupted"),
}
LIMITS = Limits(max_attempts=3, timeout_s=50.0, backoff_s=1.5, backoff_max_s=20.0)


def test_every_kind_has_a_treatment() -> None:
    assert set(TREATMENTS) == set(KINDS)
    assert {kind for kind, t in TREATMENTS.items() if not t.retry} == FATAL
    assert {kind for kind, t in TREATMENTS.items() if not t.counts} == NOBODYS | AFTERWARDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_failure(kind: FailureKind) -> None:
    counts = kind not in NOBODYS | AFTERWARDS
    verdict = judge(failure(kind), failures=int(counts), losses=int(not counts), limits=LIMITS)
    expected: Retry | Outcome = Retry(1.5) if counts else Retry(0.0)
    if kind in FATAL:
        expected = Skipped(reason=failure(kind).message) if kind == "no_data" else Failed(failure=failure(kind))
    assert verdict == expected


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in FATAL | NOBODYS])
@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_attempts_run_out(kind: FailureKind, max_attempts: int) -> None:
    limits = msgspec.structs.replace(LIMITS, max_attempts=max_attempts)
    verdicts = [judge(failure(kind), failures=n, losses=MAX_LOSSES, limits=limits) for n in range(1, max_attempts + 1)]
    assert all(isinstance(verdict, Retry) for verdict in verdicts[:-1])
    last: Outcome = TimedOut(seconds=50.0) if kind == "timed_out" else Failed(failure=failure(kind))
    assert verdicts[-1] == last


def test_an_exception_at_the_same_line_twice_would_come_a_third_time() -> None:
    raised = Failure(kind="raised", message="ValueError: no", place="ValueError at a.py:3")
    for last_place, expected in (
        ("", Retry(1.5)),
        ("ValueError at a.py:4", Retry(1.5)),
        (raised.place, Failed(failure=raised)),
    ):
        assert judge(raised, failures=1, losses=0, limits=LIMITS, last_place=last_place) == expected
    assert judge(failure("exited"), failures=1, losses=0, limits=LIMITS, last_place="") == Retry(1.5)


@pytest.mark.parametrize("kind", sorted(NOBODYS))
def test_losses_are_no_fault_of_the_window_and_yet_end(kind: FailureKind) -> None:
    verdicts = [judge(failure(kind), failures=99, losses=n, limits=LIMITS) for n in range(1, MAX_LOSSES + 1)]
    assert verdicts == [
        *(Retry(delay) for delay in (0.0, 1.5, 3.0, 6.0, 12.0, 20.0, 20.0, 20.0, 20.0)),
        Lost(failure=failure(kind)),
    ]


def test_backoff_doubles_up_to_its_limit() -> None:
    assert [backoff(LIMITS, n) for n in range(1, 7)] == [1.5, 3.0, 6.0, 12.0, 20.0, 20.0]
    assert backoff(LIMITS, 1_000_000) == 20.0
    assert backoff(Limits(backoff_s=0.0), 5) == 0.0
    assert backoff(Limits(backoff_s=100.0, backoff_max_s=60.0), 1) == 60.0


ABORTED = """\
[LightGBM] [Info] Number of positive: 40, number of negative: 50
[LightGBM] [Fatal] [CUDA] {} /tmp/build/lightgbm/src/io/cuda/cuda_column_data.cpp 39

terminate called after throwing an instance of 'std::runtime_error'
  what():  [CUDA] driver shutting down /tmp/build/lightgbm/include/LightGBM/cuda/cuda_utils.hu 123

Fatal Python error: Aborted

Thread 0x00007f2a (most recent call first):
"""
UNCAUGHT = (
    "terminate called after throwing an instance of 'std::runtime_error'\n  what():  [CUDA] {} ../../src/a.hpp 54\n\n"
)


def seen(
    *,
    result: WindowResult | None = None,
    error: Failure | None = None,
    violation: str | None = None,
    launcher_lost: bool = False,
    exit_code: int | None = None,
    number: int | None = None,
    killer: Killer = "unknown",
    on_cpu: bool = True,
    memory_limited: bool = True,
    log_end: str = "",
) -> Ending:
    return classify(
        result=result,
        error=error,
        violation=violation,
        exit=Exit(
            launcher_lost=launcher_lost,
            exit_code=exit_code,
            signal=number,
            killer=killer,
            on_cpu=on_cpu,
            memory_limited=memory_limited,
            log_end=log_end,
        ),
    )


def kind_of(ending: Ending) -> FailureKind:
    assert isinstance(ending, Failure)
    return ending.kind


def test_what_decides_first() -> None:
    """Each fact alone wins over all that are further down."""
    assert seen(result=RESULT, error=failure(), launcher_lost=True, number=signal.SIGKILL) == RESULT
    assert seen(result=RESULT, exit_code=1) == RESULT
    lies = seen(result=RESULT, violation="two results", error=failure(), launcher_lost=True)
    assert lies == Failure(kind="protocol", message="two results")
    assert seen(error=failure("bad_data"), launcher_lost=True, number=signal.SIGSEGV) == failure("bad_data")
    assert kind_of(seen(launcher_lost=True, number=signal.SIGKILL)) == "launcher_lost"
    assert kind_of(seen(exit_code=-9, number=signal.SIGKILL)) == "killed"
    assert seen(exit_code=3) == Failure(
        kind="exited", message="the process exited with code 3 before it reported a result"
    )
    assert kind_of(seen(exit_code=0)) == "exited"
    assert kind_of(seen()) == "exited"


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS"])
def test_crashes(number: str) -> None:
    ending = seen(number=signal.Signals[number])
    assert ending == Failure(kind="crashed", message=f"the process crashed ({number})", cause=number)


@pytest.mark.parametrize("log", [ABORTED, UNCAUGHT])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("device_memory", "out of memory"),
        ("device_lost", "CUDA-capable device(s) is/are busy or unavailable"),
        ("device_lost", "all CUDA-capable devices are busy or unavailable"),
        ("device_lost", "no CUDA-capable device is detected"),
        ("device_lost", "uncorrectable ECC error encountered"),
        ("crashed", "an illegal memory access was encountered"),
    ],
)
def test_an_aborted_process_left_its_reason_in_its_log(log: str, kind: FailureKind, words: str) -> None:
    ending = seen(number=signal.SIGABRT, on_cpu=False, log_end=log.format(words))
    assert isinstance(ending, Failure)
    assert (ending.kind, ending.cause) == (kind, "SIGABRT")
    assert ending.message == f"the process crashed (SIGABRT): [CUDA] {words}"


def test_only_an_abort_leaves_a_reason_and_on_the_processors_no_device_is_to_blame() -> None:
    log = ABORTED.format("out of memory")
    assert kind_of(seen(number=signal.SIGSEGV, on_cpu=False, log_end=log)) == "crashed"
    assert kind_of(seen(number=signal.SIGABRT, log_end=log)) == "memory"
    assert kind_of(seen(number=signal.SIGABRT, log_end=ABORTED.format("no CUDA-capable device"))) == "crashed"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", None),
        ("free(): invalid pointer\n", None),
        ("[LightGBM] [Warning] out of memory soon\n", None),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
            "std::bad_alloc",
        ),
        ("terminate called after throwing an instance of 'int'\n", "int"),
        ("terminate called after throwing an instance of 'A'\nFatal Python error: Aborted\n", "A"),
        (
            "[LightGBM] [Fatal] Check failed: (n) > (0) at /src/bin.cpp, line 17 .\n",
            "Check failed: (n) > (0) at /src/bin.cpp, line 17 .",
        ),
    ],
)
def test_last_words(log: str, words: str | None) -> None:
    assert last_words(log) == words


def test_the_last_traceback_of_a_log() -> None:
    first, second = ("Traceback (most recent call last):\n  File 'a', line 1\n" + words for words in ("A: 1", "B: 2"))
    crash = "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n  File 'a', line 2 in f\n"
    assert last_traceback("(no log)") == last_traceback("") == ""
    assert last_traceback(f"{first}\nsays\n{second}\nand more") == second
    assert last_traceback(f"{first}\n{second}\n{crash}") == crash


def test_other_signals() -> None:
    for number, name in ((signal.SIGTERM, "SIGTERM"), (63, "signal 63")):
        assert seen(number=number) == Failure(kind="killed", message=f"the process was killed ({name})", cause=name)


@pytest.mark.parametrize(
    ("killer", "kind", "message"),
    [
        ("kernel", "host_memory", "out of host memory: the kernel killed the process"),
        ("gpusched", "killed", "the process was killed (SIGKILL, by gpusched)"),
        ("somebody", "killed", "the process was killed (SIGKILL, not by gpusched)"),
        (
            "unknown",
            "killed",
            "the process was killed (SIGKILL, perhaps by the kernel, which does this when memory runs out)",
        ),
    ],
)
def test_who_killed_it(killer: Killer, kind: FailureKind, message: str) -> None:
    cause = "" if killer == "kernel" else "SIGKILL"
    assert seen(number=signal.SIGKILL, killer=killer) == Failure(kind=kind, message=message, cause=cause)
    assert kind_of(seen(number=signal.SIGTERM, killer=killer)) == "killed"


@pytest.mark.parametrize("limited", [True, False])
def test_memory_that_ran_out_was_the_hosts_unless_the_window_had_a_limit(limited: bool) -> None:
    error = Failure(kind="memory", message="MemoryError: 1 TiB", traceback="Traceback …")
    host = Failure(kind="host_memory", message="out of host memory: MemoryError: 1 TiB", traceback="Traceback …")
    assert seen(error=error, exit_code=1, memory_limited=limited) == (error if limited else host)
    aborted = seen(number=signal.SIGABRT, log_end=UNCAUGHT.format("std::bad_alloc"), memory_limited=limited)
    assert kind_of(aborted) == ("memory" if limited else "host_memory")


def test_memory_that_ran_out_is_the_windows_own_doing_once_it_had_all_of_it() -> None:
    verdicts = [
        judge(failure("host_memory"), failures=n, losses=MAX_LOSSES, limits=LIMITS, alone=True) for n in (1, 2, 3)
    ]
    assert verdicts == [Retry(1.5), Retry(3.0), Failed(failure=failure("host_memory"))]
