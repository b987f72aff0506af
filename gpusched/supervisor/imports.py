"""A note on workloads whose windows import for longer than they train."""

from __future__ import annotations

from gpusched.core.events import WindowMoved
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Finished, Succeeded
from gpusched.core.worth import imports_note
from gpusched.supervisor.followers import Followers, News, Noted


class ImportNotes:
    """Notes once for each batch that its windows' imports take longer than all else that they do."""

    def __init__(self, scheduler: Scheduler, followers: Followers) -> None:
        self._scheduler = scheduler
        self._followers = followers
        self._told: set[str] = set()

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, new=Finished(outcome=Succeeded(result=result))) if key.batch_id not in self._told:
                batch = self._scheduler.batch(key.batch_id)
                if batch and (note := imports_note(batch.spec, key.label, result.phases, result.seconds)):
                    self._told.add(key.batch_id)
                    self._followers.follow(Noted(note))
