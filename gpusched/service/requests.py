"""The daemon's answer to each request. Independent of sockets: a client is an object that takes replies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import anyio
import anyio.lowlevel
import msgspec

from gpusched.core.events import (
    ChangeRequested,
    DrainRequested,
    ResumeRequested,
)
from gpusched.core.logs import log_of
from gpusched.core.model import WindowKey
from gpusched.core.states import Finished, Held, Queued, State
from gpusched.core.statuses import APPLIES_TO, Verb, applies, attempt_of, tally
from gpusched.errors import InputError
from gpusched.protocol import (
    BatchDetail,
    Batches,
    Change,
    Changed,
    ChangeDevice,
    Devices,
    End,
    ExplainWindow,
    Forget,
    GetBatch,
    GetHistory,
    GetResults,
    GetWindow,
    History,
    ListBatches,
    ListDevices,
    ListWindows,
    LogChunk,
    Ping,
    Pong,
    ReadLog,
    Reply,
    Request,
    Submit,
    Submitted,
    Subscribe,
    Surveyed,
    WindowLine,
    WindowPage,
)
from gpusched.service import views
from gpusched.service.admission import Admission, Admitted, NotYetDurable
from gpusched.service.clients import Peer
from gpusched.service.forgetting import Forgetting
from gpusched.service.hub import Hub, Subscriber
from gpusched.service.names import Names, devices, no_log
from gpusched.service.stages import Stages, waits
from gpusched.supervisor.inbox import now
from gpusched.supervisor.runtime import Runtime

#: windows in a page: read, converted and encoded without a break, in less than 20 ms
PAGE_WINDOWS = 250
#: seconds between reads of a log that a client follows: polling works on every file system, unlike inotify
FOLLOW_S = 0.2


class TermsOfAWindow(InputError):
    problem = "limits, workers and priority are those of a whole batch"
    remedy = "name the batch alone: `gpusched {verb} {batch} --set …`"


class NothingToAlter(InputError):
    problem = "batch {batch} is finished, and none of its windows would run on other terms"
    remedy = "submit it again with them: what is finished and unchanged is reused"


class ForgottenNowhere(InputError):
    problem = "a run forgets nothing while it is at work"
    remedy = "its records are in its output directory"


class ForgetWhat(InputError):
    problem = "neither a batch nor an age was named"
    remedy = "`gpusched forget BATCH` or `gpusched forget --older-than 30d`"


class Client(Subscriber, Protocol):
    """The client of a request."""

    @property
    def peer(self) -> Peer | None:
        """Its user and process, as the kernel reports them."""

    async def send(self, reply: Reply) -> None:
        """Send a reply in order, waiting until there is room. Raises if the client has gone or does not read."""

    def tell(self, reply: Reply) -> None:
        """Send a small and rare reply in order, without waiting."""

    @property
    def gone(self) -> bool:
        """Whether it is known to have hung up."""

    async def hung_up(self) -> None:
        """Wait until it has hung up or sends more data."""


class Requests:
    """Answers requests, one at a time for each client. `answer` raises GpuschedError for a request that fails."""

    def __init__(
        self,
        runtime: Runtime,
        hub: Hub,
        admission: Admission,
        forgetting: Forgetting | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._engine = runtime.engine
        self._store = runtime.store
        self._supervisor = runtime.supervisor
        self._hub = hub
        self._admission = admission
        self._forgetting = forgetting
        self._stages = stages or Stages(runtime, admission, hub.renew)
        self._names = Names(runtime.store)

    async def answer(self, request: Request, client: Client) -> None:
        match request:
            case Submit():
                await self._submit(request, client)
            case ListBatches():
                await client.send(Batches(batches=tuple(views.batches(self._store))))
            case GetBatch(batch_id=batch_id) if (stage := self._stages.status(batch_id)) is not None:
                await client.send(BatchDetail(batch=stage, spec=self._stages.request(batch_id).spec))
            case GetBatch(batch_id=batch_id):
                status, batch = self._names.status(batch_id), self._names.batch(batch_id)
                notes = self._store.notes(batch_id) if request.notes else {}
                await client.send(BatchDetail(batch=status, spec=batch.spec, choice=batch.choice, notes=notes))
            case ListWindows():
                await self._windows(request, client)
            case GetWindow(batch_id=batch_id, label=label):
                self._require_planned(batch_id)
                await client.send(self._names.window(WindowKey(batch_id, label)))
            case ExplainWindow(batch_id=batch_id, label=label):
                key = WindowKey(batch_id, label)
                state, explanation = self._state(key), self._supervisor.scheduler.explain(key, now())
                await client.send(views.explained(key, state, explanation, self._admission.condition.unwritable))
            case ReadLog():
                await self._log(request, client)
            case GetResults():
                await self._results(request, client)
            case GetHistory(batch_id=None):
                await client.send(History(samples=tuple(self._hub.recent.samples())))
            case GetHistory(batch_id=str(batch_id)):
                self._require_planned(batch_id)
                await client.send(History(samples=tuple(self._store.history(batch_id))))
            case Change():
                await self._change(request, client)
            case Forget():
                await self._forget(request, client)
            case ListDevices():
                await client.send(Devices(devices=views.devices(self._supervisor.scheduler.pool)))
            case ChangeDevice():
                await self._change_device(request, client)
            case Subscribe():
                await self._subscribe(request, client)
            case Ping():
                await client.send(self._pong())

    def _pong(self) -> Pong:
        condition = self._admission.condition
        return Pong(
            draining=condition.draining,
            active=self._supervisor.scheduler.active,
            unfinished=self._supervisor.scheduler.unfinished,
            trouble=condition.unwritable,
            troubles=condition.troubles,
            trying=self._admission.fleet.trying(),
        )

    # -- batches -----------------------------------------------------------------------------------------------------

    async def _submit(self, request: Submit, client: Client) -> None:
        scope = anyio.CancelScope()
        told = Surveyed(done=0, total=0)

        def on_progress(done: int, total: int) -> None:
            nonlocal told
            if (reached := Surveyed(done=done, total=total)) != told:
                told = reached
                client.tell(told)
            if client.gone:  # nobody waits for the answer, and the batch is not accepted yet
                scope.cancel()

        def on_trial(trying: str) -> None:
            client.tell(Surveyed(done=0, total=0, trying=trying))
            if client.gone:
                scope.cancel()

        with scope:
            admitted = await self._stages.submit(request, on_progress, on_trial, client.peer)
            if not isinstance(admitted, Admitted):
                await client.send(Submitted(batch=admitted, how="new"))
                return
            plan = admitted.plan
            await client.send(
                Submitted(
                    batch=self._names.status(admitted.batch_id),
                    how=admitted.how,
                    changes=admitted.changes,
                    notes=(*admitted.notes, *self._admission.notes(request.spec)),
                    replaces=plan.to_replace if plan else 0,
                    moves_aside=plan.to_move_aside if plan else 0,
                    choice=self._names.batch(admitted.batch_id).choice,
                )
            )

    def _require_planned(self, batch_id: str) -> None:
        """Raise UnknownBatch, or StageWaits for a batch that has no windows yet."""
        if (stage := self._stages.status(batch_id)) is not None:
            raise waits(stage)
        self._names.status(batch_id)

    def _state(self, key: WindowKey) -> State:
        self._require_planned(key.batch_id)
        return self._names.state(key)

    async def _windows(self, request: ListWindows, client: Client) -> None:
        self._require_planned(request.batch_id)
        self._names.check_status(request.status)
        await _send_pages(self._store.windows(request.batch_id, status=request.status), client)

    async def _results(self, request: GetResults, client: Client) -> None:
        self._require_planned(request.batch_id)
        await _send_pages(self._store.finished_windows(request.batch_id), client)

    async def _change(self, request: Change, client: Client) -> None:
        if (stage := self._stages.status(request.batch_id)) is not None:
            if request.label is not None or request.verb not in ("cancel", "release"):
                raise waits(stage)
            (self._stages.cancel if request.verb == "cancel" else self._stages.release)(request.batch_id)
            cancelled = msgspec.structs.replace(stage, state="finished") if request.verb == "cancel" else stage
            await client.send(Changed(batch=cancelled, windows=0))
            return
        batch_id, label, admission, note = request.batch_id, request.label, self._admission, ""
        status = self._names.status(batch_id)
        async with contextlib.AsyncExitStack() as alone:
            if request.verb == "retry":  # not while a submission of the same batch is replacing this round
                await alone.enter_async_context(admission.one_at_a_time(batch_id))
                await alone.enter_async_context(self._supervisor.recalled(batch_id))
            await alone.enter_async_context(admission.changing)
            if label is not None:
                key = WindowKey(batch_id, label)
                windows = int(applies(request.verb, self._names.state(key)))
                note = self._supervisor.scheduler.unheld(key) if request.verb == "hold" else ""
            else:
                windows = tally(status.counts, APPLIES_TO[request.verb])
                if request.verb == "release" and status.state == "held":
                    windows += tally(status.counts, ("queued",))
            if request.verb in ("retry", "release") and windows:
                await admission.claim(batch_id)  # nothing is awaited from here until the change is posted
            changes = self._alter(request, windows)
            if request.verb != "alter":
                self._supervisor.post(ChangeRequested(verb=request.verb, batch_id=batch_id, label=label))
            not_durable = await self._taken_effect(request.verb)
        # A large change advances turn by turn, without `changing`: other changes advance between its turns.
        while not_durable is None and self._supervisor.scheduler.is_changing(batch_id):
            not_durable = await self._taken_effect(request.verb)
        batch = self._names.status(batch_id)
        await client.send(Changed(batch=batch, windows=windows, changes=changes, not_durable=not_durable, note=note))

    async def _taken_effect(self, verb: Verb) -> str | None:
        """Wait until a change is durable. Return why it is not for a cancellation, which takes effect all the same.

        Raises NotYetDurable for all other verbs.
        """
        try:
            await self._admission.durable()
        except NotYetDurable:
            cause = self._admission.condition.unwritable
            if verb != "cancel" or cause is None:
                raise
            return cause
        return None

    def _alter(self, request: Change, windows: int) -> tuple[str, ...]:
        """Change the terms that a request names; return the changes in words."""
        if not request.terms:
            return ()
        if request.label is not None:
            raise TermsOfAWindow(batch=request.batch_id, verb=request.verb)
        if not windows and not self._admission.at_work(request.batch_id):
            raise NothingToAlter(batch=request.batch_id)
        return self._admission.alter(request.batch_id, request.terms)

    async def _forget(self, request: Forget, client: Client) -> None:
        if self._forgetting is None:
            raise ForgottenNowhere
        if request.batch_id is not None:
            self._require_planned(request.batch_id)
            forgotten = await self._forgetting.forget(request.batch_id, results=request.results, peer=client.peer)
        elif request.older_than_s is not None:
            seconds = max(0.0, request.older_than_s)
            forgotten = await self._forgetting.forget_older(seconds, results=request.results, peer=client.peer)
        else:
            raise ForgetWhat
        if forgotten.batches:
            self._hub.renew()  # there is no delta for it
        await client.send(forgotten)

    async def _subscribe(self, request: Subscribe, client: Client) -> None:
        if request.batch_id is not None and self._stages.status(request.batch_id) is None:
            self._names.status(request.batch_id)
        self._hub.subscribe(client, request.batch_id)
        try:
            await client.hung_up()
        finally:
            self._hub.unsubscribe(client)

    # -- devices -----------------------------------------------------------------------------------------------------

    async def _change_device(self, request: ChangeDevice, client: Client) -> None:
        ids = [status.device.id for status in devices(self._supervisor.scheduler.pool, request.device)]
        for device_id in ids:
            if request.verb == "drain":
                self._supervisor.post(DrainRequested(device_id=device_id))
            elif not self._admission.fleet.resume(device_id):
                self._supervisor.post(ResumeRequested(device_id=device_id))
        await self._admission.durable()
        changed = [s for s in views.devices(self._supervisor.scheduler.pool) if s.device.id in ids]
        await client.send(Devices(devices=tuple(changed)))

    # -- logs --------------------------------------------------------------------------------------------------------

    async def _log(self, request: ReadLog, client: Client) -> None:
        key = WindowKey(request.batch_id, request.label)
        # A client that follows a window before its launch gets the log of its first attempt, however short that is.
        attempt = request.attempt or _launched(self._state(key)) or int(request.follow)
        offset = min(max(0, request.offset), 1 << 62)
        while not client.gone:
            # First the state, then the log: if the attempt has ended, the log is complete when it is read.
            state = self._names.state(key)
            last = _launched(state)
            ended = isinstance(state, Finished) or attempt_of(state) > attempt
            if isinstance(state, Finished) and attempt > last > 0 and not request.attempt:
                break  # the attempt that the client waits for will not be made
            reached = await self._send_log(key, attempt, offset, client)
            written = 0 < attempt <= last  # an attempt without output leaves no file
            if reached is None and not written and (ended or not request.follow):
                raise no_log(key, state, attempt, last)
            offset = reached or 0
            if not request.follow or (ended and request.attempt) or (isinstance(state, Finished) and attempt >= last):
                break
            if ended:
                attempt, offset = attempt + 1, 0
            else:
                await anyio.sleep(FOLLOW_S)
        await client.send(End())

    async def _send_log(self, key: WindowKey, attempt: int, offset: int, client: Client) -> int | None:
        """Send a log from `offset` to its end; return the offset after it, or None if there is no such log.

        Offsets count all bytes that were written, also those that were cut out of the middle of the log since.
        """
        if await self._engine.read_log(log_of(key, attempt), offset) is None:
            return None
        while (piece := await self._engine.read_log(log_of(key, attempt), offset)) is not None and piece.data:
            await client.send(LogChunk(attempt=attempt, offset=piece.offset, data=piece.data))
            await anyio.lowlevel.checkpoint()
            offset = piece.offset + len(piece.data)
        return offset


def _launched(state: State) -> int:
    """The number of the last launch; 0 if there was none."""
    return attempt_of(state) - 1 if isinstance(state, Queued | Held) else attempt_of(state)


async def _send_pages(lines: Iterable[WindowLine], client: Client) -> None:
    """Send lines page by page, and let other tasks run after each page."""
    lines = map(views.listed, lines)
    while page := tuple(islice(lines, PAGE_WINDOWS)):
        await client.send(WindowPage(windows=page))
        await anyio.lowlevel.checkpoint()
    await client.send(End())
