"""A note on workloads whose windows import for longer than they train."""

from __future__ import annotations

from gpusched.core.entry import parse
from gpusched.core.events import WindowMoved
from gpusched.core.model import BatchSpec
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Finished, Succeeded
from gpusched.supervisor.followers import Followers, News, Noted


class ImportNotes:
    """Notes once for each batch that its windows' imports take longer than all else that they do."""

    def __init__(self, scheduler: Scheduler, followers: Followers) -> None:
        self._scheduler = scheduler
        self._followers = followers
        self._told: set[str] = set()

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, new=Finished(outcome=Succeeded(result=result))):
                seconds = result.phases.get("import", 0.0)
                batch = self._scheduler.batch(key.batch_id)
                if batch is None or seconds <= result.seconds / 2 or key.batch_id in self._told:
                    return
                self._told.add(key.batch_id)
                self._followers.follow(Noted(_sentence(batch.spec, key.label, seconds, result.seconds)))


def _sentence(spec: BatchSpec, label: str, seconds: float, total: float) -> str:
    entry = parse(spec.workload)
    module = spec.workload if entry is None else entry.module
    return (
        f"{label} took {seconds:.1f} of its {total:.1f} s to import modules: move those imports to the top of {module},"
        " where they are made once for all windows"
    )
