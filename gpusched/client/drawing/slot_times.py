"""The last minutes of a device's slots: a line each, in which a window is as long as it took."""

from __future__ import annotations

from itertools import groupby

from gpusched.client.drawing.line import Line
from gpusched.client.drawing.text import Glyphs
from gpusched.client.views.slots import SlotView
from gpusched.core.samples import RECENT_S

#: a cell in which the slot was free, was held, in which a window began, in which one failed
_FREE, _HELD, _BEGINS, _FAILS = range(4)
_CELLS, _PLAIN_CELLS = "·━┣×", ".=[x"
_STYLES = ("dim", "green", "green", "bold red")
_RUNNING = "cyan"


def slot_line(slot: SlotView, known_since: float, latest: float, cells: int, each: int, draw: Glyphs) -> Line:
    """So many cells up to the instant `latest`, each of two times `each` samples, as the graphs above have them.

    Blank before `known_since`. Instants are Unix times.
    """
    width = each * RECENT_S
    end = int(latest // width)

    def place(at: float) -> int:
        return (2 * cells - 1 - (end - int(at // width))) // 2

    begin = max(0, min(cells, place(known_since)))
    kinds = [_FREE] * cells
    for worked in slot.worked:
        if 0 <= (at := place(worked.number * RECENT_S)) < cells:
            kind = _FAILS if worked.failed else _BEGINS if worked.begins else _HELD
            kinds[at] = max(kinds[at], kind)
    running = cells
    if slot.held_since is not None:
        running = max(0, min(cells - 1, place(slot.held_since)))
        for at in range(running, cells):
            kinds[at] = max(kinds[at], _BEGINS if at == place(slot.held_since) else _HELD)
        begin = min(begin, running)
    shown = _PLAIN_CELLS if draw.ascii_only else _CELLS
    line = Line(" " * begin)
    styles = [_RUNNING if at >= running and kinds[at] != _FAILS else _STYLES[kinds[at]] for at in range(cells)]
    for style, run in groupby(range(begin, cells), key=styles.__getitem__):
        line.append("".join(shown[kinds[at]] for at in run), style)
    return line
