"""`config`: the configuration in force, and where each value comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from gpusched.cli.batches import load_config
from gpusched.config import SECTIONS, Loaded, workload_settings
from gpusched.errors import DONE


def show(options: argparse.Namespace) -> int:
    """Print every setting."""
    loaded = load_config(options)
    rows = settings(loaded)
    if options.json:
        found: dict[str, Any] = {
            "file": str(loaded.path) if loaded.path else None,
            "settings": {key: {"value": _plain(value), "origin": origin} for key, value, origin in rows},
        }
        print(json.dumps(found))  # noqa: T201
        return DONE
    from rich.table import Table

    from gpusched.client import render

    console = render.open_console()
    if not console.is_terminal:
        for key, value, origin in rows:
            print(f"{key}\t{_text(value)}\t{origin}")  # noqa: T201
        return DONE
    console.print(f"Configuration file: {loaded.path or 'none'}", markup=False, highlight=False)
    table = Table("setting", "value", "from")
    for key, value, origin in rows:
        table.add_row(key, _text(value), origin, style="" if origin != "default" else "dim")
    console.print(table)
    return DONE


def settings(loaded: Loaded) -> list[tuple[str, Any, str]]:
    """(`section.key`, value, origin) of every setting, LightGBM's with the workload's defaults."""
    rows = [
        (f"{section}.{key}", getattr(getattr(loaded.config, section), key), loaded.origins.get(f"{section}.{key}"))
        for section, struct in SECTIONS.items()
        for key in struct.__struct_fields__
    ]
    rows += [
        (f"lightgbm.{name}", value, _lightgbm_origin(loaded, name))
        for name, value in workload_settings(loaded.config)["lightgbm"].items()
    ]
    return [(key, value, origin or "default") for key, value, origin in rows]


def _lightgbm_origin(loaded: Loaded, name: str) -> str | None:
    """Where a parameter comes from, by whichever of its names it was given."""
    from gpusched.teacher.parameters import CANONICAL

    for key, origin in loaded.origins.items():
        section, _, given = key.partition(".")
        if section == "lightgbm" and CANONICAL.get(given, given) == name:
            return origin
    return None


def _plain(value: Any) -> Any:
    return str(value) if not isinstance(value, bool | int | float | str | list | tuple | dict | None) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    structured = isinstance(value, bool | list | tuple | dict)
    return msgspec.json.encode(value).decode() if structured else str(value)
