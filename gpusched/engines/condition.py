"""The condition of a supervisor: whether it is leaving, and what is wrong with it at the moment.

Whoever meets trouble tells it here, and takes it back when it is over. All who show it (the log, `status`, `top`,
`doctor`, the service manager, the metrics) ask here, or follow.
"""

from __future__ import annotations

from collections.abc import Callable

from gpusched import clock
from gpusched.protocol import Trouble, TroubleKind

#: Called with a trouble and whether it is there (again, or in other words) or over.
Follower = Callable[[Trouble, bool], None]


class Condition:
    """See the module."""

    def __init__(self) -> None:
        #: set when it is told to stop
        self.draining = False
        self._troubles: dict[tuple[TroubleKind, str], Trouble] = {}
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """All that is wrong, the oldest first."""
        return tuple(self._troubles.values())

    @property
    def unwritable(self) -> str | None:
        """What keeps the store from being written, or None."""
        return next((trouble.text for trouble in self._troubles.values() if trouble.kind == "store"), None)

    def tell(self, kind: TroubleKind, about: str, text: str) -> None:
        """`about` is what is in trouble, `text` a sentence. Telling the same again changes nothing."""
        known = self._troubles.get((kind, about))
        if known is not None and known.text == text:
            return
        trouble = Trouble(kind=kind, about=about, text=text, since=known.since if known else clock.wall())
        self._troubles[kind, about] = trouble
        self._announce(trouble, True)

    def clear(self, kind: TroubleKind, about: str) -> None:
        """It is over, if there was any."""
        trouble = self._troubles.pop((kind, about), None)
        if trouble is not None:
            self._announce(trouble, False)

    def _announce(self, trouble: Trouble, present: bool) -> None:
        for follower in self._followers:
            follower(trouble, present)
