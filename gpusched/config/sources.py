"""The sources of settings: who wins, and where each value came from.

A flag takes precedence over the environment (`GPUSCHED_RUN_OUTPUT` sets `run.output`), the environment over the
configuration file, the file over the default. Relative paths in a file start at the file's directory, all others at the
current directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from gpusched.config.schema import ALL_SECTIONS, OPEN_SECTIONS, SECTIONS, Config, keys
from gpusched.config.values import BadValue, Setting, built, parse_toml
from gpusched.config.workloads import is_of, is_of_any, refused, workload_settings, wrong_workload
from gpusched.errors import ConfigError, did_you_mean
from gpusched.teacher.parameters import CANONICAL
from gpusched.users import home
from gpusched.workload import BadParameters

FILE_NAME = "config.toml"
#: short form of GPUSCHED_DAEMON_SOCKET
SOCKET_VARIABLE = "GPUSCHED_SOCKET"
ENVIRONMENT_PREFIX = "GPUSCHED_"
#: variables of the prefix that are no settings
_OTHERS = ("GPUSCHED_CONFIG", "GPUSCHED_ALLOW_CPU_OPENCL", SOCKET_VARIABLE)
#: bytes of a configuration file: the sample has 20,000
_MOST_BYTES = 32 << 20

_NAME = r"""("[^"]*"|'[^']*'|[\w-]+)"""
_HEADER = re.compile(rf"\s*\[+\s*{_NAME}\s*(?:\.\s*{_NAME}\s*)?[\].]")
_KEY = re.compile(rf"\s*{_NAME}\s*[=.]")
_KEY_WITHIN = re.compile(rf"{_NAME}\s*[=.]")


class UnknownKey(ConfigError):
    problem = "there is no setting {key!r}{nearest}"
    remedy = "`gpusched config` lists all settings"


class UnknownKeyInFile(UnknownKey):
    """Perhaps in the config.toml of another program, with which `gpusched config` fails, too."""

    remedy = "mend that line, or name another file with --config, such as /dev/null"


class BadToml(ConfigError):
    problem = "not a TOML file: {why}"
    remedy = "mend the file, or name another one with --config"


class NoConfigFile(ConfigError):
    problem = "the configuration file {path} cannot be read: {why}"
    remedy = "check the path given by --config or GPUSCHED_CONFIG"


class Loaded(Struct, frozen=True, kw_only=True):
    config: Config
    #: `section.key` → origin of its value; a setting that is missing here has its default
    origins: dict[str, str]
    #: the file that was read, or None
    path: Path | None


def load(
    *, path: Path | None = None, flags: Sequence[tuple[str, Any, str]] = (), environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Assemble the configuration. `flags` are (`section.key`, value, flag); later ones take precedence.

    The text of a flag is parsed as a TOML value, and kept as text if that fails. Raises ConfigError.
    """
    cwd = Path.cwd()
    file = _find(path, environ, cwd)
    given: dict[str, Setting] = {}
    if file is not None:
        _overlay(given, _from_file(file))
    _overlay(given, _from_environment(environ, cwd))
    for key, value, flag in flags:
        _require_known(key, flag)
        _overlay(given, {key: Setting(value, flag, cwd)})
    config = built(given, cwd)
    _check_workload(config, given, typed={key for key, _, _ in flags})
    origins = {key: setting.origin for key, setting in given.items()}
    return Loaded(config=config, origins=origins, path=file)


def _overlay(given: dict[str, Setting], stronger: Mapping[str, Setting]) -> None:
    """Override `given` by the settings of a stronger source; a LightGBM parameter also overrides its aliases."""
    names = {CANONICAL.get(key.removeprefix("lightgbm.")) for key in stronger if key.startswith("lightgbm.")} - {None}
    for key in tuple(given):
        if key.startswith("lightgbm.") and CANONICAL.get(key.removeprefix("lightgbm.")) in names:
            del given[key]
    given |= stronger


def _find(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that was named, or else the first default file that exists, as far as this user can tell.

    HOME may be somebody else's, as it is under `sudo -u` and in a container.
    """
    if path is not None:
        return _at_home(path).absolute()
    if named := environ.get("GPUSCHED_CONFIG"):
        return _at_home(Path(named)).absolute()
    own = Path(environ.get("XDG_CONFIG_HOME") or home() / ".config")
    for candidate in (cwd / FILE_NAME, own / "gpusched" / FILE_NAME, Path("/etc/gpusched") / FILE_NAME):
        if os.path.isfile(candidate):  # noqa: PTH113 - of a place that may not be looked into, an error
            return candidate
    return None


def _at_home(path: Path) -> Path:
    """A path with the directory that `~` stands for: a shell leaves it in `--config=~/…`, and a unit in a variable."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # where there is no such home, the path as it is


def _text(path: Path) -> str:
    """The text of a configuration file, with line ends and without a mark of its encoding as Windows writes them."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise NoConfigFile(path=path, why=f"it is larger than {_MOST_BYTES >> 20} MiB")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise NoConfigFile(path=path, why=why) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_file(path: Path) -> dict[str, Setting]:
    text = _text(path)
    try:
        tables = parse_toml(text)
    except ValueError as error:
        raise BadToml(place=str(path), why=error) from None
    lines = _lines(text)
    given: dict[str, Setting] = {}
    for section, table in tables.items():
        header = f"{path}:{lines.get((None, section), 1)}"
        if not isinstance(table, dict):
            if section in ALL_SECTIONS:
                raise BadValue(place=header, key=section, why=f"expected a section [{section}], got {table!r}")
            raise UnknownKeyInFile(place=header, key=section, nearest=_nearest(section, keys()))
        for key, value in table.items():
            place = f"{path}:{lines.get((section, key), 1)}"
            if not _is_known(name := f"{section}.{key}"):
                raise UnknownKeyInFile(place=place, key=name, nearest=_nearest(name, keys()))
            given[f"{section}.{key}"] = Setting(value, place, path.parent)
        if section not in ALL_SECTIONS:  # and empty
            raise UnknownKeyInFile(place=header, key=section, nearest=_nearest(section, ALL_SECTIONS))
    return given


def _from_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, Setting]:
    given = {}
    if socket := environ.get(SOCKET_VARIABLE):
        given["daemon.socket"] = Setting(socket, SOCKET_VARIABLE, cwd)
    for name, text in sorted(environ.items()):
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if name.startswith(ENVIRONMENT_PREFIX) and key and section in ALL_SECTIONS:
            _require_known(f"{section}.{key}", name)
            given[f"{section}.{key}"] = Setting(text, name, cwd)
    return given


def stray_variables(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Notes on variables that are nearly those of settings; anything else of the prefix may be another program's."""
    known = [f"{ENVIRONMENT_PREFIX}{key}".upper().replace(".", "_") for key in keys()]
    notes = []
    for name in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in _OTHERS):
        section = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")[0]
        if section not in ALL_SECTIONS and (near := did_you_mean(name, known, cutoff=0.85)):
            notes.append(f"{name} is no setting{near}")
    return tuple(notes)


def _is_known(key: str) -> bool:
    """Whether a setting exists. Those of the open sections are checked by the workload."""
    head, _, tail = key.partition(".")
    return bool((head in OPEN_SECTIONS and tail) or (head in SECTIONS and tail in SECTIONS[head].__struct_fields__))


def _require_known(key: str, place: str) -> None:
    """Raise UnknownKey unless the setting exists."""
    if not _is_known(key):
        raise UnknownKey(place=place, key=key, nearest=_nearest(key, keys()))


def _nearest(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, names, cutoff=0.5)


def _lines(text: str) -> dict[tuple[str | None, str], int]:
    """The line numbers of a TOML file's keys, by (section, key), and of its sections, by (None, section)."""
    lines: dict[tuple[str | None, str], int] = {}
    section: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _bare(header[1])
            names = [(None, section), (section, _bare(header[2] or ""))]
        elif key := _KEY.match(line):
            name = _bare(key[1])
            names = [(section, name)]
            if section is None:  # a section's key above all sections: `section.key = …`, `section = {key = …}`
                names += [(name, _bare(inner)) for inner in _KEY_WITHIN.findall(line, key.end(1))]
        else:
            continue
        for each in names:
            lines.setdefault(each, number)
    return lines


def _bare(name: str) -> str:
    return name.strip("\"'")


def _check_workload(config: Config, given: Mapping[str, Setting], typed: Collection[str]) -> None:
    """Raise BadValue for settings that the built-in workload refuses, and for flags (`typed`) of another workload.

    A file may have the settings of several workloads; those of the others are ignored.
    """
    workload = config.run.workload
    for key, setting in given.items():
        if key in typed and is_of_any(key) and not is_of(workload, key):
            raise setting.refused(key, wrong_workload(workload, key))
    try:
        workload_settings(config)
    except BadParameters as error:
        raise refused(workload, str(error), {key: setting.origin for key, setting in given.items()}) from None
