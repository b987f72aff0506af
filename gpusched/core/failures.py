"""Failures: what the facts of an attempt's end mean, and whether trying again can help. Pure tables and functions."""

from __future__ import annotations

import re
import signal as signals

import msgspec

from gpusched.core.model import (
    Ending,
    Failed,
    Failure,
    FailureKind,
    Limits,
    Lost,
    Outcome,
    Skipped,
    TimedOut,
    WindowResult,
)

#: attempts that may end through no fault of the window before it counts as lost
MAX_LOSSES = 10


class Treatment(msgspec.Struct, frozen=True):
    """What a kind of failure leads to."""

    #: trying again can help
    retry: bool
    #: it was the window's own doing, so it uses up one of `Limits.max_attempts`
    counts: bool = True


TREATMENTS: dict[FailureKind, Treatment] = {
    # The same data, parameters or limit would fail in the same way.
    "no_data": Treatment(retry=False),
    "bad_data": Treatment(retry=False),
    "bad_parameters": Treatment(retry=False),
    "memory": Treatment(retry=False),
    # Something of the moment may have caused these.
    "raised": Treatment(retry=True),
    "exited": Treatment(retry=True),
    "killed": Treatment(retry=True),
    "crashed": Treatment(retry=True),
    "protocol": Treatment(retry=True),
    "timed_out": Treatment(retry=True),
    # Helped by another place or time, and not by what the window does.
    "device_memory": Treatment(retry=True, counts=False),
    "device_mismatch": Treatment(retry=True, counts=False),
    "device_lost": Treatment(retry=True, counts=False),
    "launch_refused": Treatment(retry=True, counts=False),
    "launcher_lost": Treatment(retry=True, counts=False),
    "interrupted": Treatment(retry=True, counts=False),
}

#: signals that mean that the program itself went wrong
_CRASHES = {signals.SIGSEGV, signals.SIGBUS, signals.SIGILL, signals.SIGFPE, signals.SIGABRT, signals.SIGSYS}


class Retry(msgspec.Struct, frozen=True):
    """Launch again, not before `delay_s` seconds from now."""

    delay_s: float


def classify(
    *,
    result: WindowResult | None,
    error: Failure | None,
    violation: str | None,
    launcher_lost: bool,
    exit_code: int | None,
    signal: int | None,
) -> Ending:
    """The ending of an attempt from what was seen of its process.

    A committed result wins over everything that happened after it. `error` is what the workload itself reported,
    `violation` what its pipe carried that it must not.
    """
    if result is not None and violation is None:
        return result
    if violation is not None:
        return Failure(kind="protocol", message=violation)
    if error is not None:
        return error
    if launcher_lost:
        return Failure(kind="launcher_lost", message="the launcher died, and the window with it")
    if signal is not None:
        name = _signal_name(signal)
        if signal in _CRASHES:
            return Failure(kind="crashed", message=f"the process crashed ({name})")
        hint = "; the kernel does this when memory runs out" if signal == signals.SIGKILL else ""
        return Failure(kind="killed", message=f"the process was killed ({name}){hint}")
    return Failure(kind="exited", message=f"the process exited with code {exit_code} before it reported a result")


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def backoff(limits: Limits, failures: int) -> float:
    """Seconds to wait after the `failures`-th failure (from 1): doubled each time, up to the limit."""
    return float(min(limits.backoff_s * 2.0 ** min(failures - 1, 30), limits.backoff_max_s))


def judge(failure: Failure, *, failures: int, losses: int, limits: Limits) -> Retry | Outcome:
    """Try again or give up. `failures` and `losses` count this one: those of the window's own doing, and the others."""
    treatment = TREATMENTS[failure.kind]
    if treatment.retry and treatment.counts and failures < limits.max_attempts:
        return Retry(backoff(limits, failures))
    if treatment.retry and not treatment.counts:
        # The first goes back at once: nothing is known to be wrong with the next place.
        return (
            Retry(backoff(limits, losses - 1) if losses > 1 else 0.0) if losses < MAX_LOSSES else Lost(failure=failure)
        )
    if failure.kind == "no_data":
        return Skipped(reason=failure.message)
    if failure.kind == "timed_out":
        return TimedOut(seconds=limits.timeout_s)
    return Failed(failure=failure)


def signature(failure: Failure) -> str:
    """Equal for failures of the same cause: the kind, and the start of the message without its numbers and names."""
    return f"{failure.kind}: {re.sub(r'[^a-z]+', ' ', failure.message.partition(':')[0].lower())}".strip()
