"""Notes on the data and the results of a batch, for people and for `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gpusched.client.drawing.listing import on_terminal
from gpusched.core.model import DataNotes
from gpusched.core.worth import constants_note, imports_note
from gpusched.protocol import BatchDetail, WindowLine


def notes_object(notes: DataNotes) -> dict[str, Any]:
    """The notes by symbol, as an entry of a JSON object; empty if there are none."""
    return {"data_notes": msgspec.to_builtins(notes)} if notes else {}


def print_notes(notes: DataNotes) -> None:
    """Print the notes below a table, or on stderr if the table goes through a pipe."""
    if not notes:
        return
    from gpusched.client.drawing.summary import notes_lines
    from gpusched.client.drawing.terminal import open_console

    console = open_console(stderr=not on_terminal())
    for line in ("", "About the data", *(f"  {line}" for line in notes_lines(notes))):
        console.print(line)


def print_worth(detail: BatchDetail, results: Iterable[WindowLine]) -> None:
    """Print how many models predict a constant, and of the first window that imports for longer than it trains.

    Where `print_notes` prints; nothing if there are none.
    """
    models = detail.batch.counts.get("succeeded", 0) + detail.batch.counts.get("reused", 0)
    slow = (
        imports_note(detail.spec, line.key.label, line.result.phases, line.seconds)
        for line in results
        if line.result is not None
    )
    for note in (constants_note(detail.batch.constants, models, detail.spec), next(filter(None, slow), "")):
        if note:
            from gpusched.client.drawing.terminal import open_console

            open_console(stderr=not on_terminal()).print(note, style="yellow")
