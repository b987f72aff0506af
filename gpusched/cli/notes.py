"""Notes on the data and the results of a batch, for people and for `--json`."""

from __future__ import annotations

from typing import Any

import msgspec

from gpusched.client.drawing.listing import on_terminal
from gpusched.core.model import DataNotes
from gpusched.core.worth import constants_note
from gpusched.protocol import BatchDetail


def notes_object(notes: DataNotes) -> dict[str, Any]:
    """The notes by symbol, as an entry of a JSON object; empty if there are none."""
    return {"data_notes": msgspec.to_builtins(notes)} if notes else {}


def print_notes(notes: DataNotes) -> None:
    """Print the notes below a table, or on stderr if the table goes through a pipe."""
    if not notes:
        return
    from gpusched.client.drawing import terminal as render

    console = render.open_console(stderr=not on_terminal())
    for line in ("", "About the data", *(f"  {line}" for line in render.notes_lines(notes))):
        console.print(line, soft_wrap=True)


def print_worth(detail: BatchDetail) -> None:
    """Print how many models predict a constant, if any, where `print_notes` prints."""
    models = detail.batch.counts.get("succeeded", 0) + detail.batch.counts.get("reused", 0)
    if note := constants_note(detail.batch.constants, models, detail.spec):
        from gpusched.client.drawing import terminal as render

        render.open_console(stderr=not on_terminal()).print(note, style="yellow", soft_wrap=True)
