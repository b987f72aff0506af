"""`config`: the configuration in force, and where each value comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from gpusched.cli.commands.batches import load_config
from gpusched.client.drawing.listing import on_terminal, print_listing
from gpusched.config import SECTIONS, Loaded, workload_settings
from gpusched.errors import DONE


def show(options: argparse.Namespace) -> int:
    """Print every setting."""
    loaded = load_config(options)
    rows = settings(loaded)
    if options.json:
        document: dict[str, Any] = {
            "file": str(loaded.path) if loaded.path else None,
            "settings": {key: {"value": _plain(value), "origin": origin} for key, value, origin in rows},
        }
        print(json.dumps(document))  # noqa: T201
        return DONE
    if not on_terminal():
        texts = [(key, _text(value), origin) for key, value, origin in rows]
        print_listing(("setting", "value", "from"), texts, styles={})
        return DONE
    from gpusched.client.drawing.terminal import open_console
    from gpusched.client.drawing.text import clean

    open_console().print(clean(f"Configuration file: {loaded.path or 'none'}"), soft_wrap=True)
    # The file is named above, so its path is left out; values may be long and come last.
    near = [(key, origin.replace(f"{loaded.path}:", "line "), _text(value)) for key, value, origin in rows]
    print_listing(("setting", "from", "value"), near, styles={"default": "dim"})
    return DONE


def settings(loaded: Loaded) -> list[tuple[str, Any, str]]:
    """(`section.key`, value, origin) of every setting, including LightGBM's parameters with the workload's defaults."""
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
    """The origin of a LightGBM parameter, which may have been given by an alias."""
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
