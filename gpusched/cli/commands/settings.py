"""`config`: the configuration in force, and where each value comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from gpusched.cli.commands.batches import load_config
from gpusched.client.drawing.listing import on_terminal, print_listing
from gpusched.config import BUILT_IN_WORKLOAD, SECTIONS, Loaded, origins_of
from gpusched.errors import DONE
from gpusched.teacher.schema import lightgbm_parameters


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
    from gpusched.client.drawing.plain import clean
    from gpusched.client.drawing.terminal import open_console

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
    origins = origins_of(BUILT_IN_WORKLOAD, loaded.origins)  # a parameter may have been given by an alias
    lightgbm = {f"lightgbm.{name}": value for name, value in lightgbm_parameters(loaded.config.lightgbm).items()}
    rows += [(key, value, origins.get(key)) for key, value in lightgbm.items()]
    own = {f"workload.{name}": value for name, value in loaded.config.workload.items()}
    rows += [(key, value, loaded.origins.get(key)) for key, value in own.items()]
    return [(key, value, origin or "default") for key, value, origin in rows]


def _plain(value: Any) -> Any:
    return str(value) if not isinstance(value, bool | int | float | str | list | tuple | dict | None) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    structured = isinstance(value, bool | list | tuple | dict)
    return msgspec.json.encode(value).decode() if structured else str(value)
