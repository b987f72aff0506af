"""Followers: everyone who hears of what happens, each by the one method `follow`.

Records are followed once they are durable, in order; reports of progress, readings, losses, troubles and notes at once.
A follower is called in the event loop's thread; it must be quick and must not raise.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from gpusched.core.events import DeviceLost, DeviceRead, Update
from gpusched.engines.condition import TroubleChanged


class Noted(msgspec.Struct, frozen=True):
    """A sentence for people, about a device or about the start."""

    text: str


class TurnEnded(msgspec.Struct, frozen=True):
    """A turn of the supervisor's loop is over, whether or not its records could be committed."""


TURN_ENDED = TurnEnded()

#: everything that followers hear of
News = Update | DeviceRead | DeviceLost | TroubleChanged | Noted | TurnEnded
Kinds = tuple[type[News], ...]


class Follower(Protocol):
    def follow(self, news: News) -> None:
        """Hear of one piece of news; ignore it unless it is of a kind that matters here."""


class Followers:
    """Several followers as one: each hears the news in the order in which they joined."""

    def __init__(self, *followers: Follower) -> None:
        """The given followers hear everything; `add` lets others join who hear less."""
        self._followers: list[tuple[Follower, Kinds]] = [(follower, ()) for follower in followers]
        #: those that hear news of a kind: a window's four moves would otherwise ask each of a dozen whether it cares
        self._hearing: dict[type[News], list[Follower]] = {}

    def add(self, follower: Follower, *kinds: type[News]) -> None:
        """Let a follower join; from now on it hears news of these kinds, or of all kinds if none is named."""
        self._followers.append((follower, kinds))
        self._hearing.clear()

    def follow(self, news: News) -> None:
        kind = type(news)
        if (hearing := self._hearing.get(kind)) is None:
            hearing = [follower for follower, kinds in self._followers if not kinds or kind in kinds]
            self._hearing[kind] = hearing
        for follower in hearing:
            follower.follow(news)
