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


class Follower(Protocol):
    def follow(self, news: News) -> None:
        """Hear of one piece of news; ignore it unless it is of a kind that matters here."""


class Followers:
    """Several followers as one: each hears the news in the order in which they joined."""

    def __init__(self, *followers: Follower) -> None:
        self._followers = list(followers)

    def add(self, follower: Follower) -> None:
        """Let a follower join; it hears what happens from now on."""
        self._followers.append(follower)

    def follow(self, news: News) -> None:
        for follower in self._followers:
            follower.follow(news)
