"""The points of a sweep: a grid of `--param`, the rows of `--params`, and `--sample` of them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gpusched.cli.text_files import NotText, read_text
from gpusched.core import points
from gpusched.core.model import Parameters, Window
from gpusched.core.points import MOST_POINTS, Axis, point_name
from gpusched.errors import InputError, UsageError


class BadParam(UsageError):
    problem = "--param {text}: {why}"
    remedy = "give a setting and its values, such as --param lightgbm.num_leaves=15,31,63"


class BadParamsFile(InputError):
    problem = "the parameters cannot be read: {why}"
    remedy = "give a CSV file with a heading of settings, such as lightgbm.num_leaves, or one JSON object a line"


class TooManyPoints(UsageError):
    problem = "the sweep has {count:,} points, and {most:,} are the most"
    remedy = "take some of them, such as --sample 100, or give fewer values"


class ParametersTwice(UsageError):
    problem = "{name} is given by {place} and by the sweep"
    remedy = "leave it out in one of them"


class NothingToSample(UsageError):
    problem = "--{option} is for a sweep, and none is given"
    remedy = "give its values, such as --param lightgbm.num_leaves=15,31,63"


def asked_points(options: argparse.Namespace) -> dict[str, Parameters]:
    """The points that the options ask for, by name; empty without a sweep. Raises UsageError, InputError."""
    axes = [_axis(text) for text in options.param or ()]
    if options.params is not None:
        axes.insert(0, _rows(options.params))
    for option in ("sample", "seed"):
        if not axes and getattr(options, option) is not None:
            raise NothingToSample(option=option)
    if not axes:
        return {}
    _require_distinct(axes)
    wanted = options.sample
    if wanted is not None and wanted < 1:
        raise BadParam(text=f"… --sample {wanted}", why="expected at least one point")
    count = points.size(axes) if wanted is None else min(points.size(axes), wanted)
    if count > MOST_POINTS:
        raise TooManyPoints(count=count, most=MOST_POINTS)
    return points.points(axes) if wanted is None else points.sample(axes, wanted, options.seed or 0)


def at_points(
    windows: tuple[Window, ...], own: Mapping[str, Parameters], swept: Mapping[str, Parameters], place: str
) -> tuple[tuple[Window, ...], dict[str, Parameters]]:
    """Windows that were asked for one by one, each at every point of a sweep, and the points that result.

    A window may have parameters of its own (`own`, by point), which are then part of each of its points.
    """
    if not swept:
        return windows, dict(own)
    everywhere: list[Window] = []
    merged: dict[str, Parameters] = {}
    for window in windows:
        mine = own.get(window.point, {})
        for name, parameters in swept.items():
            if both := mine.keys() & parameters.keys():
                raise ParametersTwice(name=min(both), place=place)
            point = point_name(mine | parameters)
            merged[point] = mine | parameters
            label = f"{window.name}_{name}" if window.name else ""
            everywhere.append(msgspec.structs.replace(window, point=point, name=label))
    return tuple(everywhere), merged


def origins_of_points(options: argparse.Namespace, swept: Mapping[str, Parameters]) -> dict[str, str]:
    """For errors about a parameter: where its values are given."""
    typed = {text.partition("=")[0].strip() for text in options.param or ()}
    names = {name for parameters in swept.values() for name in parameters}
    return {name: "--param" if name in typed else str(options.params or options.symbols_file) for name in names}


def _axis(text: str) -> Axis:
    """The values of one `KEY=V1,V2`, each a point of its own."""
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise BadParam(text=text, why="expected KEY=VALUE,VALUE")
    return [{key.strip(): value} for value in _values(values)]


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
    value = msgspec.to_builtins(tomllib.loads(f"value = {text}")["value"])
    json.dumps(value, allow_nan=False)
    return value


def _require_distinct(axes: list[Axis]) -> None:
    """Raise ParametersTwice if two axes vary the same parameter."""
    seen: set[str] = set()
    for axis in axes:
        keys = {key for parameters in axis for key in parameters}
        if both := keys & seen:
            raise ParametersTwice(name=min(both), place="--param or --params")
        seen |= keys


def _rows(file: str) -> Axis:
    """The rows of a CSV file or the lines of a JSON Lines file."""
    try:
        text = read_text(Path(file))
    except NotText as error:
        raise BadParamsFile(place=file, why=error) from None
    rows = list(_json_rows(text, file) if text.lstrip("\ufeff \t\r\n").startswith("{") else _csv_rows(text, file))
    if not rows:
        raise BadParamsFile(place=file, why="it has no rows")
    return rows


def _json_rows(text: str, file: str) -> Iterator[Parameters]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.MsgspecError, RecursionError) as error:
                raise BadParamsFile(place=f"{file}:{number}", why=error) from None


def _csv_rows(text: str, file: str) -> Iterator[Parameters]:
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
