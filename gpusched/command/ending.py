"""The end of a program: a result, or the reason why there is none.

A program that reports a JSON object on its result descriptor says so itself; else its exit code counts, and
`metrics.json` in its directory has the metrics. Python's argparse ends with 2 for wrong arguments, and interpreters end
with it for scripts that they cannot run, as make does after a recipe that failed, which would mean "no data": where the
output ends with their messages, the window has failed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

import msgspec

from gpusched.command.process import MAX_RESULT_BYTES, Ended
from gpusched.command.schema import ExitCodes
from gpusched.core.failures import TRACEBACK, kind_of_words
from gpusched.workload import DeviceType, ProgramFailed, ProgramFault, ProgramKilled, ProgramSkipped

METRICS = "metrics.json"
#: the code that argparse, click and interpreters end with where nothing of the program has run
_NOT_RUN = 2
#: their usage messages, `Usage: train.py [OPTIONS]`, by which `-h` would begin as well
_USAGE = re.compile(r" *usage:\s+\S.*[\[<]", re.IGNORECASE)
#: the line in which Python, Perl or a shell says that it cannot run a script
_NO_SCRIPT = re.compile(
    r"\S*(python|pypy)[\d.]*t?: can't open file |Can't open perl script |\S*sh: 0: |\S+: (line )?\d+: syntax error",
    re.IGNORECASE,
)
#: the line with which make, Go, OCaml or Perl's `die` report a failure, which end with that code, too; make's does not
#: count if it says that the program which make called has ended with 2
_CRASHED = re.compile(
    r"g?make(\[\d+\])?: \*\*\* (?!.*Error 2$)|panic: |fatal error: .*|Fatal error: exception |(?=.* at \S+ line \d+\.$)"
)
#: the last lines of an output, among which these are looked for: a usage message may list many options
_LAST_LINES = 30
_OUTPUT_BYTES = 32 * 1024
_MOST_CHARS = 400
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|\x1b\[[0-9;]*[A-Za-z]")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a program: its result, or one of `skip` and `error`."""

    metrics: dict[str, Any] = {}
    sample_counts: dict[str, int] = {}
    #: further entries for metadata.json
    metadata: dict[str, Any] = {}
    #: why there is nothing to train on
    skip: str | None = None
    #: why it has failed
    error: str | None = None
    #: whether another attempt can help
    retry: bool = True


def judge(ended: Ended, codes: ExitCodes, directory: Path, name: str, device_type: DeviceType) -> Report:
    """The result of a program that has ended. Raises ProgramSkipped, ProgramFailed, ProgramKilled."""
    output = end_of_output()
    if ended.not_started:
        raise ProgramFailed(f"{name} cannot be started: {ended.not_started}", "permanent")
    if ended.stopped:
        raise ProgramKilled(signal.SIGTERM)
    if ended.report:
        report = _parsed(ended.report, f"the report of {name}", output)
        if report.skip is not None:
            raise ProgramSkipped(report.skip, output)
        if report.error is not None:
            raise ProgramFailed(f"{name}: {report.error}", _kind(report.error, device_type, report.retry), output)
    if ended.signal is not None:
        raise ProgramKilled(ended.signal)
    assert ended.exit_code is not None
    if ended.exit_code not in codes.success:
        raise _failure(ended.exit_code, codes, name, output, device_type)
    return report if ended.report else _from_directory(directory, output)


def end_of_output() -> str:
    """The end of this process's log, which has the program's output; empty if it is not a file."""
    try:
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return ""
        with Path("/proc/self/fd/2").open("rb") as file:
            file.seek(max(0, os.fstat(2).st_size - _OUTPUT_BYTES))
            return _CONTROL.sub("", file.read(_OUTPUT_BYTES).decode(errors="replace"))
    except OSError:
        return ""


def _telling_line(output: str) -> str:
    """The line of an output that says best how it ended: the exception of its last traceback, else its last line."""
    exceptions, lines = TRACEBACK.findall(output), _last_lines(output)
    return str(exceptions[-1] if exceptions else lines[-1] if lines else "").strip()[:_MOST_CHARS]


def _last_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.strip()][-_LAST_LINES:]


def _failure(code: int, codes: ExitCodes, name: str, output: str, device_type: DeviceType) -> Exception:
    """The error for an exit code that is no success."""
    words = _telling_line(output)
    because = f": {words}" if words else ""
    if code in codes.skip:
        if code == _NOT_RUN and (why := _why_not_run(output, words)):
            return ProgramFailed(f"{why}; command.exit_codes has 2 for no data)", "permanent", output)
        if code != _NOT_RUN or not _has_crashed(output):
            return ProgramSkipped(words or f"{name} exited with code {code}", output)
    kind = _kind(words, device_type, code not in codes.permanent)
    return ProgramFailed(f"{name} exited with code {code}{because}", kind, output)


def _why_not_run(output: str, words: str) -> str:
    """The message of an argument parser or of an interpreter that an output ends with; empty if it ends with none."""
    lines = _last_lines(output)
    if refused := next(filter(_NO_SCRIPT.match, lines[-2:]), ""):
        return f"{refused.strip()[:_MOST_CHARS]} (interpreters end with 2 for what they cannot run"
    if any(map(_USAGE.match, lines)):
        return f"{words} (argparse ends with 2 for wrong arguments"
    return ""


def _has_crashed(output: str) -> bool:
    lines = _last_lines(output)
    is_go = any(line.startswith("goroutine ") for line in lines)
    return any(map(_CRASHED.match, lines if is_go else lines[-4:]))


def _kind(words: str, device_type: DeviceType, retry: bool) -> ProgramFault:
    if not retry:
        return "permanent"
    if "MemoryError" in words.partition(":")[0]:
        return "memory"
    return kind_of_words(words, on_cpu=device_type == "cpu") or "exited"


def _from_directory(directory: Path, output: str) -> Report:
    """A result with the metrics in `metrics.json`, if there are any."""
    path = directory / METRICS
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # there is none, or a link, which the commit refuses
        return Report()
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MAX_RESULT_BYTES + 1)
    return Report(metrics=_object(text, METRICS, output))


def _parsed(text: bytes, what: str, output: str) -> Report:
    """A report: an object with the keys of `Report`, or one of metrics only."""
    values = _object(text, what, output)
    report_keys = sorted(values.keys() & set(Report.__struct_fields__))
    if not report_keys:
        return Report(metrics=values)
    if other := sorted(values.keys() - set(report_keys)):
        raise ProgramFailed(f"{what} has {other[0]!r} beside {report_keys[0]!r}", "permanent", output)
    try:
        return msgspec.convert(values, Report)
    except msgspec.ValidationError as error:
        raise ProgramFailed(f"{what} is not one: {error}", "permanent", output) from None


def _object(text: bytes, what: str, output: str) -> dict[str, Any]:
    """A JSON object; NaN and infinities, which JSON lacks, become None."""
    why = ""
    if len(text) > MAX_RESULT_BYTES:
        why = f"it is longer than {MAX_RESULT_BYTES >> 20} MiB"
    else:
        try:
            value = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            why = str(error)
        else:
            if isinstance(value, dict):
                return value
            why = f"it is {type(value).__name__}"
    raise ProgramFailed(f"{what} is not a JSON object: {why}", "permanent", output)
