"""Notes on the data of a batch: as people read them, and as `--json` has them."""

from __future__ import annotations

from typing import Any

import msgspec

from gpusched.client.drawing.listing import on_terminal
from gpusched.core.model import DataNotes


def notes_object(notes: DataNotes) -> dict[str, Any]:
    """By symbol; no key where there is nothing to know."""
    return {"data_notes": msgspec.to_builtins(notes)} if notes else {}


def print_notes(notes: DataNotes) -> None:
    """Below a table; where the table goes through a pipe, on stderr."""
    if not notes:
        return
    from gpusched.client.drawing import terminal as render

    console = render.open_console(stderr=not on_terminal())
    for line in ("", "About the data", *(f"  {line}" for line in render.notes_lines(notes))):
        console.print(line, soft_wrap=True)
