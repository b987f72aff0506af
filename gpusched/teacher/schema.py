"""The workload's settings: the keys of `Task.settings`, their defaults and their bounds.

Needs neither numpy nor LightGBM: the command line checks a configuration with it before anything starts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gpusched.errors import did_you_mean
from gpusched.teacher.parameters import CANONICAL
from gpusched.workload import BadParameters

#: Increase it with every change that makes a different model or different artifacts of the same bars and settings.
WORKLOAD_VERSION = 4

#: Default parameters of LightGBM. The only metric is the loss: with several, early stopping obeys the first that
#: stalls, and the AUC of a validation set with one class stalls at once.
LIGHTGBM_DEFAULTS: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "num_iterations": 500,
    "learning_rate": 0.01,
    "num_leaves": 127,
    "max_depth": 9,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "is_unbalance": True,
    "seed": 42,
    "early_stopping_round": 50,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}

#: Default parameters for GPUs, in addition, for either device type. A GPU adds up the gradients of a bin in no fixed
#: order: the sum depends on the order in float32, but not in float64.
GPU_DEFAULTS: dict[str, Any] = {"gpu_use_dp": True}
#: note on a batch that turns `gpu_use_dp` off
DIFFERS = (
    "lightgbm.gpu_use_dp is off, so a GPU may make another model of the same window each time (LightGBM: Although"
    ' "deterministic" is set, the results ran by GPU may be non-deterministic.)'
)

_DEVICE = "gpusched gives each window its device: choose with --device"
_MACHINES = "a window is trained by one process on one machine"
_FILES = "gpusched passes the data in memory and writes the artifacts itself"
_COLUMNS = "the columns are the features, all of them numbers"

#: parameter → why it cannot be set
OWNED: dict[str, str] = {
    **dict.fromkeys(("device_type", "gpu_platform_id", "gpu_device_id", "gpu_device_id_list", "num_gpu"), _DEVICE),
    **dict.fromkeys(("num_machines", "machines", "machine_list_filename", "local_listen_port", "time_out"), _MACHINES),
    **dict.fromkeys(("config", "task", "data", "valid", "input_model", "output_model", "output_result"), _FILES),
    **dict.fromkeys(("save_binary", "snapshot_freq", "convert_model", "convert_model_language"), _FILES),
    **dict.fromkeys(("forcedsplits_filename", "forcedbins_filename", "parser_config_file"), _FILES),
    **dict.fromkeys(("header", "label_column", "weight_column", "group_column", "ignore_column"), _COLUMNS),
    "categorical_feature": _COLUMNS,
}

#: objectives whose prediction is the probability of a label of 1, which the metrics need
_OBJECTIVES = ("binary", "cross_entropy", "xentropy")
#: LightGBM's Python package reads these itself, and takes only whole numbers
_WHOLE_NUMBERS = ("num_iterations", "early_stopping_round", "seed", "num_threads", "verbosity")


#: bars that the label looks ahead
Horizon = Annotated[int, Meta(ge=1, le=1_000_000)]
#: a forward return
Threshold = Annotated[float, Meta(gt=-1, le=1000)]
#: share of the usable rows that training never sees
Fraction = Annotated[float, Meta(gt=0, lt=1)]
#: calendar days at the end of a window that training never sees; 0: a fraction instead
ValidationDays = Annotated[int, Meta(ge=0, le=36_500)]
#: usable rows below which a window is skipped
MinRows = Annotated[int, Meta(ge=2)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings as they were given; `parse_settings` completes them."""

    #: the interval by any of its names; its bars are in `<symbol>/<interval>`; empty: 1d, or the only such directory
    interval: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,31})?$")] = ""
    horizon: Horizon = 7
    #: a forward return above it is labelled 1
    threshold: Threshold = 0.02
    split: Literal["chronological", "random"] = "chronological"
    validation_fraction: Fraction = 0.2
    #: in place of `validation_fraction`, if it is not 0
    validation_days: ValidationDays = 0
    min_rows: MinRows = 20
    #: role (see `COLUMNS`) → name of its column, for columns whose names do not tell
    columns: dict[str, str] = {}
    #: the IANA name of the exchange's time zone; empty: as the timestamps say
    timezone: str = ""
    #: format of the timestamps for `strptime`; empty: only unambiguous forms are read
    date_format: str = ""
    decimal: Literal[".", ","] = "."
    #: whether data that have any note are refused
    strict: bool = False
    #: LightGBM's parameters, on top of `LIGHTGBM_DEFAULTS`
    lightgbm: dict[str, Any] = {}


#: the roles of columns: the keys of `Settings.columns`
COLUMNS = ("timestamp", "time", "open", "high", "low", "close", "volume", "symbol")
#: settings that version 0.1 did not have, and their defaults
_LATER = {"validation_days": 0}
#: settings that change how files are read; their effect is in the bars
READING = ("columns", "timezone", "date_format", "decimal", "strict")


def parse_settings(raw: Mapping[str, Any] | Settings) -> Settings:
    """Check settings, unless they were parsed; `lightgbm` becomes complete, with canonical names.

    Raises BadParameters.
    """
    if isinstance(raw, Settings):
        return raw
    for name in raw:
        if name not in Settings.__struct_fields__:
            raise BadParameters(f"there is no setting {name!r}{did_you_mean(name, Settings.__struct_fields__)}")
    try:
        settings = msgspec.convert(dict(raw), Settings)
    except msgspec.ValidationError as error:
        raise BadParameters(_sentence(str(error), raw)) from None
    for role in settings.columns:
        if role not in COLUMNS:
            raise BadParameters(f"setting columns: there is no {role!r} in it{did_you_mean(role, COLUMNS)}")
    _check_timezone(settings.timezone)
    _check_date_format(settings.date_format)
    if settings.validation_days and settings.split == "random":
        raise BadParameters("setting validation_days: the last days validate only if split is chronological")
    return msgspec.structs.replace(settings, lightgbm=lightgbm_parameters(settings.lightgbm))


def written(settings: Settings) -> dict[str, Any]:
    """The settings by name, as they are handed on and digested.

    A setting that version 0.1 did not have is left out while it has its default, so that fingerprints and ids of
    batches from before stay valid.
    """
    plain: dict[str, Any] = msgspec.to_builtins(settings)
    return {name: value for name, value in plain.items() if _LATER.get(name, ...) != value}


def _check_timezone(name: str) -> None:
    if not name:
        return
    import zoneinfo  # slow to import, and few need it

    try:
        zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        near = did_you_mean(name, zoneinfo.available_timezones()) or ', they are called as in "Asia/Kolkata"'
        raise BadParameters(f"setting timezone: there is no zone {name!r}{near}") from None


def _check_date_format(form: str) -> None:
    if not form:
        return
    moment = dt.datetime(2023, 11, 25, 13, 45, 59, tzinfo=dt.UTC)
    try:
        read = dt.datetime.strptime(moment.strftime(form), form)
    except (ValueError, re.error):  # the latter for a letter that is there twice
        read = None
    if read is None or read.date() != moment.date():
        raise BadParameters(
            f'setting date_format: {form!r} does not tell a year, month and day, as "%d.%m.%Y %H:%M" does'
            " (Python's strptime has the letters)"
        )
    if read.hour not in (0, moment.hour):
        raise BadParameters(
            f"setting date_format: {form!r} does not tell the morning from the afternoon: %I needs %p, or is to be %H"
        )


def lightgbm_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Put `params` over the defaults, by canonical names, sorted. An alias overrides the default of its parameter.

    Raises BadParameters.
    """
    validate_lightgbm(params)
    given = {CANONICAL[name]: value for name, value in params.items()}
    return dict(sorted((LIGHTGBM_DEFAULTS | given).items()))


def differs_on_gpus(params: Mapping[str, Any]) -> bool:
    """Whether `params`, by canonical names, let a GPU make a different model of a window each time: `DIFFERS`."""
    given = (GPU_DEFAULTS | dict(params))["gpu_use_dp"]
    return str(given).lower() in ("false", "-")  # LightGBM knows no other words for it


def validate_lightgbm(params: Mapping[str, Any]) -> None:
    """Check LightGBM parameters that a user gave, by any of their names.

    Raises BadParameters for one that LightGBM does not have, that gpusched sets itself, that is given twice, or whose
    value has a type that LightGBM does not take.
    """
    seen: dict[str, str] = {}
    for name, value in params.items():
        canonical = CANONICAL.get(name)
        if canonical is None:
            raise BadParameters(f"LightGBM has no parameter {name!r}{did_you_mean(name, CANONICAL)}")
        if canonical in seen:
            raise BadParameters(f"LightGBM parameters {seen[canonical]} and {name} are the same one: give one of them")
        seen[canonical] = name
        if canonical in OWNED:
            raise BadParameters(f"LightGBM parameter {name} cannot be set: {OWNED[canonical]}")
        _check_value(name, canonical, value)


def _check_value(name: str, canonical: str, value: object) -> None:
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | int | float) for item in items):
        raise BadParameters(f"LightGBM parameter {name}: expected a number, text, true, false or a list, got {value!r}")
    if canonical in _WHOLE_NUMBERS and type(value) is not int:
        raise BadParameters(f"LightGBM parameter {name}: expected a whole number, got {value!r}")
    if canonical == "num_iterations" and isinstance(value, int) and value < 1:
        raise BadParameters(f"LightGBM parameter {name}: expected at least 1, got {value!r}")
    if canonical == "objective" and value not in _OBJECTIVES:
        raise BadParameters(
            f"LightGBM parameter {name}: the label is 0 or 1, so it is one of {', '.join(_OBJECTIVES)}; got {value!r}"
        )


def _sentence(problem: str, raw: Mapping[str, Any]) -> str:
    """Reword msgspec's "Expected `int` >= 1 - at `$.horizon`": the setting comes first and its value last."""
    expected, _, place = problem.partition(" - at ")
    name = re.sub(r"[^A-Za-z_].*", "", place.removeprefix("`$."))
    given = f" (it is {raw[name]!r})" if name in raw else ""
    return f"setting {name}: {expected[:1].lower()}{expected[1:]}{given}".replace("`", "")
