"""The configuration: every setting, the origin of each value, and the errors of wrong values.

A flag takes precedence over the environment (`GPUSCHED_RUN_OUTPUT` sets `run.output`), the environment over the
configuration file, the file over the default. Relative paths in a file start at the file's directory, all others at the
current directory.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from gpusched.core.model import BatchSpec, DeviceChoice, Limits
from gpusched.errors import ConfigError, UsageError, did_you_mean

#: directory of a run's state, within the output directory
STATE_DIR = ".gpusched"
FILE_NAME = "config.toml"
#: short form of GPUSCHED_DAEMON_SOCKET
SOCKET_VARIABLE = "GPUSCHED_SOCKET"
ENVIRONMENT_PREFIX = "GPUSCHED_"
BUILT_IN_WORKLOAD = "gpusched.teacher:train_window"

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
Days = Annotated[float, Meta(ge=0, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Slots = Literal["auto"] | Annotated[int, Meta(ge=1, le=64)]


class UnknownKey(ConfigError):
    problem = "there is no setting {key!r}{nearest}"
    remedy = "`gpusched config` lists all settings"


class BadValue(ConfigError):
    problem = "{key}: {why}"
    remedy = "`gpusched config` shows every setting and where its value comes from"


class BadToml(ConfigError):
    problem = "not a TOML file: {why}"
    remedy = "mend the file, or name another one with --config"


class NoConfigFile(ConfigError):
    problem = "the configuration file {path} cannot be read: {why}"
    remedy = "check the path given by --config or GPUSCHED_CONFIG"


class NoDates(UsageError):
    problem = "no {missing} date is given"
    remedy = "give --start and --end (YYYY-MM-DD), or set windows.start and windows.end in config.toml"


class DatesReversed(UsageError):
    problem = "the windows end on {end}, before they start on {start}"
    remedy = "swap --start and --end"


def _cache_dir() -> Path:
    if directory := os.environ.get("CACHE_DIRECTORY"):
        return Path(directory.partition(":")[0])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpusched"


def _state_dir() -> Path:
    if directory := os.environ.get("STATE_DIRECTORY"):
        return Path(directory.partition(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gpusched"


# Each section of config.toml is a struct below, and each key one of its fields; `config.toml` explains them to users.


class Data(Struct, frozen=True, kw_only=True):
    root: Path = Path("data")
    #: empty: 1d, or a symbol's only interval
    interval: str = ""
    columns: Annotated[dict[str, str], Meta(description='a table such as {volume = "vol"}')] = {}
    timezone: str = ""
    date_format: str = ""
    decimal: Literal[".", ","] = "."
    strict: bool = False


class Windows(Struct, frozen=True, kw_only=True):
    start: dt.date | None = None
    end: dt.date | None = None
    days: Annotated[int, Meta(ge=1, le=36_500)] = 180


class Labels(Struct, frozen=True, kw_only=True):
    horizon: Annotated[int, Meta(ge=1, le=1_000_000)] = 7
    threshold: Annotated[float, Meta(gt=-1, le=1000)] = 0.02


class Split(Struct, frozen=True, kw_only=True):
    method: Literal["chronological", "random"] = "chronological"
    validation_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.2


class Training(Struct, frozen=True, kw_only=True):
    min_rows: Annotated[int, Meta(ge=2)] = 20


class Run(Struct, frozen=True, kw_only=True):
    output: Path = Path("gpusched-runs")
    #: None: within the output directory
    state_dir: Path | None = None
    workload: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:function")] = (
        BUILT_IN_WORKLOAD
    )
    device: DeviceChoice = "auto"
    workers: Count = 0
    max_failure_rate: Share = 0.0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    timeout_s: Seconds = 3600.0
    grace_s: Seconds = 10.0
    backoff_s: Seconds = 1.0
    backoff_max_s: Seconds = 60.0
    memory_limit_mb: Count = 0
    log_limit_mb: Count = 10
    breaker_failures: Count = 10


class Devices(Struct, frozen=True, kw_only=True):
    fallback: Literal["cpu", "none"] = "cpu"
    slots: Slots = "auto"
    #: slots by device, which is named as in `include`
    slots_by_device: dict[str, Slots] = {}
    #: GPUs to use (empty: all), and GPUs not to use: `gpusched.devices.naming` explains the names
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_cpu_opencl: bool = False
    cpu_slots: Literal["auto"] | Annotated[int, Meta(ge=0, le=1024)] = "auto"


class Cache(Struct, frozen=True, kw_only=True):
    dir: Path = msgspec.field(default_factory=_cache_dir)
    keep_days: Days = 30.0
    limit_mb: Count = 20_000


class Daemon(Struct, frozen=True, kw_only=True):
    state_dir: Path = msgspec.field(default_factory=_state_dir)
    socket: Path | None = None
    group: str = ""
    #: directories that data and outputs must be in (empty: anywhere), and the workloads allowed (empty: any)
    roots: tuple[Path, ...] = ()
    workloads: tuple[str, ...] = ()
    idle_launcher_s: Seconds = 300.0
    stop_limit_s: Annotated[float, Meta(ge=1, le=10_000_000)] = 300.0
    keep_days: Days = 90.0


class Hooks(Struct, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()
    timeout_s: Seconds = 30.0


class Metrics(Struct, frozen=True, kw_only=True):
    listen: Annotated[str, Meta(pattern=r"^(|(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5})$", description="HOST:PORT")] = ""


class Config(Struct, frozen=True, kw_only=True):
    """All settings; paths are absolute."""

    data: Data = Data()
    windows: Windows = Windows()
    labels: Labels = Labels()
    split: Split = Split()
    training: Training = Training()
    #: LightGBM's parameters, which override the workload's defaults
    lightgbm: dict[str, Any] = {}
    run: Run = Run()
    devices: Devices = Devices()
    cache: Cache = msgspec.field(default_factory=Cache)
    daemon: Daemon = msgspec.field(default_factory=Daemon)
    hooks: Hooks = Hooks()
    metrics: Metrics = Metrics()


SECTIONS: dict[str, type[Struct]] = {
    "data": Data,
    "windows": Windows,
    "labels": Labels,
    "split": Split,
    "training": Training,
    "run": Run,
    "devices": Devices,
    "cache": Cache,
    "daemon": Daemon,
    "hooks": Hooks,
    "metrics": Metrics,
}


class Setting(Struct, frozen=True):
    """A value that was given, and its origin."""

    value: Any
    #: for people: `config.toml:12`, `GPUSCHED_RUN_OUTPUT`, `--set`
    origin: str
    #: the directory at which a relative path starts
    base: Path


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
    config = _build(given, cwd)
    _check_workload(config, given)
    origins = {key: setting.origin for key, setting in given.items()}
    return Loaded(config=config, origins=origins, path=file)


def _overlay(given: dict[str, Setting], stronger: Mapping[str, Setting]) -> None:
    """Override `given` by the settings of a stronger source; a LightGBM parameter also overrides its aliases."""
    from gpusched.teacher.parameters import CANONICAL

    names = {CANONICAL.get(key.removeprefix("lightgbm.")) for key in stronger if key.startswith("lightgbm.")} - {None}
    for key in tuple(given):
        if key.startswith("lightgbm.") and CANONICAL.get(key.removeprefix("lightgbm.")) in names:
            del given[key]
    given |= stronger


def _find(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that was named, or else the first default file that exists."""
    if path is not None:
        return path.absolute()
    if named := environ.get("GPUSCHED_CONFIG"):
        return Path(named).absolute()
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for candidate in (cwd / FILE_NAME, home / "gpusched" / FILE_NAME, Path("/etc/gpusched") / FILE_NAME):
        if candidate.is_file():
            return candidate
    return None


def _from_file(path: Path) -> dict[str, Setting]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise NoConfigFile(path=path, why=why) from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadToml(place=str(path), why=error) from None
    given: dict[str, Setting] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            place = f"{path}:{_line(text, None, section)}"
            if section in {*SECTIONS, "lightgbm"}:
                raise BadValue(place=place, key=section, why=f"expected a section [{section}], got {table!r}")
            raise UnknownKey(place=place, key=section, nearest=_nearest(section, keys()))
        for key, value in table.items():
            place = f"{path}:{_line(text, section, key)}"
            _require_known(f"{section}.{key}", place)
            given[f"{section}.{key}"] = Setting(value, place, path.parent)
        if section not in {*SECTIONS, "lightgbm"}:  # and empty
            place = f"{path}:{_line(text, None, section)}"
            raise UnknownKey(place=place, key=section, nearest=_nearest(section, [*SECTIONS, "lightgbm"]))
    return given


def _from_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, Setting]:
    given = {}
    if socket := environ.get(SOCKET_VARIABLE):
        given["daemon.socket"] = Setting(socket, SOCKET_VARIABLE, cwd)
    for name, text in sorted(environ.items()):
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if name.startswith(ENVIRONMENT_PREFIX) and key and section in {*SECTIONS, "lightgbm"}:
            _require_known(f"{section}.{key}", name)
            given[f"{section}.{key}"] = Setting(text, name, cwd)
    return given


def _require_known(key: str, place: str) -> None:
    """Raise UnknownKey unless the setting exists. LightGBM's parameters are checked by the workload."""
    head, _, tail = key.partition(".")
    if (head == "lightgbm" and tail) or (head in SECTIONS and tail in SECTIONS[head].__struct_fields__):
        return
    raise UnknownKey(place=place, key=key, nearest=_nearest(key, keys()))


def keys() -> list[str]:
    """Every `section.key` except LightGBM's."""
    return [f"{section}.{key}" for section, struct in SECTIONS.items() for key in struct.__struct_fields__]


def _nearest(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, names, cutoff=0.5)


def _line(text: str, section: str | None, key: str) -> int:
    """The line number of a key (or, with `section` None, of the section `key`) in a TOML file; 1 if not found."""
    quote = "[\"']?"
    current: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(rf"\s*\[+\s*{quote}([^\]\"']+?){quote}\s*[\].]", line):
            current = header[1]
            if section is None and current == key:
                return number
            path = [part.strip(" \t\"'") for part in line.partition("#")[0].strip().strip("[]").split(".")]
            if path == [section, key]:
                return number
            continue
        # A section's key may also be written above all sections: `section.key = …`, `section = {{key = …}}`.
        above = rf"{quote}{re.escape(section)}{quote}\s*(\.|=\s*{{.*?\b)\s*" if section and current is None else ""
        if (current == section or above) and re.match(rf"\s*{above}{quote}{re.escape(key)}{quote}\s*[=.]", line):
            return number
    return 1


def _build(given: Mapping[str, Setting], cwd: Path) -> Config:
    sections: dict[str, Any] = {}
    for section, struct in SECTIONS.items():
        hints = get_type_hints(struct, include_extras=True)
        defaults = struct()
        values = {}
        for key in struct.__struct_fields__:
            setting = given.get(f"{section}.{key}")
            if setting is None:
                value = getattr(defaults, key)
                values[key] = cwd / value if isinstance(value, Path) else value
            else:
                values[key] = _convert(f"{section}.{key}", setting, hints[key])
        sections[section] = struct(**values)
    lightgbm = {
        key.partition(".")[2]: _parsed(setting.value) for key, setting in given.items() if key.startswith("lightgbm.")
    }
    return Config(lightgbm=lightgbm, **sections)


def _convert(key: str, setting: Setting, hint: Any) -> Any:
    if isinstance(setting.value, str) and setting.value[:1] in ("'", '"') and isinstance(_parsed(setting.value), str):
        setting = msgspec.structs.replace(setting, value=_parsed(setting.value))
    if hint in (Path, Path | None):
        if not isinstance(setting.value, str | Path) or not str(setting.value):
            raise BadValue(place=setting.origin, key=key, why=f"expected a path, got {setting.value!r}")
        return _path(key, setting)
    if hint == tuple[Path, ...]:
        texts = _parsed(setting.value)
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise BadValue(place=setting.origin, key=key, why=f"expected a list of paths, got {setting.value!r}")
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
        why = f"expected {_wanted(hint)}, got {given}"
        raise BadValue(place=setting.origin, key=key, why=why) from None


def _path(key: str, setting: Setting) -> Path:
    if why := path_problem(str(setting.value)):
        raise BadValue(place=setting.origin, key=key, why=f"{why}: {setting.value!r}")
    try:
        path = Path(setting.value).expanduser()
    except RuntimeError:
        raise BadValue(place=setting.origin, key=key, why=f"there is no such home: {setting.value!r}") from None
    return Path(os.path.normpath(setting.base / path))


def path_problem(text: str) -> str | None:
    """The reason why a path cannot be used (a null character, not UTF-8), or None."""
    try:
        return "a path has no null characters" if b"\0" in text.encode() else None
    except UnicodeEncodeError:
        return "the path is not UTF-8 text"


def _wanted(hint: Any) -> str:
    """The values that a setting accepts, in words."""
    from msgspec import inspect  # slow to import, and needed for errors only

    return _worded(inspect.type_info(hint), inspect)


def _worded(kind: Any, inspect: Any) -> str:
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            return str((schema or {}).get("description") or _worded(inner, inspect))
        case inspect.UnionType(types=types):
            return " or ".join(_worded(one, inspect) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.DateType():
            return "a date such as 2022-01-31"
        case inspect.IntType(ge=ge, le=le):
            return f"a whole number from {ge}" + (f" to {le}" if le is not None else "")
        case inspect.FloatType(ge=ge, gt=gt, le=le, lt=lt):
            low = f"at least {ge:.15g}" if ge is not None else f"above {gt:.15g}"
            return f"a number {low} and " + (f"at most {le:.15g}" if le is not None else f"below {lt:.15g}")
    return "text"


def _parsed(value: Any) -> Any:
    """The TOML value that a text stands for, or the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


# -- settings of the built-in workload, and of a batch -----------------------------------------------------------------


def workload_settings(config: Config) -> dict[str, Any]:
    """The value of `Task.settings`. For the built-in workload it is complete, LightGBM's defaults included."""
    settings: dict[str, Any] = {
        "interval": config.data.interval or ("" if config.run.workload == BUILT_IN_WORKLOAD else "1d"),
        "horizon": config.labels.horizon,
        "threshold": config.labels.threshold,
        "split": config.split.method,
        "validation_fraction": config.split.validation_fraction,
        "min_rows": config.training.min_rows,
        "lightgbm": config.lightgbm,
    }
    if config.run.workload == BUILT_IN_WORKLOAD:
        from gpusched.teacher.settings import READING, parse_settings

        settings |= {name: getattr(config.data, name) for name in READING}
        settings = msgspec.structs.asdict(parse_settings(settings))
    return settings


def _check_workload(config: Config, given: Mapping[str, Setting]) -> None:
    """Raise BadValue for settings that the built-in workload refuses, including LightGBM's parameters."""
    from gpusched.workload import BadParameters

    try:
        workload_settings(config)
    except BadParameters as error:
        key = _named_first(str(error), [key for key in given if key.startswith(("lightgbm.", "data."))])
        raise BadValue(place=given[key].origin if key else None, key=key or "lightgbm", why=error) from None


def _named_first(sentence: str, candidates: Iterable[str]) -> str | None:
    """The `section.key` whose key comes first in a sentence."""
    matches = {key: re.search(rf"(?<!\w){re.escape(key.partition('.')[2])}(?!\w)", sentence) for key in candidates}
    positions = {key: match.start() for key, match in matches.items() if match}
    return min(positions, key=lambda key: positions[key], default=None)


def batch_spec(config: Config, symbols: tuple[str, ...], *, priority: int = 0) -> BatchSpec:
    """The specification of a batch of `symbols`. Raises NoDates, DatesReversed."""
    start, end = config.windows.start, config.windows.end
    if start is None or end is None:
        missing = " and no ".join(name for name, date in (("start", start), ("end", end)) if date is None)
        raise NoDates(missing=missing)
    if end < start:
        raise DatesReversed(start=start, end=end)
    run = config.run
    return BatchSpec(
        symbols=symbols,
        start=start,
        end=end,
        window_days=config.windows.days,
        data_root=str(config.data.root),
        workload=run.workload,
        settings=workload_settings(config),
        device=run.device,
        workers=run.workers,
        priority=priority,
        limits=_limits(run),
    )


def run_state_dir(config: Config, output_dir: Path) -> Path:
    """The directory of the database and the logs of `gpusched run`: a separate one for each output directory."""
    if config.run.state_dir is None:
        return output_dir / STATE_DIR
    place = os.path.realpath(output_dir)
    return config.run.state_dir / f"{output_dir.name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def _limits(run: Run) -> Limits:
    return Limits(
        max_attempts=run.max_attempts,
        timeout_s=run.timeout_s,
        grace_s=run.grace_s,
        backoff_s=run.backoff_s,
        backoff_max_s=run.backoff_max_s,
        memory_limit_bytes=run.memory_limit_mb * 1024 * 1024,
        log_limit_bytes=run.log_limit_mb * 1024 * 1024,
        max_failure_rate=run.max_failure_rate,
        breaker_failures=run.breaker_failures,
    )


def terms(config: Config) -> dict[str, tuple[str, Any]]:
    """The settings that are terms of a batch: `section.key` → (name in `gpusched.core.terms`, value)."""
    of_run = {"workers": config.run.workers, **msgspec.structs.asdict(_limits(config.run))}
    return {f"run.{name.replace('_bytes', '_mb')}": (name, value) for name, value in of_run.items()}
