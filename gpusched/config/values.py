"""The values of settings: from what a source says to a value of the type in the schema, or an error with its place."""

from __future__ import annotations

import datetime as dt
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from gpusched.config.schema import OPEN_SECTIONS, SECTIONS, Config
from gpusched.config.wording import wanted
from gpusched.core.entry_point import entry_point
from gpusched.errors import ConfigError
from gpusched.files import is_text


class BadValue(ConfigError):
    problem = "{key}: {why}"
    remedy = "`gpusched config` shows every setting and where its value comes from"


class Setting(Struct, frozen=True):
    """A value that was given, and its origin."""

    value: Any
    #: for people: `config.toml:12`, `GPUSCHED_RUN_OUTPUT`, `--set`
    origin: str
    #: the directory at which a relative path starts
    base: Path

    def refused(self, key: str, why: str) -> BadValue:
        """The error for a value that the setting `key` does not take."""
        return BadValue(place=self.origin, key=key, why=why)


def built(given: Mapping[str, Setting], cwd: Path) -> Config:
    """The configuration of what is given, and the defaults of all else. Raises BadValue."""
    for name, one in given.items():
        if isinstance(one.value, str) and not is_text(one.value):
            raise one.refused(name, f"expected UTF-8 text, got {one.value!r}")
    sections: dict[str, Any] = {}
    for section, struct in SECTIONS.items():
        hints = get_type_hints(struct, include_extras=True)
        defaults = struct()
        values = {}
        for key in struct.__struct_fields__:
            setting = given.get(f"{section}.{key}")
            if setting is None:
                value = getattr(defaults, key)
                if isinstance(value, Path) and not is_text(str(value)):  # of HOME or a variable of XDG
                    raise BadValue(key=f"{section}.{key}", why=f"the path is not UTF-8 text: {str(value)!r}")
                values[key] = cwd / value if isinstance(value, Path) else value
            else:
                values[key] = _convert(f"{section}.{key}", setting, hints[key])
        sections[section] = struct(**values)
    for section in OPEN_SECTIONS:
        settings = {key.partition(".")[2]: (key, one) for key, one in given.items() if key.startswith(f"{section}.")}
        sections[section] = {name: _open_value(key, one) for name, (key, one) in settings.items()}
    return Config(**sections)


def _open_value(key: str, setting: Setting) -> Any:
    """The value of a setting that a workload checks, as JSON has it: dates become text. Raises BadValue."""
    name = key.partition(".")[2]
    if "." in name:
        why = f"a workload's settings have one level, and a table is a value: {key.rpartition('.')[0]} = {{…}}"
        raise setting.refused(key, why)
    try:
        value = msgspec.to_builtins(_parsed(setting.value))
        json.dumps(value, allow_nan=False)
    except TypeError:
        why = f"expected a number, a text, a list or a table, got {setting.value!r}"
        raise setting.refused(key, why) from None
    except ValueError:
        why = f"expected a value without nan and inf, which have no place in metadata.json, got {setting.value!r}"
        raise setting.refused(key, why) from None
    return value


def _convert(key: str, setting: Setting, hint: Any) -> Any:
    if isinstance(setting.value, str) and setting.value[:1] in ("'", '"') and isinstance(_parsed(setting.value), str):
        setting = msgspec.structs.replace(setting, value=_parsed(setting.value))
    if key == "run.workload":
        return _workload(key, setting)
    if hint in (Path, Path | None):
        if not isinstance(setting.value, str | Path) or not str(setting.value):
            raise setting.refused(key, f"expected a path, got {setting.value!r}")
        return _path(key, setting)
    if hint == tuple[Path, ...]:
        texts = _parsed(setting.value)
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise setting.refused(key, f"expected a list of paths, got {setting.value!r}")
        return tuple(_path(key, msgspec.structs.replace(setting, value=text)) for text in texts)
    value = setting.value if hint is str or isinstance(setting.value, dt.date) else _parsed(setting.value)
    try:
        return msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError:
        if value is not setting.value:
            try:
                return msgspec.convert(setting.value, hint)
            except msgspec.ValidationError:
                pass
        given = str(setting.value) if isinstance(setting.value, dt.date) else repr(setting.value)
        raise setting.refused(key, f"expected {wanted(hint)}, got {given}") from None


def _workload(key: str, setting: Setting) -> str:
    """The entry point of a workload: `./train.py:main` becomes `/directory:train:main`. Raises BadValue."""
    text = str(setting.value)
    place, _, function = text.rpartition(":")
    if entry_point(text) is None and place.endswith(".py"):
        path = _path(key, msgspec.structs.replace(setting, value=place))
        text = f"{path.parent}:{path.stem}:{function}"
    if entry_point(text) is None:
        why = f"expected package.module:function or ./file.py:function, got {setting.value!r}"
        raise setting.refused(key, why)
    return text


def _path(key: str, setting: Setting) -> Path:
    if why := path_problem(str(setting.value)):
        raise setting.refused(key, f"{why}: {setting.value!r}")
    try:
        path = Path(setting.value).expanduser()
    except RuntimeError:
        raise setting.refused(key, f"there is no such home: {setting.value!r}") from None
    return Path(os.path.normpath(setting.base / path))


def path_problem(text: str) -> str | None:
    """The reason why a path cannot be used (a null character, not UTF-8), or None."""
    if not is_text(text):
        return "the path is not UTF-8 text"
    return "a path has no null characters" if "\0" in text else None


def _parsed(value: Any) -> Any:
    """The TOML value that a text stands for, or the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return parse_toml(f"value = {value}")["value"]
    except ValueError:
        return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError: also for a number of thousands of digits, and endless nesting."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
