"""Placeholders in the arguments of a command: `{symbol}`, `{start:%Y%m%d}`, `{param.depth}`, and `{{` for a brace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from gpusched.errors import did_you_mean
from gpusched.workload import BadParameters, Task

#: name → what it stands for
KNOWN = {
    "symbol": "the symbol",
    "start": "the first day, 2022-01-01; {start:%Y%m%d} writes it as strftime does",
    "end": "the last day",
    "output_dir": "the directory for the files of this window, which is there and empty",
    "label": "the window's name, AAPL_2022-01-01_to_2022-06-29",
    "threads": "threads that the program may use",
    "device": "cpu, gpu or cuda, as the slot has it",
    "data_root": "the directory of --data-root",
}
#: prefix of the parameters of a sweep
PARAMETER = "param."
_DATES = ("start", "end")


def check(arguments: tuple[str, ...]) -> None:
    """Raise BadParameters for a placeholder that is unknown, or a brace without its partner."""
    for argument in arguments:
        for field, spec in _fields(argument):
            if field in KNOWN or (field.startswith(PARAMETER) and field != PARAMETER):
                if spec and field not in _DATES:
                    raise BadParameters(f"{{{field}:{spec}}} in {argument!r}: only dates take a format")
                continue
            if not field:
                raise BadParameters(f"{argument!r} has an empty placeholder; {{{{ and }}}} write braces")
            near = did_you_mean(field, KNOWN) or f" (there are {', '.join(KNOWN)}; {{{{ and }}}} write braces)"
            raise BadParameters(f"there is no placeholder {{{field}}}{near}")


def used(arguments: tuple[str, ...]) -> set[str]:
    """The names of the placeholders in checked arguments."""
    return {field for argument in arguments for field, _ in _fields(argument)}


def fill(arguments: tuple[str, ...], values: Mapping[str, Any]) -> list[str]:
    """The checked arguments with `values` in the place of their placeholders."""
    return ["".join(_filled(argument, values)) for argument in arguments]


def require_parameters(arguments: tuple[str, ...], parameters: Mapping[str, Any]) -> None:
    """Raise BadParameters for a `{param.NAME}` without a value."""
    for field in sorted(used(arguments)):
        name = field.removeprefix(PARAMETER)
        if name != field and name not in parameters:
            raise BadParameters(f"{{{field}}} has no value: give it with --param {name}=…")


def values(task: Task, output_dir: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all placeholders for a window."""
    return {f"{PARAMETER}{name}": value for name, value in parameters.items()} | {
        "symbol": task.symbol,
        "start": task.start,
        "end": task.end,
        "output_dir": output_dir,
        "label": task.label,
        "threads": task.threads,
        "device": task.device_type,
        "data_root": task.data_root,
    }


def _filled(argument: str, values: Mapping[str, Any]) -> Iterator[str]:
    for literal, field, spec, _ in _parsed(argument):
        yield literal
        if field is not None:
            yield format(values[field], spec or "")


def _fields(argument: str) -> Iterator[tuple[str, str]]:
    for _, field, spec, conversion in _parsed(argument):
        if field is not None:
            if conversion:
                raise BadParameters(f"{{{field}!{conversion}}} in {argument!r}: a placeholder takes no conversion")
            yield field, spec or ""


def _parsed(argument: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(argument))
    except ValueError as error:
        raise BadParameters(f"{argument!r}: {error}; {{{{ and }}}} write braces") from None
