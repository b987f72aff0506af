"""The settings of a workload: made and checked by the workload's own functions, in a process forked for that."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import msgspec

from gpusched.errors import did_you_mean, reworded
from gpusched.worker.loading import WorkloadFunction, load_function, load_module
from gpusched.worker.messages import SettingsChecked, SettingsJob
from gpusched.worker.stream import Stream, encodable, words
from gpusched.workload import BadParameters

#: characters of a refusal, and refusals that are sent
MOST_CHARS = 1000
MOST_REFUSALS = 20


def made_settings(workload: str, raw: Any) -> Any:
    """The settings that the workload gets: `raw`, or what its `settings` makes of that. Raises BadParameters."""
    make = getattr(load_module(workload), "settings", None)
    if not callable(make):
        return raw
    try:
        return _converted(raw, make) if isinstance(make, type) else make(raw)
    except BadParameters:
        raise
    except (ValueError, TypeError, KeyError) as error:  # in the words of the workload, of msgspec or of Python
        text = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
        raise BadParameters(text) from error


def plain_settings(settings: Any) -> Any:
    """Settings as JSON has them, for metadata and fingerprints; of an object its attributes."""
    # msgspec leaves out the fields of a dataclass that were not given to it.
    fields = getattr(settings, "__dataclass_fields__", None)
    return msgspec.to_builtins(
        settings if fields is None else {name: getattr(settings, name) for name in fields}, enc_hook=_plain
    )


def serve(job: SettingsJob, stream: Stream) -> int:
    """Check settings for the supervisor at the other end of `stream`; return the exit code."""
    refusals: dict[int, str] = {}
    for number, raw in enumerate(job.settings):
        try:
            _check(job.workload, raw)
        except Exception as error:  # a workload can raise anything, and its windows would fail, too
            traceback.print_exc(file=sys.stderr)
            why = words(error) if isinstance(error, BadParameters) else f"{type(error).__name__}: {words(error)}"
            refusals[number] = encodable(why[:MOST_CHARS])
            if len(refusals) == MOST_REFUSALS:
                break
    stream.send(SettingsChecked(refusals=refusals))
    return 0


def _check(workload: str, raw: Any) -> None:
    _require_parameters(workload, load_function(workload))
    settings = made_settings(workload, raw)
    check = getattr(load_module(workload), "check_settings", None)
    if callable(check):
        check(settings)
    try:
        plain_settings(settings)
    except (TypeError, NotImplementedError) as error:
        raise BadParameters(f"the settings cannot be recorded: {error}") from error


def _require_parameters(workload: str, function: WorkloadFunction) -> None:
    import inspect  # neither launchers nor windows need it

    try:
        inspect.signature(function).bind("task", "directory", "report")
    except TypeError as error:
        raise BadParameters(f"workload {workload!r} cannot take (task, directory, report): {error}") from None
    except ValueError:
        pass  # it does not tell its parameters, as many in C


def _converted(raw: Mapping[str, Any], type_: type[Any]) -> Any:
    """Convert settings to a dataclass or a msgspec.Struct, which would ignore keys that it does not know."""
    import dataclasses  # few workloads come to this

    if dataclasses.is_dataclass(type_):
        names: Sequence[str] = [field.name for field in dataclasses.fields(type_)]
    elif issubclass(type_, msgspec.Struct):
        names = type_.__struct_fields__
    else:
        return type_(raw)
    for name in raw:
        if name not in names:
            raise BadParameters(f"there is no setting {name!r}{did_you_mean(name, names)}")
    try:
        return msgspec.convert(raw, type_, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise BadParameters(reworded(error)) from None


def _path(type_: type[Any], value: object) -> Path:
    if issubclass(type_, PurePath) and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{type_.__name__}`, got `{type(value).__name__}`")


def _plain(value: object) -> Any:
    to_list = getattr(value, "tolist", None)  # numpy's scalars and arrays
    return to_list() if to_list is not None else vars(value) if hasattr(value, "__dict__") else str(value)
