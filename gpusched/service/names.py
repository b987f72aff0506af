"""Names in requests: find the batch, window or device of a name, or raise an error with similar names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from gpusched.core.model import Batch, WindowKey
from gpusched.core.pool import Pool
from gpusched.core.states import Finished, Reused, State
from gpusched.core.statuses import STATUSES
from gpusched.devices.naming import named
from gpusched.errors import InputError, similar
from gpusched.protocol import BatchStatus, DeviceStatus, WindowDetail
from gpusched.service import views
from gpusched.store.store import Store

#: how many names are searched for ones similar to an unknown name
_MANY_NAMES = 2000


class UnknownBatch(InputError):
    problem = "there is no batch {name}"
    remedy = "{hint}"


class UnknownWindow(InputError):
    problem = "batch {batch} has no window {label}"
    remedy = "{hint}"


class UnknownDevice(InputError):
    problem = "there is no device {name}"
    remedy = "{hint}"


class UnknownStatus(InputError):
    problem = "{status!r} is not a status of windows"
    remedy = "{hint}"


class NoLog(InputError):
    problem = "{window} has no log: {why}"
    remedy = "`gpusched show {window}` tells its story"


def no_log(window: WindowKey, state: State, attempt: int, launched: int) -> NoLog:
    """Why an attempt of a window has no log; `launched`: its latest attempt, 0 if it has none."""
    why = f"attempt {attempt} left none" if launched else "it was never launched"
    if isinstance(state, Finished) and isinstance(state.outcome, Reused):
        why = "its result is that of an earlier run"
    return NoLog(window=window, why=why)


class Names:
    """Finds named rows in the store.

    `status` raises UnknownBatch, `window` and `state` also UnknownWindow, with similar names.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def status(self, batch_id: str) -> BatchStatus:
        row = self._store.batch(batch_id)
        if row is None:
            ids = [batch.id for batch in self._store.batches()[-_MANY_NAMES:]]
            raise UnknownBatch(name=batch_id, hint=_hint(batch_id, ids, "`gpusched status` lists them all"))
        return views.batch_status(row)

    def batch(self, batch_id: str) -> Batch:
        batch = self._store.accepted(batch_id)
        assert batch is not None
        return batch

    def window(self, key: WindowKey) -> WindowDetail:
        detail = self._store.window(key)
        if detail is None:
            raise self._unknown(key)
        return msgspec.structs.replace(detail, window=views.listed(detail.window))

    def state(self, key: WindowKey) -> State:
        state = self._store.state(key)
        if state is None:
            raise self._unknown(key)
        return state

    def _unknown(self, key: WindowKey) -> UnknownWindow:
        self.status(key.batch_id)
        hint = _hint(key.label, self._labels_like(key), f"`gpusched windows {key.batch_id}` lists them all")
        return UnknownWindow(batch=key.batch_id, label=key.label, hint=hint)

    def _labels_like(self, key: WindowKey) -> list[str]:
        """The labels of the windows of symbols similar to the one in a label, or of any."""
        symbols = self.batch(key.batch_id).spec.symbols
        likely = [symbol for symbol in symbols if symbol[:1] == key.label[:1]] or symbols
        nearest = similar(key.label.partition("_")[0], likely[:_MANY_NAMES], most=3, cutoff=0.4)
        return [
            label for symbol in nearest or (None,) for label in self._store.labels(key.batch_id, symbol, _MANY_NAMES)
        ]

    def check_status(self, status: str | None) -> None:
        """Raise UnknownStatus unless it is a status of windows, or None (all)."""
        if status is not None and status not in STATUSES:
            hint = _hint(status, STATUSES, f"one of: {', '.join(STATUSES)}")
            raise UnknownStatus(status=status, hint=hint)


def devices(pool: Pool, name: str | None) -> list[DeviceStatus]:
    """The devices that `name` names: a node's, those of a name as in `devices.include`, or the one whose id begins so.

    None names all.

    Raises UnknownDevice.
    """
    every = views.devices(pool)
    if name is None:
        return list(every)
    if of_node := [status for status in every if status.device.host == name != ""]:
        return of_node
    named_ids = {device.id for device in named(name, [status.device for status in every])}
    if named_ids:
        return [status for status in every if status.device.id in named_ids]
    matches = [status for status in every if name and status.device.id.startswith(name)]
    if len(matches) != 1:
        ids = [status.device.id for status in matches or every]
        candidates = f"{'it could be any of' if matches else 'there are'}: {', '.join(ids)}"
        raise UnknownDevice(name=name, hint=_hint(name, ids, candidates))
    return matches


def _hint(name: str, names: Iterable[str], otherwise: str) -> str:
    nearest = similar(name, islice(names, _MANY_NAMES), most=3)
    return f"did you mean {' or '.join(nearest)}? {otherwise}" if nearest else otherwise
