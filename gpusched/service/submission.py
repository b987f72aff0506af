"""The checks of a submission by itself, before anything is looked at.

A client is trusted to use the machine, not to behave well: a batch that could leave a root, repeat a window or break
the store is refused here.
"""

from __future__ import annotations

from typing import Any

from gpusched.command import WORKLOAD as COMMAND
from gpusched.command.schema import parse_settings
from gpusched.config.batch import term_problem
from gpusched.config.schema import Windows, bounds
from gpusched.core import planning
from gpusched.core.entry_point import entry_point
from gpusched.core.model import BatchSpec
from gpusched.core.points import points_problem
from gpusched.core.symbols import symbol_problem
from gpusched.errors import InputError
from gpusched.protocol import Submit
from gpusched.workload import BadParameters

#: windows of a batch: all of them are kept in memory, about 2 KB each
MAX_WINDOWS = 200_000
#: levels of objects and lists in a workload's settings
MAX_DEPTH = 16
#: the smallest log limit: a log cut to less would only consist of the mark of the cut
LEAST_LOG_BYTES = 64 * 1024


class BadSubmission(InputError):
    problem = "this batch cannot be accepted: {why}"
    remedy = "correct it and submit it again"


def check(request: Submit) -> None:
    """Raise BadSubmission for a request that could leave a root, break the store or never end."""
    why = _why_not(request)
    if why is not None:
        raise BadSubmission(why=why)


def _why_not(request: Submit) -> str | None:
    spec = request.spec
    if request.name is not None and (problem := planning.name_problem(request.name)):
        return f"its name {request.name[:100]!r} is not one: {problem}"
    data_root = None if spec.workload == COMMAND and not spec.data_root else spec.data_root
    for role, path in (("data root", data_root), ("output directory", request.output_dir)):
        if path is not None and (not path.startswith("/") or ".." in path.split("/") or "\0" in path):
            return f"its {role} {path[:200]!r} is not an absolute path"
    if not spec.symbols:
        return "it has no symbols"
    for symbol in spec.symbols:
        if problem := symbol_problem(symbol):
            return f"{symbol[:100]!r} is not a symbol: {problem}"
    if len(set(spec.symbols)) < len(spec.symbols):
        return "it names a symbol twice"
    if entry_point(spec.workload) is None:
        return f"its workload {spec.workload[:200]!r} is not of the form package.module:function"
    if problem := points_problem(spec.points) or _problem_of_windows(spec):
        return problem
    if _deeper_than(spec.settings, MAX_DEPTH) or _deeper_than(spec.points, MAX_DEPTH):
        return f"its settings are nested more than {MAX_DEPTH} levels deep"
    return _command_problem(spec) or _out_of_range(spec)


def _problem_of_windows(spec: BatchSpec) -> str | None:
    least, most = bounds(Windows, "days")
    if not least <= spec.window_days <= most:
        return f"a window must have one day at least, and {most:,} days at most"
    if not 0 <= spec.stride_days <= most:
        return f"a stride has {most:,} days at most"
    if planning.most_windows(spec) > MAX_WINDOWS:
        return f"it has more than {MAX_WINDOWS:,} windows"
    if spec.windows:
        return planning.windows_problem(spec)
    return None if planning.ranges_of(spec) else f"there is no window between {spec.start} and {spec.end}"


def _command_problem(spec: BatchSpec) -> str | None:
    """The reason why the settings of a command cannot be used, or None."""
    if spec.workload == COMMAND:
        try:
            parse_settings(spec.settings)
        except BadParameters as error:
            return str(error)
    return None


def check_terms(spec: BatchSpec) -> None:
    """Raise BadSubmission for limits, a priority or a number of workers that cannot be."""
    if why := _out_of_range(spec):
        raise BadSubmission(why=why)


def _out_of_range(spec: BatchSpec) -> str | None:
    if 0 < spec.limits.log_limit_bytes < LEAST_LOG_BYTES:
        return f"log_limit_bytes is out of range: 0, or at least {LEAST_LOG_BYTES:,}"
    return term_problem(spec)


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether JSON data is nested deeper than `levels`."""
    inside = [value]
    for _ in range(levels):
        inside = [
            item
            for container in inside
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return any(isinstance(item, dict | list) for item in inside)
