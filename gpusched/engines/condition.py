"""The condition of a supervisor: whether it is leaving, and its present troubles.

Each trouble is reported here by the code that meets it, and cleared when it is over. Everything that shows troubles
(the log, `status`, `top`, `doctor`, the service manager, the metrics) reads them here, or hears of the changes.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gpusched import clock
from gpusched.protocol import Trouble, TroubleKind


class TroubleChanged(msgspec.Struct, frozen=True):
    """A trouble has begun or its text has changed (`present`), or it is over."""

    trouble: Trouble
    present: bool


class Condition:
    """See the module."""

    def __init__(self) -> None:
        #: the supervisor has been told to stop
        self.draining = False
        self._troubles: dict[tuple[TroubleKind, str], Trouble] = {}
        self._heard_by: list[Callable[[TroubleChanged], None]] = []

    def heard_by(self, hear: Callable[[TroubleChanged], None]) -> None:
        """Call `hear` with every change from now on."""
        self._heard_by.append(hear)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """All present troubles, the oldest first."""
        return tuple(self._troubles.values())

    @property
    def unwritable(self) -> str | None:
        """The reason why the store cannot be written, or None."""
        return next((trouble.text for trouble in self._troubles.values() if trouble.kind == "store"), None)

    def tell(self, kind: TroubleKind, about: str, text: str) -> None:
        """Report a trouble: `about` names the thing in trouble, `text` is a sentence. Repetitions change nothing."""
        earlier = self._troubles.get((kind, about))
        if earlier is not None and earlier.text == text:
            return
        trouble = Trouble(kind=kind, about=about, text=text, since=earlier.since if earlier else clock.wall())
        self._troubles[kind, about] = trouble
        self._announce(TroubleChanged(trouble, present=True))

    def clear(self, kind: TroubleKind, about: str) -> None:
        """Clear a trouble; nothing happens if there was none."""
        trouble = self._troubles.pop((kind, about), None)
        if trouble is not None:
            self._announce(TroubleChanged(trouble, present=False))

    def _announce(self, change: TroubleChanged) -> None:
        for hear in self._heard_by:
            hear(change)
