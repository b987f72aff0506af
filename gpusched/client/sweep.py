"""The points of a sweep: a grid of `--param`, the rows of `--params`, and `--sample` of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpusched.client.text_files import NotText, is_json, json_objects, name_given_twice, read_text
from gpusched.command import WORKLOAD as COMMAND
from gpusched.command.placeholders import PARAMETER
from gpusched.config import BUILT_IN_WORKLOAD, canonical, settings_at
from gpusched.config.values import parse_toml
from gpusched.core import points
from gpusched.core.model import BatchSpec, Parameters, Window
from gpusched.core.planning import windows_problem
from gpusched.core.points import MOST_POINTS, Axis, point_name
from gpusched.errors import InputError, UsageError

#: a setting's values by its name, or points one by one
Params = Mapping[str, Sequence[Any]] | Sequence[Parameters]


class BadParam(UsageError):
    problem = "--param {text}: {why}"
    remedy = "give a setting and its values, such as --param lightgbm.num_leaves=15,31,63"


class BadParamsFile(InputError):
    problem = "the parameters cannot be read: {why}"
    remedy = "give a CSV file headed by settings, such as lightgbm.num_leaves, or JSON objects: one a line, or an array"


class TooManyPoints(UsageError):
    problem = "the sweep has {count} points, and {most} are the most"
    remedy = "take some of them, such as --sample 100, or give fewer values"


class ParametersTwice(UsageError):
    problem = "{name} is given twice: by {one} and by {other}"
    remedy = "leave it out in one of them"


class BadSample(UsageError):
    problem = "--sample {wanted}: expected one point at least"
    remedy = "give the number of points, such as --sample 50"


class BadSweep(UsageError):
    problem = "these windows at these points are no batch: {why}"
    remedy = "give the windows other labels"


class NothingToSample(UsageError):
    problem = "--{option} is for a sweep, and none is given"
    remedy = "give its values, such as --param lightgbm.num_leaves=15,31,63"


def asked_points(
    params: Sequence[str], file: Path | None = None, wanted: int | None = None, seed: int | None = None
) -> dict[str, Parameters]:
    """The points of `--param`, `--params`, `--sample` and `--seed`, by name; none without a sweep.

    Raises UsageError, InputError.
    """
    axes = [_axis(text) for text in params]
    if file is not None:
        axes.insert(0, _rows(file))
    if not axes:
        for option, given in (("sample", wanted), ("seed", seed)):
            if given is not None:
                raise NothingToSample(option=option)
        return {}
    _require_distinct(axes)
    if wanted is not None and wanted < 1:
        raise BadSample(wanted=wanted)
    if wanted is None:
        return _grid(axes)
    _refuse_too_many(min(points.size(axes), wanted))
    return points.sample(axes, wanted, seed or 0)


def given_points(params: Params) -> dict[str, Parameters]:
    """The points of a program: the grid of a mapping from settings to their values, or points one by one.

    Raises TooManyPoints.
    """
    if not params:
        return {}
    if isinstance(params, Mapping):
        return _grid([[{key: value} for value in values] for key, values in params.items()])
    return _grid([params])


def _grid(axes: list[Axis]) -> dict[str, Parameters]:
    _refuse_too_many(points.size(axes))
    return points.points(axes)


def _refuse_too_many(count: int) -> None:
    """Raise TooManyPoints before that many points are made."""
    if count > MOST_POINTS:
        raise TooManyPoints(count=f"{count:,}", most=f"{MOST_POINTS:,}")


def with_points(spec: BatchSpec, own: Mapping[str, Parameters], swept: Mapping[str, Parameters]) -> BatchSpec:
    """A batch at every point of a sweep.

    Windows that were asked for one by one may have parameters of their own (`own`, by point), which are then part of
    each of their points. Raises ParametersTwice, and BadValue for a parameter that the workload does not have or
    refuses.
    """
    renamed = {name: _spelt(spec, parameters) for name, parameters in own.items()}
    own = {point_name(parameters): parameters for parameters in renamed.values()}
    swept = _distinct(spec, [_spelt(spec, one) for one in swept.values()])
    windows = tuple(_renamed(window, renamed) for window in spec.windows)
    merged = dict(own if windows else swept)
    if windows and swept:
        everywhere = [_at(window, own.get(window.point, {}), one) for window in windows for one in swept.values()]
        windows, merged = tuple(window for window, _ in everywhere), {window.point: one for window, one in everywhere}
    spec = msgspec.structs.replace(spec, windows=windows, points=merged)
    if why := windows_problem(spec):
        raise BadSweep(why=why)
    for point in merged:
        settings_at(spec, point)
    return spec


def origins_of_points(params: Sequence[str], file: str, spec: BatchSpec) -> dict[str, str]:
    """For errors about a parameter: where its values are given, by `--param` or in `file`."""
    typed = {_key(spec, name) for name in _typed(params)}
    names = {name for parameters in spec.points.values() for name in parameters}
    return {name: "--param" if name in typed else file for name in names}


def origin_of_parameter(key: str, params: Sequence[str], file: str, rows: Mapping[str, Parameters]) -> str | None:
    """Where a parameter is given that the workload does not have: by `--param`, in the rows of `file`, or unknown."""
    if key in _typed(params):
        return "--param"
    return file if any(key in parameters for parameters in rows.values()) else None


def _typed(params: Sequence[str]) -> set[str]:
    """The parameters that `--param` names."""
    return {text.partition("=")[0].strip() for text in params}


def _at(window: Window, own: Parameters, swept: Parameters) -> tuple[Window, Parameters]:
    if both := own.keys() & swept.keys():
        raise ParametersTwice(name=min(both), one=f"window {window.label}", other="the sweep")
    merged = own | swept
    name = f"{window.name}_{point_name(swept)}" if window.name else ""
    return msgspec.structs.replace(window, point=point_name(merged), name=name), merged


def _spelt(spec: BatchSpec, parameters: Parameters) -> Parameters:
    """The parameters of a point by the names that the workload has for them, on which the point's own name depends.

    Raises ParametersTwice.
    """
    keys: dict[str, str] = {}
    for key in parameters:
        if (other := keys.setdefault(_key(spec, key), key)) != key:
            raise ParametersTwice(name=_key(spec, key), one=other, other=key)
    return {name: parameters[key] for name, key in keys.items()}


def _distinct(spec: BatchSpec, points: Sequence[Parameters]) -> dict[str, Parameters]:
    """The points by name. Of those that LightGBM cannot tell apart, such as 1 and 1.0, there is only the first."""
    if spec.workload != BUILT_IN_WORKLOAD:
        return {point_name(parameters): parameters for parameters in points}
    first: dict[str, Parameters] = {}
    for parameters in points:
        first.setdefault(point_name({key: _whole(value) for key, value in parameters.items()}), parameters)
    return {point_name(parameters): parameters for parameters in first.values()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _renamed(window: Window, points: Mapping[str, Parameters]) -> Window:
    """A window at the point that its own became: by name, the point's parameters."""
    name = point_name(points[window.point]) if window.point else ""
    return window if window.point == name else msgspec.structs.replace(window, point=name)


def _key(spec: BatchSpec, key: str) -> str:
    """The name of a setting. A command has no sections: its `depth` fills `{param.depth}`."""
    return f"{PARAMETER}{key}" if spec.workload == COMMAND and "." not in key else canonical(key)


def _axis(text: str) -> Axis:
    """The values of one `KEY=V1,V2`, each a point of its own."""
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise BadParam(text=text, why="expected KEY=VALUE,VALUE")
    if "" in (given := _values(values)) and '""' not in values and "''" not in values:
        raise BadParam(text=text, why='there is nothing beside a comma (empty text is written as "")')
    return [{key.strip(): value} for value in given]


def _values(text: str) -> list[Any]:
    """Values between commas, as TOML has them; what is not TOML is text."""
    try:
        values: list[Any] = _toml(f"[{text}]")
    except ValueError:
        return [_value(word.strip()) for word in text.split(",")]
    return values


def _value(text: str) -> Any:
    try:
        return _toml(text)
    except ValueError:
        return text


def _toml(text: str) -> Any:
    """A TOML value as JSON has it: dates are text. Raises ValueError for what is no TOML, and for nan and inf."""
    parse_toml(f"value = [{text}]")  # fails behind a comment: `5#a` is text, and not the point of `5#b`
    value = msgspec.to_builtins(parse_toml(f"value = {text}")["value"])
    json.dumps(value, allow_nan=False)
    return value


def _require_distinct(axes: list[Axis]) -> None:
    """Raise ParametersTwice if two axes vary the same parameter."""
    seen: set[str] = set()
    for axis in axes:
        keys = {key for parameters in axis for key in parameters}
        if both := keys & seen:
            raise ParametersTwice(name=min(both), one="--param", other="another one, or --params")
        seen |= keys


def _rows(file: Path) -> Axis:
    """The rows of a CSV file, or the objects of a JSON file."""
    try:
        text = read_text(file)
    except NotText as error:
        raise BadParamsFile(place=str(file), why=error) from None
    rows = list(_json_rows(text, file) if is_json(text) else _csv_rows(text, file))
    if not rows:
        raise BadParamsFile(place=str(file), why="it has no rows")
    return rows


def _json_rows(text: str, file: Path) -> Iterator[Parameters]:
    number = 1
    try:
        for number, source in json_objects(text):
            parameters = msgspec.json.decode(source, type=dict[str, Any])
            if twice := name_given_twice(source):
                raise BadParamsFile(place=f"{file}:{number}", why=f"it gives {twice!r} twice")
            yield parameters
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadParamsFile(place=f"{file}:{number}", why=error) from None


def _csv_rows(text: str, file: Path) -> Iterator[Parameters]:
    """A point for each row; an empty cell leaves its setting as the batch has it."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    try:
        heading = [name.strip() for name in next(reader, [])]
        if twice := {name for name in heading if not name or heading.count(name) > 1}:
            raise BadParamsFile(place=f"{file}:1", why=f"the heading has {min(twice)!r} twice, or a column without one")
        for row in reader:
            if len(row) > len(heading):
                raise BadParamsFile(
                    place=f"{file}:{reader.line_num}", why=f"it has {len(row)} cells, not {len(heading)}"
                )
            if any(cell.strip() for cell in row):
                yield {name: _value(cell.strip()) for name, cell in zip(heading, row, strict=False) if cell.strip()}
    except csv.Error as error:
        raise BadParamsFile(place=f"{file}:{reader.line_num}", why=error) from None
