"""The client's side of the socket: connect, ask, follow. Frames and the greeting are in `link`.

Plain blocking calls over a plain socket: a command asks one thing and prints the answer, and an event loop would cost
more than the question. Whoever waits for other things too (a live view) selects on `Subscription.fileno`.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar, cast

from gpusched.client.link import GREETING_S, Link, NotADaemon, Unresponsive, limit_wait, refusal
from gpusched.config import NO_ORIGINS
from gpusched.core.model import BatchSpec, Existing
from gpusched.core.reasons import Explanation
from gpusched.core.samples import Sample
from gpusched.core.statuses import Verb
from gpusched.core.terms import NO_TERMS, Terms
from gpusched.errors import DaemonError
from gpusched.protocol import (
    BatchDetail,
    Batches,
    BatchStatus,
    Change,
    Changed,
    ChangeDevice,
    Delta,
    Devices,
    DeviceStatus,
    End,
    Explained,
    ExplainWindow,
    Forget,
    Forgotten,
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
    Problem,
    ReadLog,
    Reply,
    Request,
    Snapshot,
    Submit,
    Submitted,
    Subscribe,
    Surveyed,
    WindowDetail,
    WindowLine,
    WindowPage,
)
from gpusched.protocol.places import socket_paths


class NoDaemon(DaemonError):
    problem = "no daemon answers at {tried}"
    remedy = (
        "start one with `gpusched daemon`, or `systemctl --user start gpusched`, or `systemctl start gpusched`;"
        " `gpusched run` needs none"
    )


class NotAllowed(DaemonError):
    problem = "this user may not connect to the daemon at {path}"
    remedy = "ask its operator to add you to the group of daemon.group, then log in again"


def connect(explicit: Path | None = None) -> Connection:
    """A connection to the daemon at `explicit`, or to the first that is found; `Connection.path` says which.

    Raises NoDaemon, NotAllowed, OtherVersion, NotADaemon, Unresponsive.
    """
    paths = socket_paths(explicit)
    denied: Path | None = None
    for path in paths:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel's own time limits: with those of Python, a full backlog would be an error at once.
        limit_wait(peer, socket.SO_SNDTIMEO, GREETING_S)
        try:
            peer.connect(str(path))
        except BlockingIOError:
            peer.close()
            raise Unresponsive(path=path) from None
        except PermissionError:
            denied = denied or path
        except OSError as error:
            # nothing there, nobody listens, or the path is too long to be a socket's
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ENOTSOCK, None):
                peer.close()
                raise NotADaemon(path=path, cause=error.strerror) from error
        else:
            return Connection(Link(peer, path))
        peer.close()
    if denied is not None:
        raise NotAllowed(path=denied)
    raise NoDaemon(tried=" or ".join(map(str, paths)))


Answer = TypeVar("Answer")


class Connection:
    """A connection to the daemon; a context manager. One thing at a time: an iterator is read to its end, or closed
    with the connection, before anything else is asked.

    Every method raises GpuschedError: a refusal of the daemon, with its exit code, or HungUp.
    """

    def __init__(self, link: Link) -> None:
        #: path of the socket that was found
        self.path = link.path
        #: version, pid and state directory, as the daemon gave them
        self.daemon = link.daemon
        self._link = link
        self._busy = False

    @property
    def version(self) -> str:
        """The daemon's."""
        return self.daemon.version

    @property
    def state_dir(self) -> Path:
        """The daemon's, whose `logs` has the logs."""
        return Path(self.daemon.state_dir)

    def close(self) -> None:
        self._link.close()

    def abort(self) -> None:
        """From any thread: whoever waits for an answer gets HungUp."""
        self._link.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- batches -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        spec: BatchSpec,
        *,
        source: str,
        name: str | None = None,
        output_dir: Path | None = None,
        terms: tuple[str, ...] | None = None,
        origins: Mapping[str, str] = NO_ORIGINS,
        after: tuple[str, ...] = (),
        only_if: Literal["succeeded", "finished"] = "succeeded",
        not_before: float = 0.0,
        existing: Existing | None = None,
        on_survey: Callable[[int, int], None] = lambda done, total: None,
        on_trial: Callable[[str], None] = lambda trying: None,
    ) -> Submitted:
        """Have a batch accepted; it is durable when this returns. `source` is the stem of the symbols file.

        One that is at work goes on with those limits, workers and priority that `terms` names; None: all.
        `origins` tells where the workload's settings were given. It is planned and started when all batches in `after`
        have succeeded (or are finished, as `only_if` says), and not before the instant `not_before`, seconds since the
        epoch; until then its state is "waiting". `existing` decides about results that are there already.

        `on_survey` is told how many symbols of how many have been looked at, `on_trial` which GPUs are being tried if
        the batch has to wait for that.
        """
        self._ask(
            Submit(
                spec=spec,
                source=source,
                name=name,
                output_dir=None if output_dir is None else str(output_dir),
                terms=terms,
                origins=dict(origins),
                after=after,
                only_if=only_if,
                not_before=not_before,
                existing=existing or Existing(),
            )
        )
        while True:
            match self._answer(Surveyed, Submitted):
                case Surveyed(trying=trying) if trying:
                    on_trial(trying)
                case Surveyed(done=done, total=total):
                    on_survey(done, total)
                case Submitted() as submitted:
                    self._busy = False
                    return submitted

    def batches(self) -> tuple[BatchStatus, ...]:
        """All batches, in the order of acceptance."""
        return self._one(ListBatches(), Batches).batches

    def batch(self, batch_id: str, *, notes: bool = False) -> BatchDetail:
        """A batch in full; with `notes`, the notes on its data too."""
        return self._one(GetBatch(batch_id=batch_id, notes=notes), BatchDetail)

    def change(self, verb: Verb, batch_id: str, label: str | None = None, *, terms: Terms = NO_TERMS) -> Changed:
        """Apply a verb to a batch or to one of its windows; the batch goes on with other `terms`, if some are given."""
        return self._one(Change(verb=verb, batch_id=batch_id, label=label, terms=dict(terms)), Changed)

    def forget(
        self, batch_id: str | None = None, *, older_than_s: float | None = None, results: bool = False
    ) -> Forgotten:
        """Remove the records of a finished batch, or of all that finished so long ago; with `results`, those too."""
        return self._one(Forget(batch_id=batch_id, older_than_s=older_than_s, results=results), Forgotten)

    # -- windows -----------------------------------------------------------------------------------------------------

    def windows(self, batch_id: str, *, status: str | None = None) -> Iterator[WindowLine]:
        """The windows of a batch in the order of submission: all, or those in one state or outcome."""
        for page in self._several(ListWindows(batch_id=batch_id, status=status), WindowPage):
            yield from page.windows

    def window(self, batch_id: str, label: str) -> WindowDetail:
        return self._one(GetWindow(batch_id=batch_id, label=label), WindowDetail)

    def explain(self, batch_id: str, label: str) -> Explanation:
        """The state of a window, and the reasons if it waits."""
        return self._one(ExplainWindow(batch_id=batch_id, label=label), Explained).explanation

    def log(
        self, batch_id: str, label: str, *, attempt: int | None = None, offset: int = 0, follow: bool = False
    ) -> Iterator[LogChunk]:
        """The log of an attempt, of the last one if none is given.

        `follow` goes on until the attempt has ended, or where none is given until the window is finished.
        """
        request = ReadLog(batch_id=batch_id, label=label, attempt=attempt, offset=offset, follow=follow)
        return self._several(request, LogChunk)

    def results(self, batch_id: str) -> Iterator[WindowLine]:
        """The finished windows of a batch with their results, in the order of finishing."""
        for page in self._several(GetResults(batch_id=batch_id), WindowPage):
            yield from page.windows

    def history(self, batch_id: str | None = None) -> tuple[Sample, ...]:
        """Readings of the devices from the time when windows of a batch ran; None: of the last minutes."""
        return self._one(GetHistory(batch_id=batch_id), History).samples

    # -- the daemon --------------------------------------------------------------------------------------------------

    def devices(self) -> tuple[DeviceStatus, ...]:
        return self._one(ListDevices(), Devices).devices

    def drain(self, device: str | None) -> tuple[DeviceStatus, ...]:
        """Have nothing more placed on a device (id or prefix; None: all); those it was done to."""
        return self._one(ChangeDevice(verb="drain", device=device), Devices).devices

    def resume(self, device: str | None) -> tuple[DeviceStatus, ...]:
        """Open a device again (id or prefix; None: all); those it was done to."""
        return self._one(ChangeDevice(verb="resume", device=device), Devices).devices

    def ping(self) -> Pong:
        return self._one(Ping(), Pong)

    def subscribe(self, batch_id: str | None = None) -> Subscription:
        """A snapshot and everything that happens after it, of one batch or of all; takes the connection over."""
        self._ask(Subscribe(batch_id=batch_id))
        return Subscription(self._link, self._answer(Snapshot))

    # -- asking ------------------------------------------------------------------------------------------------------

    def _one(self, request: Request, kind: type[Answer]) -> Answer:
        self._ask(request)
        answer = self._answer(kind)
        self._busy = False
        return answer

    def _several(self, request: Request, kind: type[Answer]) -> Iterator[Answer]:
        """Send the request at once; the iterator that is returned waits for the answers."""
        self._ask(request)
        return self._answers(kind)

    def _answers(self, kind: type[Answer]) -> Iterator[Answer]:
        while not isinstance(answer := self._answer(kind, End), End):
            yield cast(Answer, answer)
        self._busy = False

    def _ask(self, request: Request) -> None:
        assert not self._busy, "the last answer was not read to its end"
        self._link.send(request)
        self._busy = True

    def _answer(self, *kinds: type[Answer]) -> Answer:
        reply = self._link.receive()
        if isinstance(reply, Problem):
            self._busy = False
            raise refusal(reply)
        if not isinstance(reply, kinds):
            raise NotADaemon(path=self.path, cause=f"unexpected {type(reply).__name__}")
        return reply


class Subscription:
    """Deltas, as they happen. A `Snapshot` replaces everything that was known.

    Iterating blocks, and ends never but with HungUp. A live view selects on `fileno` and then calls `pending`.
    """

    def __init__(self, link: Link, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._link = link

    def fileno(self) -> int:
        return self._link.fileno()

    def __iter__(self) -> Iterator[Delta | Snapshot]:
        while True:
            yield self._checked(self._link.receive())

    def until(self, deadline: float) -> Iterator[Delta | Snapshot]:
        """As iterating, up to an instant of the monotonic clock."""
        while True:
            yield from self.pending()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            select.select([self], [], [], left)

    def pending(self) -> list[Delta | Snapshot]:
        """Deltas that have arrived, without waiting. Call it before the first wait too: some may have come already."""
        return [self._checked(reply) for reply in self._link.arrived()]

    def _checked(self, reply: Reply) -> Delta | Snapshot:
        if isinstance(reply, Problem):
            raise refusal(reply)
        if not isinstance(reply, Delta | Snapshot):
            raise NotADaemon(path=self._link.path, cause=f"unexpected {type(reply).__name__}")
        return reply
