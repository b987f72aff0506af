"""The condition of a supervisor: whether it is leaving, and its present troubles.

Each trouble is reported here by the code that meets it, and cleared when it is over. Everything that shows troubles
(the log, `status`, `top`, `doctor`, the service manager, the metrics) reads them here, or follows.
"""

from __future__ import annotations

from collections.abc import Callable

from gpusched import clock
from gpusched.protocol import Trouble, TroubleKind

#: called with a trouble, and with True if it has begun or its text has changed, False if it is over
Follower = Callable[[Trouble, bool], None]


class Condition:
    """See the module."""

    def __init__(self) -> None:
        #: the supervisor has been told to stop
        self.draining = False
        self._troubles: dict[tuple[TroubleKind, str], Trouble] = {}
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

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
        self._announce(trouble, True)

    def clear(self, kind: TroubleKind, about: str) -> None:
        """Clear a trouble; nothing happens if there was none."""
        trouble = self._troubles.pop((kind, about), None)
        if trouble is not None:
            self._announce(trouble, False)

    def _announce(self, trouble: Trouble, present: bool) -> None:
        for follower in self._followers:
            follower(trouble, present)
