"""The settings of a workload: the built-in one has sections of its own, commands have one, any other has `[workload]`.

`Task.settings` of a workload of the user's is its `[workload]` table as given: its own function checks it, in a process
forked for that. The built-in workload's is complete and has been checked when the configuration is loaded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gpusched.command import WORKLOAD as COMMAND
from gpusched.command.placeholders import PARAMETER, used
from gpusched.config.schema import BUILT_IN_WORKLOAD, LIGHTGBM, WORKLOAD, Config, keys
from gpusched.config.values import BadValue
from gpusched.core.model import BatchSpec
from gpusched.errors import did_you_mean
from gpusched.teacher.parameters import CANONICAL
from gpusched.teacher.schema import READING, parse_settings, written
from gpusched.workload import BadParameters

#: `section.key` → name in the settings of the built-in workload; LightGBM's parameters are a table in them
BUILT_IN_KEYS = {
    "data.interval": "interval",
    **{f"data.{name}": name for name in READING},
    "labels.horizon": "horizon",
    "labels.threshold": "threshold",
    "split.method": "split",
    "split.validation_fraction": "validation_fraction",
    "split.validation_days": "validation_days",
    "training.min_rows": "min_rows",
}

#: where no setting has been given
NO_ORIGINS: Mapping[str, str] = {}


def workload_settings(config: Config) -> dict[str, Any]:
    """The value of `Task.settings`. Raises BadParameters for settings that the built-in workload refuses."""
    if config.run.workload == COMMAND:
        return {}  # the command is looked up when a batch is asked for
    if config.run.workload != BUILT_IN_WORKLOAD:
        return config.workload
    settings = {name: _value(config, key) for key, name in BUILT_IN_KEYS.items()}
    return written(parse_settings(settings | {LIGHTGBM: config.lightgbm}))


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def is_of(workload: str, key: str) -> bool:
    """Whether `section.key` is a setting of this workload, and not of another one or of gpusched itself."""
    if workload == BUILT_IN_WORKLOAD:
        return key in BUILT_IN_KEYS or key.startswith(f"{LIGHTGBM}.")
    if workload == COMMAND:
        return key.startswith(("command.", PARAMETER))
    return key.startswith(f"{WORKLOAD}.")


def is_of_any(key: str) -> bool:
    """Whether `section.key` is a setting of some workload."""
    return key.startswith(f"{WORKLOAD}.") or is_of(BUILT_IN_WORKLOAD, key) or is_of(COMMAND, key)


def wrong_workload(workload: str, key: str) -> str:
    """The reason why `section.key` cannot be given for this workload."""
    if is_of(COMMAND, key):
        return f"it is a setting of commands: give one with --command, or behind `--`, or set run.workload to {COMMAND}"
    if workload == COMMAND:
        return "a command does not see it: write it into the command"
    if workload == BUILT_IN_WORKLOAD:
        return f"{workload} has no settings in [{WORKLOAD}]: name the workload that has with run.workload"
    return f"it is a setting of {BUILT_IN_WORKLOAD}, and not of {workload}, whose settings are {WORKLOAD}.KEY"


def with_parameters(workload: str, settings: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a batch with some of them replaced: `section.key` → value, such as `lightgbm.num_leaves` → 31.

    Raises BadValue for a key that is no setting of the workload, and for a value that the built-in one refuses. The
    values of other workloads are checked by `gpusched.supervisor.settings`.
    """
    for key in parameters:
        if not is_of(workload, key):
            raise BadValue(key=key, why=wrong_workload(workload, key) if is_of_any(key) else _unknown(workload, key))
    if workload == COMMAND:
        return _with_parameters_of_command(settings, parameters)
    if workload != BUILT_IN_WORKLOAD:
        return dict(settings) | {key.partition(".")[2]: value for key, value in parameters.items()}
    lightgbm, given = dict(settings[LIGHTGBM]), dict[str, Any]()
    for key, value in parameters.items():
        name = key.partition(".")[2]
        if key in BUILT_IN_KEYS:
            given[BUILT_IN_KEYS[key]] = value
        else:
            lightgbm[CANONICAL.get(name, name)] = value
    try:
        return written(parse_settings({**settings, **given, LIGHTGBM: lightgbm}))
    except BadParameters as error:
        raise refused(workload, str(error), dict.fromkeys(parameters, "")) from None


def settings_at(spec: BatchSpec, point: str) -> dict[str, Any]:
    """`Task.settings` of the windows at a point of a sweep, or of a batch without one. Raises BadValue."""
    if not point:
        return spec.settings
    return with_parameters(spec.workload, spec.settings, spec.points[point])


def _unknown(workload: str, key: str) -> str:
    """The reason why a key that no workload has cannot be a parameter."""
    if workload != BUILT_IN_WORKLOAD:
        example = f"{PARAMETER}depth" if workload == COMMAND else f"{WORKLOAD}.alpha"
        return f"it is not a setting of {workload}, as {example} is"
    if key in keys():
        return f"it is not a setting of {workload}, as {LIGHTGBM}.num_leaves is"
    names = [*BUILT_IN_KEYS, *(f"{LIGHTGBM}.{name}" for name in _defaults()[LIGHTGBM])]
    return f"there is no setting of that name{did_you_mean(key, names, cutoff=0.5)}"


def _with_parameters_of_command(settings: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command with other values of its `{param.NAME}`. Raises BadValue for any other setting."""
    for key in parameters:
        if not key.startswith(PARAMETER):
            raise BadValue(key=key, why="a sweep changes the {param.NAME} of a command, and nothing else of it")
        if key not in used(tuple(settings["argv"][1:])):
            raise BadValue(key=key, why=f"the command has no {{{key}}}, so every point would be the same")
    given = {key.removeprefix(PARAMETER): value for key, value in parameters.items()}
    return {**settings, "param": {**settings.get("param", {}), **given}}


def given_settings(workload: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a batch by `section.key`: all those of a user's workload, the built-in one's without defaults."""
    if workload == COMMAND:
        given = {f"{PARAMETER}{name}": value for name, value in settings.get("param", {}).items()}
        return {"command.line": shlex.join(settings["argv"])} | given
    if workload != BUILT_IN_WORKLOAD:
        return {f"{WORKLOAD}.{name}": value for name, value in settings.items()}
    defaults = _defaults()
    given = {key: settings.get(name, defaults[name]) for key, name in BUILT_IN_KEYS.items()}
    return {key: value for key, value in given.items() if value != defaults[BUILT_IN_KEYS[key]]} | {
        f"{LIGHTGBM}.{name}": value
        for name, value in settings.get(LIGHTGBM, {}).items()
        if name not in defaults[LIGHTGBM] or value != defaults[LIGHTGBM][name]
    }


def _defaults() -> dict[str, Any]:
    return msgspec.structs.asdict(parse_settings({}))


def origins_of(workload: str, origins: Mapping[str, str]) -> dict[str, str]:
    """The origins of a workload's settings, LightGBM's parameters by their canonical names."""
    return {canonical(key): origin for key, origin in origins.items() if is_of(workload, key)}


def canonical(key: str) -> str:
    """The one name of a setting: LightGBM's parameters have several, such as `eta` for `learning_rate`."""
    section, _, name = key.partition(".")
    return f"{section}.{CANONICAL.get(name, name)}" if section == LIGHTGBM else key


def refused(workload: str, why: str, origins: Mapping[str, str], names: Iterable[str] = ()) -> BadValue:
    """The error for settings that their workload refuses, with the setting that the reason is about and its origin.

    `origins`: `section.key` → where its value was given; `names`: further settings of the workload.
    """
    section = {BUILT_IN_WORKLOAD: LIGHTGBM, COMMAND: "command"}.get(workload, WORKLOAD)
    candidates = [*(key for key in origins if is_of(workload, key)), *(f"{section}.{name}" for name in names)]
    key = _named_first(why, candidates)
    return BadValue(place=origins.get(key or "") or None, key=key or section, why=why)


def _named_first(sentence: str, candidates: Iterable[str]) -> str | None:
    """The `section.key` whose key comes first in a sentence."""
    matches = {key: re.search(rf"(?<!\w){re.escape(key.partition('.')[2])}(?!\w)", sentence) for key in candidates}
    positions = {key: match.start() for key, match in matches.items() if match}
    return min(positions, key=lambda key: positions[key], default=None)
