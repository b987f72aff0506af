"""Changes that people ask for, of one window or of all of a batch: what is asked, how far it is, and whose turn it is.

A batch can have 200,000 windows, and nobody else shall wait until all of them have been changed. So a change is made in
slices, each in a turn of its own, and what is asked of a batch meanwhile waits behind it. It is recorded how far a
change is, so that the next supervisor goes on where this one died. One that fits into a slice is never recorded.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Verb = Literal["cancel", "hold", "release", "retry"]

#: windows that a turn changes at most: 20 ms on a slow machine
SLICE_WINDOWS = 100
#: a batch with more windows is one of which not everything can be done in a turn
LARGE = 1000
#: windows that it looks at for each of them
LOOKED_AT = 100


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Do `verb` to one window, or to all windows of a batch that it applies to."""

    verb: Verb
    #: None: all of them
    label: str | None = None
    #: tells the changes of a batch apart; they are made in this order
    number: int = 1
    #: windows from the first that have been looked at
    done: int = 0
    #: windows that it applied to so far
    windows: int = 0
