"""Failures: the causes of attempts' ends, and whether another attempt can help. Pure tables and functions."""

from __future__ import annotations

import re
import signal as signals
from typing import Literal

import msgspec

from gpusched.core.model import Limits, WindowResult
from gpusched.core.states import (
    Ending,
    Failed,
    Failure,
    FailureKind,
    Finished,
    Lost,
    Outcome,
    Reused,
    Skipped,
    State,
    StopReason,
    Succeeded,
    TimedOut,
)

#: kinds of failure that can be recognised in a library's error message
ToldKind = Literal["memory", "device_memory", "device_lost"]

#: attempts that may end by no fault of the window before it counts as lost
MAX_LOSSES = 10


class Treatment(msgspec.Struct, frozen=True):
    """The consequences of a kind of failure."""

    #: another attempt can help
    retry: bool
    #: it is the window's own fault, so it uses up one of `Limits.max_attempts`
    counts: bool = True


TREATMENTS: dict[FailureKind, Treatment] = {
    # The same data, parameters or limit would fail in the same way.
    "no_data": Treatment(retry=False),
    "bad_data": Treatment(retry=False),
    "bad_parameters": Treatment(retry=False),
    "memory": Treatment(retry=False),
    # The program says so, or leaves what cannot be committed.
    "permanent": Treatment(retry=False),
    # The cause may have been temporary.
    "raised": Treatment(retry=True),
    "exited": Treatment(retry=True),
    "killed": Treatment(retry=True),
    "crashed": Treatment(retry=True),
    "protocol": Treatment(retry=True),
    "timed_out": Treatment(retry=True),
    # Not the window's fault: another device or a later attempt can help.
    "host_memory": Treatment(retry=True, counts=False),
    "device_memory": Treatment(retry=True, counts=False),
    "device_mismatch": Treatment(retry=True, counts=False),
    "device_lost": Treatment(retry=True, counts=False),
    "node_lost": Treatment(retry=True, counts=False),
    "launch_refused": Treatment(retry=True, counts=False),
    "launcher_lost": Treatment(retry=True, counts=False),
    "interrupted": Treatment(retry=True, counts=False),
    # The result was committed, but is gone at the end of the batch: it may have been removed on purpose.
    "missing": Treatment(retry=False, counts=False),
}

#: signals that indicate a fault of the program itself
CRASHES = {signals.SIGSEGV, signals.SIGBUS, signals.SIGILL, signals.SIGFPE, signals.SIGABRT, signals.SIGSYS}


#: the sender of SIGKILL: gpusched, the kernel because memory ran out, or somebody else; "unknown": it counts no kills
Killer = Literal["gpusched", "kernel", "somebody", "unknown"]
_KILLERS: dict[Killer, str] = {
    "gpusched": ", by gpusched",
    "somebody": ", not by gpusched",
    "unknown": ", perhaps by the kernel, which does this when memory runs out",
}
# Error messages of CUDA's runtime and of OpenCL (whose codes Boost.Compute in LightGBM spells out), in lower case.
_DEVICE_MEMORY = (
    "out of memory",
    "memory object allocation failure",
    "cl_mem_object_allocation_failure",
    "out of resources",
    "bad allocation",
)
_DEVICE_LOST = (
    # another process uses a card in exclusive mode: none of ours can, however long it waits
    "devices are busy or unavailable",
    "device(s) is/are busy or unavailable",
    "no cuda-capable device",
    "uncorrectable ecc error",
    "no opencl device found",
    "device not available",
    "device not found",
)
_HOST_MEMORY = ("std::bad_alloc", "cannot allocate memory", "out of host memory")

#: a traceback of Python's; its group is the line of the exception
TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)", re.MULTILINE)
#: the first words of faulthandler in a crash
_CRASH = "Fatal Python error: "
#: LightGBM's report of an exception; for errors of CUDA, a place in its sources follows, which no reader needs
_FATAL = re.compile(r"^\[LightGBM\] \[Fatal\] (.+?)(?: \S*/\S+ \d+)?\s*$", re.MULTILINE)
#: the C++ runtime's report of an uncaught exception: its type, and its message if it has one
_UNCAUGHT = re.compile(
    r"^terminate called after throwing an instance of '(.+)'$(?:\n\s*what\(\):\s+(.+?)(?: \S*/\S+ \d+)?\s*$)?",
    re.MULTILINE,
)


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a process, and its circumstances."""

    launcher_lost: bool = False
    exit_code: int | None = None
    signal: int | None = None
    #: the sender of the SIGKILL that the process died of, if it did
    killer: Killer = "unknown"
    on_cpu: bool = True
    #: a limit allowed it less memory than the machine has: it ran out of its limit, not of the host's memory
    memory_limited: bool = False
    #: the end of its log, where a crash or an exit leaves its reason
    log_end: str = ""


class Retry(msgspec.Struct, frozen=True):
    """Launch again, not before `delay_s` seconds from now."""

    delay_s: float


def classify(*, result: WindowResult | None, error: Failure | None, violation: str | None, exit: Exit) -> Ending:
    """Derive the ending of an attempt from the messages and the exit of its process.

    A committed result takes precedence over everything that happened after it. `error` is the workload's own report,
    `violation` a breach of the protocol on its pipe.
    """
    if result is not None and violation is None:
        return result
    if violation is not None:
        return Failure(kind="protocol", message=violation)
    failure = _failure_of(exit) if error is None else error
    if failure.kind == "memory" and not exit.memory_limited:
        return out_of_host_memory(failure.message, failure.traceback)
    return failure


def out_of_host_memory(how: str, traceback: str = "") -> Failure:
    """The failure of an attempt for which the host had no more memory."""
    return Failure(kind="host_memory", message=f"out of host memory: {how}", traceback=traceback)


def _failure_of(exit: Exit) -> Failure:
    if exit.launcher_lost:
        return Failure(kind="launcher_lost", message="the launcher died, and the window with it")
    if exit.signal is None:
        message = f"the process exited with code {exit.exit_code} before it reported a result"
        return Failure(kind="exited", message=message, traceback=last_traceback(exit.log_end))
    name = _signal_name(exit.signal)
    if exit.signal in CRASHES:
        words = last_words(exit.log_end) if exit.signal == signals.SIGABRT else None
        return _crash(name, words, last_traceback(exit.log_end), on_cpu=exit.on_cpu)
    if exit.signal != signals.SIGKILL:
        return Failure(kind="killed", message=f"the process was killed ({name})", cause=name)
    if exit.killer == "kernel":
        return out_of_host_memory("the kernel killed the process")
    return Failure(kind="killed", message=f"the process was killed ({name}{_KILLERS[exit.killer]})", cause=name)


def kind_of_words(text: str, *, on_cpu: bool) -> ToldKind | None:
    """The kind of failure that an error message of CUDA, OpenCL or the C++ library means; None: not recognised.

    On the CPU there is only the host's memory, and no device to lose.
    """
    text = text.lower()
    if any(sign in text for sign in _HOST_MEMORY):
        return "memory"
    if any(sign in text for sign in _DEVICE_MEMORY):
        return "memory" if on_cpu else "device_memory"
    if not on_cpu and any(sign in text for sign in _DEVICE_LOST):
        return "device_lost"
    return None


def last_words(log: str) -> str | None:
    """The reason why a process aborted itself, from the end of its log; None if the log has none.

    LightGBM's first report is the cause. The C++ runtime's last line may be about a destructor that threw while
    LightGBM's exception was propagating.
    """
    fatal = _FATAL.search(log)
    if fatal is not None:
        return fatal[1]
    uncaught = _UNCAUGHT.search(log)
    return None if uncaught is None else uncaught[2] or uncaught[1]


def last_traceback(log: str) -> str:
    """The last traceback in a log, or the stacks that faulthandler has written in a crash; empty if there is none."""
    crash = log.rfind(_CRASH)
    if crash >= 0:
        return log[crash:]
    return next((found[0] for found in reversed([*TRACEBACK.finditer(log)])), "")


def _crash(name: str, words: str | None, traceback: str, *, on_cpu: bool) -> Failure:
    message = f"the process crashed ({name})"
    if words is None:
        return Failure(kind="crashed", message=message, traceback=traceback, cause=name)
    kind = kind_of_words(words, on_cpu=on_cpu) or "crashed"
    return Failure(kind=kind, message=f"{message}: {words}", traceback=traceback, cause=name)


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def backoff(limits: Limits, failures: int) -> float:
    """Seconds to wait after failure number `failures` (from 1): doubled each time, up to the limit."""
    return float(min(limits.backoff_s * 2.0 ** min(failures - 1, 30), limits.backoff_max_s))


def is_own(failure: Failure, *, alone: bool) -> bool:
    """Whether a failure is the window's own fault. `alone`: it had the host's memory to itself."""
    return TREATMENTS[failure.kind].counts or (failure.kind == "host_memory" and alone)


def judge(
    failure: Failure, *, failures: int, losses: int, limits: Limits, alone: bool = False, last_place: str = ""
) -> Retry | Outcome:
    """Try again or give up. `failures` counts those by the window's own fault, `losses` the others, with this one.

    `last_place` is the place of the last attempt's exception: the same one twice would come a third time.
    """
    treatment, own = TREATMENTS[failure.kind], is_own(failure, alone=alone)
    again = bool(failure.place) and failure.place == last_place
    if treatment.retry and own and failures < limits.max_attempts and not again:
        return Retry(backoff(limits, failures))
    if treatment.retry and not own:
        if losses >= MAX_LOSSES:
            return Lost(failure=failure)
        # The first loss goes back at once: nothing suggests that the next slot has a problem, too.
        return Retry(backoff(limits, losses - 1) if losses > 1 else 0.0)
    if failure.kind == "no_data":
        return Skipped(reason=failure.message)
    if failure.kind == "timed_out":
        return TimedOut(seconds=limits.timeout_s)
    return Failed(failure=failure)


def trained(result: WindowResult) -> str:
    """The reason of a success, for the window's story."""
    reason = "trained"
    if result.changed:
        reason += "; its code or data had changed since the batch was planned"
    if result.moved_aside is not None:
        reason += f"; its place was taken by something that is not a result, now moved aside to {result.moved_aside}"
    return reason


def stopped(reason: StopReason, timeout_s: float, ending: Failure) -> Failure:
    """The failure of an attempt that was told to end: the reason for stopping it, not the signal it died of."""
    if reason == "timed_out":
        return Failure(kind="timed_out", message=f"stopped after {timeout_s:g} s", traceback=ending.traceback)
    return Failure(kind="interrupted", message="stopped by the supervisor", traceback=ending.traceback)


def missed(state: State) -> Finished | None:
    """The new state of a finished window whose result is gone; None for a window that had no result."""
    match state:
        case Finished(attempts=attempts, outcome=Succeeded(result=result) | Reused(result=result)):
            message = f"its result was committed to {result.artifacts_path}, but is no longer there"
            return Finished(attempts=attempts, outcome=Lost(failure=Failure(kind="missing", message=message)))
        case _:
            return None
