"""Changes that people request, to one window or to all windows of a batch, and their progress.

A batch can have 200,000 windows, and others must not wait until all of them have been changed. So a change is made in
slices, one for each turn, and later requests for the same batch wait behind it. The progress of a change is recorded,
so that the next supervisor continues where this one died. A change that fits into one slice is never recorded.
"""

from __future__ import annotations

import msgspec

from gpusched.core.statuses import WindowVerb

#: windows that a turn changes at most, unless it is told otherwise: 10 ms, with a line of the index for each
SLICE_WINDOWS = 50
#: batches with more windows than this are too large for some of the work to be done in one turn
LARGE = 1000
#: a slice looks at this many times as many windows as it may change
LOOKED_AT = 25


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Do `verb` to one window, or to all windows of a batch that it applies to."""

    verb: WindowVerb
    #: None: all windows of the batch
    label: str | None = None
    #: identifies the change within its batch; changes are made in this order
    number: int = 1
    #: windows, from the first, that have been looked at
    done: int = 0
    #: windows to which the verb has applied so far
    windows: int = 0
