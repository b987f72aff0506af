"""Followers: who hears of which news, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from gpusched.core.events import BatchFinished, BatchReleased
from gpusched.supervisor.followers import TURN_ENDED, Followers, News, Noted, TurnEnded

FINISHED, RELEASED = BatchFinished(batch_id="b", at=1.0), BatchReleased(batch_id="b", at=2.0)


class Listener:
    def __init__(self, name: str, heard: Callable[[tuple[str, News]], None]) -> None:
        self._name = name
        self._heard = heard

    def follow(self, news: News) -> None:
        self._heard((self._name, news))


def test_a_follower_hears_the_kinds_that_it_has_named() -> None:
    heard: list[tuple[str, News]] = []
    followers = Followers(Listener("all", heard.append))
    followers.add(Listener("ends", heard.append), BatchFinished, TurnEnded)
    for news in (FINISHED, RELEASED, TURN_ENDED):
        followers.follow(news)
    assert heard == [
        ("all", FINISHED),
        ("ends", FINISHED),
        ("all", RELEASED),
        ("all", TURN_ENDED),
        ("ends", TURN_ENDED),
    ]


def test_a_follower_hears_what_happens_after_it_has_joined() -> None:
    heard: list[tuple[str, News]] = []
    followers, note = Followers(), Noted("a note")
    followers.follow(FINISHED)
    followers.add(Listener("later", heard.append), BatchFinished)
    followers.add(Followers(Listener("within", heard.append)))
    followers.follow(FINISHED)
    followers.follow(note)
    assert heard == [("later", FINISHED), ("within", FINISHED), ("within", note)]
