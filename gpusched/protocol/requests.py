"""The requests of a client, each with the replies that answer it; `Hello` comes before all of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gpusched.core.model import BatchSpec, Existing
from gpusched.core.statuses import Verb


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """The first frame of a client."""

    protocol: int
    #: version of the client's gpusched, for messages
    version: str


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Plan a batch and accept it. Answered with any number of `Surveyed`, then `Submitted`, when it is durable."""

    spec: BatchSpec
    #: stem of the symbols file; the batch is named after it unless it has a `name`
    source: str
    name: str | None = None
    #: absolute; None: below the daemon's output root
    output_dir: str | None = None
    #: names of the terms (`gpusched.core.terms`) that were given explicitly, which a batch at work adopts; None: all
    terms: tuple[str, ...] | None = None
    #: `section.key` of the workload's settings → where the value was given, for errors about it
    origins: dict[str, str] = {}
    #: batches that are done before it is planned and started, and how they have to end; instant before which it is not
    after: tuple[str, ...] = ()
    only_if: Literal["succeeded", "finished"] = "succeeded"
    not_before: float = 0.0
    existing: Existing = Existing()


class ListBatches(msgspec.Struct, frozen=True, kw_only=True, tag="list_batches"):
    """Answered with `Batches`."""


class GetBatch(msgspec.Struct, frozen=True, kw_only=True, tag="get_batch"):
    """Answered with `BatchDetail`."""

    batch_id: str
    #: whether the reply includes the notes on its data
    notes: bool = False


class ListWindows(msgspec.Struct, frozen=True, kw_only=True, tag="list_windows"):
    """Answered with any number of `WindowPage`, then `End`. `status` as in `WindowLine`; None: all windows."""

    batch_id: str
    status: str | None = None


class GetWindow(msgspec.Struct, frozen=True, kw_only=True, tag="get_window"):
    """Answered with `WindowDetail`."""

    batch_id: str
    label: str


class ExplainWindow(msgspec.Struct, frozen=True, kw_only=True, tag="explain_window"):
    """Answered with `Explained`."""

    batch_id: str
    label: str


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, tag="read_log"):
    """Answered with any number of `LogChunk`, then `End`.

    `attempt` None: the last one. `follow` continues until the attempt has ended or, if `attempt` is None, until the
    window is finished, through all further attempts.
    """

    batch_id: str
    label: str
    attempt: int | None = None
    #: bytes to skip at the start
    offset: int = 0
    follow: bool = False


class GetResults(msgspec.Struct, frozen=True, kw_only=True, tag="get_results"):
    """Answered with any number of `WindowPage`, then `End`: finished windows and results, in the order of finishing."""

    batch_id: str


class GetHistory(msgspec.Struct, frozen=True, kw_only=True, tag="get_history"):
    """Answered with `History`."""

    #: None: the last minutes of every device, whatever ran there
    batch_id: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    """Apply a verb to a batch or to one of its windows. Answered with `Changed`, when it is durable."""

    verb: Verb
    batch_id: str
    #: None: the whole batch
    label: str | None = None
    #: the batch's new terms, by name: see `gpusched.core.terms`
    terms: dict[str, Any] = {}


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Remove the records and logs of finished batches, and their results on request. Answered with `Forgotten`."""

    #: either one batch, or (`older_than_s`) all that finished at least that many seconds ago
    batch_id: str | None = None
    older_than_s: float | None = None
    results: bool = False


class ListDevices(msgspec.Struct, frozen=True, kw_only=True, tag="list_devices"):
    """Answered with `Devices`."""


class ChangeDevice(msgspec.Struct, frozen=True, kw_only=True, tag="change_device"):
    """Place nothing more on a device, or open it again. Answered with `Devices`: those that the verb applied to."""

    verb: Literal["drain", "resume"]
    #: id, or an unambiguous prefix of an id; None: all devices
    device: str | None = None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag="subscribe"):
    """Answered with a `Snapshot` and deltas of one batch, or of all (None), until the client hangs up."""

    batch_id: str | None = None


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    """Answered with `Pong`."""


Request = (
    Submit
    | ListBatches
    | GetBatch
    | ListWindows
    | GetWindow
    | ExplainWindow
    | ReadLog
    | GetResults
    | GetHistory
    | Change
    | Forget
    | ListDevices
    | ChangeDevice
    | Subscribe
    | Ping
)
