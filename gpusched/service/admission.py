"""Admission: the conditions for a batch to be accepted, and the steps: check, survey, hand over, commit.

A request that could leave a root, repeat a window or break the store is refused before that, by `submission`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import clock, directories
from gpusched.command import WORKLOAD as COMMAND
from gpusched.command.lookup import check_here
from gpusched.command.schema import parse_settings
from gpusched.core import planning
from gpusched.core.events import TermsRequested
from gpusched.core.model import Batch, BatchSpec, Choice, DeviceChoice, Existing
from gpusched.core.planning import Plan
from gpusched.core.terms import NAMES, Terms, differences, terms_of, with_terms
from gpusched.devices.naming import Selected
from gpusched.directories import NotOurs
from gpusched.engines.engine import resolve
from gpusched.errors import DaemonError, InputError, one_error
from gpusched.protocol import Submit
from gpusched.service.clients import Peer
from gpusched.service.heartbeat import beating
from gpusched.service.submission import BadSubmission, check, check_terms
from gpusched.service.surveys import Surveys
from gpusched.service.territory import Place, Territory, foreign, unreadable, user_name
from gpusched.supervisor.existing import taken_over
from gpusched.supervisor.portions import SLICE_WINDOWS
from gpusched.supervisor.runtime import Runtime

#: earlier batches of the same name whose results a batch may take over without being told to
MOST_RELATED = 5
#: seconds that a client waits for a store that cannot be written
COMMIT_PATIENCE_S = 10.0


class NameTaken(InputError):
    problem = "there is a batch {name} already, and it asks for something else"
    remedy = "give this one another --name; `gpusched status {name}` shows the one that is there"


class OutputTaken(InputError):
    problem = "the unfinished batch {other} writes to {path} too"
    remedy = "give this one another output directory, or wait until that one is finished"


class OutputCleared(InputError):
    problem = "results in {path} are being removed by `gpusched forget --results`"
    remedy = "submit it again in a moment, or give it another output directory"


class Draining(DaemonError):
    problem = "the daemon is shutting down and accepts no more batches"
    remedy = "submit again when it has been started again"


class NotYetDurable(DaemonError):
    problem = "the daemon cannot write its store: {cause}"
    remedy = "make room or mend it: the daemon keeps the request while it runs, and carries it out once it can write"


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an admission."""

    batch_id: str
    how: Literal["new", "known", "again"]
    #: None if the batch was already at work
    plan: Plan | None = None
    #: changes of its terms, in words
    changes: tuple[str, ...] = ()
    #: on results of other directories, for people
    notes: tuple[str, ...] = ()


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """A request that could be planned now, by its identity."""

    request: Submit
    batch_id: str
    digest: str
    output_dir: Path


class Admission:
    """Accepts batches."""

    def __init__(self, runtime: Runtime, territory: Territory) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._supervisor = runtime.supervisor
        self._territory = territory
        self.fleet = runtime.fleet
        self.condition = runtime.condition
        #: held from reading a batch's state until the event that relies on it is handled
        self.changing = anyio.Lock()
        self._submitting: dict[str, anyio.Lock] = {}
        #: output directories whose results are being removed
        self._cleared: set[str] = set()
        self._surveys = Surveys()

    async def submit(
        self,
        request: Submit,
        on_progress: Callable[[int, int], None],
        on_trial: Callable[[str], None],
        peer: Peer | None = None,
    ) -> Admitted:
        """Accept a batch of the client `peer`. Raises GpuschedError.

        It is durable when this returns. If several clients submit the same batch at the same time, it is surveyed for
        the first, and the others wait for that. A batch that is already at work adopts the terms of this request.
        """
        identified = await self.identified(request, on_trial, peer)
        request, batch_id, digest = identified.request, identified.batch_id, identified.digest
        spec, output_dir = request.spec, identified.output_dir
        async with self.one_at_a_time(batch_id):
            if self._at_work(batch_id, digest):
                return await self._known(batch_id, request)
            place = await anyio.to_thread.run_sync(self._territory.place, peer, output_dir)
            await self._check_output(batch_id, place.path)
            is_theirs = request.output_dir is None or self._has_written(place)
            prepare = partial(self._territory.prepare, peer, _path(spec.data_root), place, is_theirs=is_theirs)
            readable = await anyio.to_thread.run_sync(prepare)
            request = msgspec.structs.replace(request, existing=self._with_places(request, batch_id, place, peer))
            if place.guarded:
                output_dir = place.path
            async with self._claimed(batch_id, output_dir, guarded=place.guarded):
                plan, choice = await self._planned(request, batch_id, output_dir, peer, on_progress)
                plan, notes = await taken_over(plan, request.existing, output_dir, guarded=place.guarded)
                if request.output_dir is not None and not readable:
                    notes = (*notes, unreadable(peer, place.path))
                # As long as an earlier round is not finished, its records cannot be removed in pieces.
                await self._patiently(partial(self._supervisor.over, batch_id))
                async with self.changing:
                    # During the survey, the daemon may have begun to stop, a retry may have reopened the last round, or
                    # another batch may have taken the directory.
                    self._refuse_if_draining()
                    if self._at_work(batch_id, digest):
                        return await self._known(batch_id, request)
                    await self._check_output(batch_id, place.path)
                    again = self._store.batch(batch_id) is not None
                    batch = Batch(
                        id=batch_id,
                        digest=digest,
                        output_dir=str(output_dir),
                        submitted_at=clock.wall(),
                        spec=planning.accepted(spec),
                        owner=place.owner,
                        guarded=place.guarded,
                        choice=choice,
                    )
                    await self._make_way(batch_id, len(plan.windows))
                    # Again: the last round may have been finishing, and have given the claim back since.
                    await self._supervisor.claims.take(batch_id, output_dir, guarded=place.guarded)
                    self._supervisor.hand_over(batch, plan.windows, plan.notes)
            # Without `changing`: other batches can be changed while this one becomes durable.
            await self.durable()
            while batch_id in self._supervisor.arrivals:
                await self.durable()
        return Admitted(batch_id=batch_id, how="again" if again else "new", plan=plan, notes=notes)

    async def identified(self, request: Submit, on_trial: Callable[[str], None], peer: Peer | None) -> Identified:
        """Check a request by itself, and name it. Raises GpuschedError."""
        self._refuse_if_draining()
        await anyio.to_thread.run_sync(check, request)  # it may have 100,000 windows
        spec = await self._admissible(request.spec, peer)
        await self._require(spec.device, on_trial)
        digest = await anyio.to_thread.run_sync(planning.digest, spec, request.output_dir)
        batch_id = request.name or planning.batch_id(request.source, digest)
        return Identified(
            request=msgspec.structs.replace(request, spec=spec),
            batch_id=batch_id,
            digest=digest,
            output_dir=Path(request.output_dir) if request.output_dir else self._territory.output_root / batch_id,
        )

    async def _admissible(self, spec: BatchSpec, peer: Peer | None) -> BatchSpec:
        """The batch with the workload that is run for a client. Raises InputError for one that is not."""
        workload = await anyio.to_thread.run_sync(self._territory.workload, peer, spec.workload)
        if spec.workload == COMMAND:
            await anyio.to_thread.run_sync(check_here, parse_settings(spec.settings), user_name())
        return msgspec.structs.replace(spec, workload=workload)

    async def _planned(
        self,
        request: Submit,
        batch_id: str,
        output_dir: Path,
        peer: Peer | None,
        on_progress: Callable[[int, int], None],
    ) -> tuple[Plan, Choice | None]:
        with one_error():
            async with beating(on_progress) as reach, self._surveys.place(foreign(peer)):
                return await self._runtime.planner.plan(
                    request.spec,
                    output_dir,
                    log=f"{batch_id}/survey.log",
                    existing=request.existing,
                    origins=request.origins,
                    on_progress=reach,
                )

    async def _make_way(self, batch_id: str, windows: int) -> None:
        """Remove the records of a large earlier round in pieces.

        Those of a small round are removed in the turn that accepts the next.
        """
        row = self._store.batch(batch_id)
        if row is None or row.state != "finished" or max(windows, sum(row.counts.values())) <= SLICE_WINDOWS:
            return
        self._store.mark_forgotten(batch_id, results=False)
        self._supervisor.drop(batch_id)
        while self._store.remove_forgotten(batch_id, SLICE_WINDOWS) == SLICE_WINDOWS:
            await anyio.lowlevel.checkpoint()

    async def _known(self, batch_id: str, request: Submit) -> Admitted:
        """Apply the terms of a request to the batch, which is already at work."""
        names = NAMES if request.terms is None else request.terms
        terms = {name: value for name, value in terms_of(request.spec).items() if name in names}
        changes = self.alter(batch_id, terms)
        await self.durable()
        return Admitted(batch_id=batch_id, how="known", changes=changes)

    def notes(self, spec: BatchSpec) -> tuple[str, ...]:
        """Notes on settings that are accepted, but perhaps unintended."""
        note = self.fleet.pool.too_many_threads(spec)
        return () if note is None else (note,)

    def alter(self, batch_id: str, terms: Terms) -> tuple[str, ...]:
        """Change the terms of a batch; return the changes in words. Raises BadSubmission for invalid terms."""
        batch = self._supervisor.scheduler.batch(batch_id) or self._store.accepted(batch_id)
        assert batch is not None
        try:
            spec = with_terms(batch.spec, terms)
        except ValueError as error:
            raise BadSubmission(why=error) from error
        check_terms(spec)
        changes = differences(batch.spec, spec)
        if changes:
            self._supervisor.post(TermsRequested(batch_id=batch_id, terms=terms))
        return changes

    async def _require(self, wanted: DeviceChoice, on_trial: Callable[[str], None]) -> None:
        """Raise NoDevice unless a batch that asks for `wanted` can be trained here.

        The pool's GPUs train with the device type that `auto` found. Another device type has to be tried first: a
        window that fails because a GPU lacks it would count as evidence against the GPU.
        """
        await self.fleet.require(wanted, on_trial)
        pool = self.fleet.pool
        # A lost GPU would fail the trial of its whole model. If all are lost, the batch is held until one is back.
        lost = {id_ for id_, state in self._supervisor.scheduler.pool.devices.items() if state.health == "quarantined"}
        gpus = tuple(device for device in pool.devices if device.kind != "host" and device.id not in lost)
        if gpus and wanted in ("gpu", "cuda"):
            usable = await resolve(self._runtime.engine.judge, Selected(gpus, pool.notes), wanted)
            msgspec.structs.replace(pool, devices=usable.devices, notes=usable.notes).require(wanted)

    async def durable(self) -> None:
        """Wait until the supervisor has committed all requests so far. Raises NotYetDurable if the store is broken."""
        if (cause := await self._patiently(self._supervisor.committed)) is not None:
            raise NotYetDurable(cause=cause)

    async def _patiently(self, wait: Callable[[], Awaitable[None]]) -> str | None:
        """Wait for something that takes commits; return early, with the cause, if the store is broken."""
        while True:
            with anyio.move_on_after(COMMIT_PATIENCE_S):
                await wait()
                return None
            if (cause := self.condition.unwritable) is not None:
                return cause

    def at_work(self, batch_id: str) -> bool:
        """Whether the supervisor has the batch and it is not finished."""
        return self._supervisor.scheduler.is_at_work(batch_id)

    def _at_work(self, batch_id: str, digest: str) -> bool:
        batch = self._supervisor.scheduler.batch(batch_id) or self._store.accepted(batch_id)
        if batch is not None and batch.digest != digest:
            raise NameTaken(name=batch_id)
        return self.at_work(batch_id)

    async def _check_output(self, batch_id: str, real: Path) -> None:
        """Raise OutputTaken if another batch at work writes to the same directory, even by another path.

        Raises OutputCleared while results are removed from it.
        """
        if str(real) in self._cleared:
            raise OutputCleared(path=real)
        arriving, scheduler = self._supervisor.arrivals.batches, self._supervisor.scheduler
        others = {b.output_dir: b.id for b in scheduler.open_batches() if b.id != batch_id and self.at_work(b.id)}
        others |= {b.output_dir: b.id for b in arriving}
        for path, other in others.items():
            if await anyio.to_thread.run_sync(directories.is_same, Path(path), real):
                raise OutputTaken(other=other, path=real)

    def _has_written(self, place: Place) -> bool:
        """Whether the last batch in that directory was of the same client, for whom the daemon made the directory."""
        return place.owner is not None and place.owner == self._store.owner_of_output(str(place.path))

    def _with_places(self, request: Submit, batch_id: str, place: Place, peer: Peer | None) -> Existing:
        """The request's wishes, with directories whose results may be copied for the client. Raises InputError."""
        owner_of = self._store.owner_of_output
        places = (self._territory.results(peer, Path(path), owner_of) for path in request.existing.reuse_from)
        by_default = request.name is None and request.output_dir is None
        return msgspec.structs.replace(
            request.existing,
            reuse_from=tuple(map(str, places)),
            related=tuple(self._related(request, batch_id, place)) if by_default else (),
            owner=foreign(peer),
        )

    def _related(self, request: Submit, batch_id: str, place: Place) -> Iterator[str]:
        """The default directories of the client's last batches with the same symbols file and settings.

        With one symbol more, or a later end, a batch is another one with a directory of its own: it takes from them.
        """
        settings = planning.settings_digest(request.spec)
        for batch in self._store.named_like(planning.batch_id(request.source, ""), MOST_RELATED):
            output_dir, is_other = Path(batch.output_dir), batch.id != batch_id
            by_default = output_dir.name == batch.id and output_dir.parent == place.path.parent
            alike = batch.owner == place.owner and planning.settings_digest(batch.spec) == settings
            if is_other and by_default and alike:
                yield batch.output_dir

    async def claim(self, batch_id: str) -> None:
        """Claim the directory of an accepted batch before its windows go on. Raises OutputTaken, OutputInUse.

        One that cannot be opened now is not claimed: the windows fail, and say why.
        """
        batch = self._supervisor.scheduler.batch(batch_id) or self._store.accepted(batch_id)
        assert batch is not None
        output_dir = Path(batch.output_dir)
        await self._check_output(batch_id, await anyio.to_thread.run_sync(output_dir.resolve))
        with contextlib.suppress(OSError, NotOurs):
            await self._supervisor.claims.take(batch_id, output_dir, guarded=batch.guarded)

    @contextlib.asynccontextmanager
    async def _claimed(self, batch_id: str, output_dir: Path, *, guarded: bool) -> AsyncIterator[None]:
        """Claim the directory of a batch, and give it back unless the batch is handed over meanwhile."""
        await self._supervisor.claims.take(batch_id, output_dir, guarded=guarded)
        try:
            yield
        finally:
            self._supervisor.claims.give_back(batch_id)

    @contextlib.asynccontextmanager
    async def clearing(self, batch_id: str, output_dir: Path) -> AsyncIterator[None]:
        """Within the context, refuse batches for a directory whose results are being removed: they might reuse them.

        Raises OutputInUse if another supervisor is at work there.
        """
        place = str(await anyio.to_thread.run_sync(output_dir.resolve))
        _, guarded = self._store.client_of(batch_id)
        self._cleared.add(place)
        try:
            with contextlib.suppress(OSError, NotOurs):
                await self._supervisor.claims.take(batch_id, output_dir, guarded=guarded, make=False)
            yield
        finally:
            self._supervisor.claims.give_back(batch_id)
            self._cleared.discard(place)

    def _refuse_if_draining(self) -> None:
        if self.condition.draining:
            raise Draining

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, batch_id: str) -> AsyncIterator[None]:
        """Within the context, nobody else can accept, retry or forget the batch with that id."""
        lock = self._submitting.setdefault(batch_id, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._submitting.pop(batch_id, None)


def _path(text: str) -> Path | None:
    """A path that may be left out."""
    return Path(text) if text else None
