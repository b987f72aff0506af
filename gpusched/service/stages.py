"""Stages: batches that are accepted now, and planned and started when others are done, or when it is time.

Until then a stage is its request in the store, with the client who made it. When a batch finishes, and when an instant
comes, every stage is looked at: it is submitted as its client would have, held with the reason if it cannot be, or left
to wait. So whatever happened while the daemon was away is found at its start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from gpusched import clock
from gpusched.core.events import BatchFinished, ChangeRequested
from gpusched.core.planning import INDEX
from gpusched.core.statuses import totals
from gpusched.core.wording import counted
from gpusched.errors import GpuschedError, InputError, StoreError, in_words
from gpusched.protocol import BatchStatus, Submit
from gpusched.service.admission import Admission, Admitted, NameTaken
from gpusched.service.clients import Peer
from gpusched.service.views import requested, stage_status
from gpusched.store.staged import StagedRow
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

log = logging.getLogger("gpusched.daemon")

#: seconds after which the instants of stages are looked at again at the latest, since the clock may be set
LOOK_S = 60.0


class UnknownPredecessor(InputError):
    problem = "there is no batch {name} to wait for"
    remedy = "`gpusched status` lists them all"


class Circle(InputError):
    problem = "{batch} would wait for itself: {circle}"
    remedy = "leave one of them out of --after"


class StageWaits(InputError):
    problem = "the batch {batch} has not been planned yet: {why}"
    remedy = "`gpusched cancel {batch}` drops it, `gpusched release {batch}` has it looked at again"


def waits(stage: BatchStatus) -> StageWaits:
    """The error of a request that needs the windows of a stage."""
    return StageWaits(batch=stage.id, why=stage.held_reason or f"it waits {stage.waits}")


class Stages:
    """The stages of the daemon. `on_change` is called when one has come, gone, or changed its state."""

    def __init__(self, runtime: Runtime, admission: Admission, on_change: Callable[[], None]) -> None:
        self._store = runtime.store
        self._admission = admission
        self._supervisor = runtime.supervisor
        self._on_change = on_change
        self._due = anyio.Event()
        #: the stage that is being planned, and the scope to end that by
        self._planned = "", anyio.CancelScope()

    # -- requests ------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        request: Submit,
        on_progress: Callable[[int, int], None],
        on_trial: Callable[[str], None],
        peer: Peer | None,
    ) -> Admitted | BatchStatus:
        """Accept a batch, now or as a stage; the answer is the status of the stage then. Raises GpuschedError."""
        if not request.after and request.not_before <= clock.wall():
            return await self._admission.submit(request, on_progress, on_trial, peer)
        identified = await self._admission.identified(request, on_trial, peer)
        batch_id = identified.batch_id
        for name in request.after:
            if self._store.batch(name) is None and self._row(name) is None:
                raise UnknownPredecessor(name=name)
        self._refuse_circles(batch_id, request.after, (batch_id,))
        if self._admission.at_work(batch_id):
            return await self._admission.submit(request, on_progress, on_trial, peer)
        earlier = self._row(batch_id)
        if earlier is not None and earlier.digest != identified.digest:
            raise NameTaken(name=batch_id)
        row = StagedRow(
            batch_id=batch_id,
            digest=identified.digest,
            request=msgspec.json.encode(msgspec.structs.replace(request, name=batch_id)),
            peer=None if peer is None else msgspec.json.encode(peer),
            submitted_at=clock.wall(),
            output_dir=str(identified.output_dir),
        )
        self._store.staged.put(row)
        self._changed()
        return stage_status(self._store, row)

    def status(self, batch_id: str) -> BatchStatus | None:
        row = self._row(batch_id)
        return None if row is None or self._admission.at_work(batch_id) else stage_status(self._store, row)

    def request(self, batch_id: str) -> Submit:
        row = self._row(batch_id)
        assert row is not None
        return requested(row)

    def cancel(self, batch_id: str) -> None:
        """Drop a stage, also while it is being planned."""
        self._store.staged.remove(batch_id)
        planned, scope = self._planned
        if planned == batch_id and batch_id not in self._supervisor.arrivals:
            scope.cancel()
        self._changed()

    def release(self, batch_id: str) -> None:
        """Look at a stage again that was held, and start one that waits for an instant as if that had come."""
        if (row := self._row(batch_id)) is not None:
            request = msgspec.structs.replace(requested(row), not_before=0.0)
            row = msgspec.structs.replace(row, request=msgspec.json.encode(request), held=None)
            self._store.staged.put(row)
            log.info("stage released batch=%s", batch_id)
        self._changed()

    def _changed(self) -> None:
        self._due.set()
        self._on_change()

    # -- work ----------------------------------------------------------------------------------------------------------

    def follow(self, news: News) -> None:
        if isinstance(news, BatchFinished):
            self._due.set()
        elif self._store.staged.rows():  # a batch was held or released, which is told of the stages that wait for it
            self._on_change()

    async def run(self) -> None:
        """Start stages when they are due. No fault of one, nor of the store, reaches the daemon."""
        while True:
            self._due = anyio.Event()
            waits: list[float] = []
            try:
                for batch_id in [row.batch_id for row in self._store.staged.rows()]:
                    if (row := self._row(batch_id)) is not None:  # else cancelled while another one was planned
                        await self._look(row)
                waits = [requested(row).not_before - clock.wall() for row in self._store.staged.rows()]
            except StoreError as error:
                log.warning("stages are looked at again later why=%r", error.sentence)
            soon = min([LOOK_S, *(wait for wait in waits if wait > 0)])
            with anyio.move_on_after(soon):
                await self._due.wait()

    async def _look(self, row: StagedRow) -> None:
        request = requested(row)
        if request.not_before > clock.wall():
            return
        done = []
        for name in request.after:
            status = self._store.batch(name)
            if self._row(name) is not None or (status is not None and status.state != "finished"):
                continue
            if why := _obstacle(name, status, request):
                self._hold(row, why)
                return
            assert status is not None
            done.append(status)
        if len(done) < len(request.after):
            self._hold(row, None)
        else:
            await self._start(row, request, done)

    async def _start(self, row: StagedRow, request: Submit, after: list[BatchStatus]) -> None:
        """Submit a stage as its client would have: the batches `after` are done, and its instant has come."""
        indexes = tuple(str(Path(batch.output_dir, INDEX)) for batch in after)
        spec = msgspec.structs.replace(request.spec, after=indexes)
        due = msgspec.structs.replace(request, spec=spec, after=(), not_before=0.0)
        peer = None if row.peer is None else msgspec.json.decode(row.peer, type=Peer)
        self._planned = row.batch_id, anyio.CancelScope()
        try:
            with self._planned[1]:
                await self._admission.submit(due, lambda done, total: None, lambda trying: None, peer)
        except GpuschedError as error:
            self._hold(row, str(error).replace("\n ", ":"))
            return
        except Exception as error:  # an unforeseen fault: in a loop of restarts nobody would be served
            why = in_words(error)
            if row.held != why:
                log.exception("a stage could not be started batch=%s", row.batch_id)
            self._hold(row, why)
            return
        finally:
            self._planned = "", anyio.CancelScope()
        if self._row(row.batch_id) is None:  # cancelled meanwhile
            if self._admission.at_work(row.batch_id):
                self._supervisor.post(ChangeRequested(verb="cancel", batch_id=row.batch_id))
            return
        self._store.staged.remove(row.batch_id)
        self._on_change()
        log.info("stage started batch=%s after=%s", row.batch_id, ",".join(request.after))

    def _hold(self, row: StagedRow, why: str | None) -> None:
        """Hold a stage with the reason, or have it wait again with None."""
        if row.held == why:
            return
        self._store.staged.hold(row.batch_id, why)
        if why is not None:
            log.warning("stage held batch=%s reason=%s", row.batch_id, why)
        self._on_change()

    def _row(self, batch_id: str) -> StagedRow | None:
        return self._store.staged.row(batch_id)

    def _refuse_circles(self, batch_id: str, after: tuple[str, ...], path: tuple[str, ...]) -> None:
        for name in after:
            if name == batch_id:
                raise Circle(batch=batch_id, circle=" after ".join((*path, name)))
            row = self._row(name)
            if row is not None:
                self._refuse_circles(batch_id, requested(row).after, (*path, name))


def _obstacle(name: str, status: BatchStatus | None, request: Submit) -> str:
    """Why a stage cannot start after a batch that is finished or gone; empty if it can."""
    if status is None:
        return f"{name} was cancelled before it started, or has been forgotten"
    if request.only_if == "finished":
        return ""
    sums = totals(status.counts)
    allowed = request.spec.limits.max_failure_rate * sums["total"]
    if sums["failed"] > allowed:
        return counted(sums["failed"], f"window of {name} has failed", f"windows of {name} have failed")
    if sums["cancelled"]:
        return counted(sums["cancelled"], f"window of {name} was cancelled", f"windows of {name} were cancelled")
    return "" if sums["succeeded"] or sums["reused"] else f"{name} has trained nothing"
