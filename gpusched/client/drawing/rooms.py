"""The room that each panel of `top` gets: the same for the same screen, and the panels that matter grow first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gpusched.client.views.panels import Panel

#: columns from which panels stand side by side
BESIDE = 160
#: share of the left side, in percent
LEFT = 60
#: lines of a border
BORDER = 2


class Area(msgspec.Struct, frozen=True):
    """The place of a panel on the screen, its border included."""

    panel: Panel
    x: int
    y: int
    width: int
    height: int


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """The lines that a panel could use inside of its border."""

    #: lines of its rows
    lines: int
    #: further lines, for graphs: some, and at most
    some: int = 0
    most: int = 0
    #: further lines come in lots of this size: one line for each device
    lot: int = 1


#: Panel by panel, up to how many lines each grows, one step after the other; "all": its rows, "some" and "most": also
#: lines for graphs
_Step = tuple[Panel, int | str]
_ALONE: tuple[_Step, ...] = (
    ("devices", 4), ("batches", 3), ("running", 3), ("failed", 2), ("devices", "all"), ("running", "all"),
    ("finished", 2), ("devices", "some"), ("failed", 5), ("batches", 8), ("finished", 6), ("devices", "most"),
    ("failed", "all"), ("finished", "all"), ("batches", "all"),
)  # fmt: skip
_LEFT: tuple[_Step, ...] = (
    ("devices", 4), ("running", 6), ("devices", "all"), ("running", "all"), ("devices", "most"),
)  # fmt: skip
_RIGHT: tuple[_Step, ...] = (
    ("batches", 4), ("failed", 4), ("finished", 4), ("batches", 12), ("failed", 12), ("finished", "all"),
    ("failed", "all"), ("batches", "all"),
)  # fmt: skip
#: lines of the panel that keys act upon, at least
_FOCUSED = 3


def areas(wants: Mapping[Panel, Want], focused: Panel | None, top: int, width: int, height: int) -> list[Area]:
    """Where the panels are, in `height` lines from the line `top` on. Those that find no room are left out."""
    if width < BESIDE:
        return _column(_heights(wants, focused, _ALONE, height), 0, top, width)
    left = width * LEFT // 100
    return [
        *_column(_heights(wants, focused, _LEFT, height), 0, top, left),
        *_column(_heights(wants, focused, _RIGHT, height), left, top, width - left),
    ]


def _column(heights: Mapping[Panel, int], x: int, y: int, width: int) -> list[Area]:
    column = []
    for panel, height in heights.items():
        column.append(Area(panel, x, y, width, height))
        y += height
    return column


def _heights(wants: Mapping[Panel, Want], focused: Panel | None, steps: Sequence[_Step], room: int) -> dict[Panel, int]:
    """The heights of the panels that find room, borders included, in the order in which `steps` name them first."""
    order = list(dict.fromkeys(panel for panel, _ in steps))
    heights: dict[Panel, int] = {}

    def grow(panel: Panel, lines: int) -> None:
        """Let a panel have up to `lines` lines inside; one that is not there yet needs its border, too."""
        nonlocal room
        want = wants.get(panel)
        if want is None or want.lines == 0:
            return
        have = heights.get(panel, 0)
        more = min(BORDER + lines - have, room)
        if more > 0 and have + more > BORDER:
            heights[panel] = have + more
            room -= more

    # The panel that keys act upon is always there; then each has a line at least, as far as they fit.
    if focused in order:
        grow(focused, 1)
    for panel in order:
        if panel != "finished":
            grow(panel, 1)
    if focused in order:
        grow(focused, min(_FOCUSED, wants[focused].lines))
    for panel, upto in steps:
        if (want := wants.get(panel)) is not None:
            extra = {"some": want.some, "most": want.most}.get(str(upto), 0)
            if extra:
                left = room + heights.get(panel, 0) - BORDER - want.lines
                extra = max(0, min(extra, left) // want.lot * want.lot)
            grow(panel, want.lines + extra if isinstance(upto, str) else min(upto, want.lines))
    return {panel: heights[panel] for panel in order if panel in heights}
