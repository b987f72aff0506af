"""The actions of keys on batches, windows and devices, and the sentence that tells the result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gpusched.client.connection import Connection
from gpusched.client.top.desk import Desk
from gpusched.core.statuses import PARTICIPLES, WindowVerb
from gpusched.core.wording import counted

#: (batch, window or None for all of it)
Target = tuple[str, str | None]


def change(verb: WindowVerb, targets: Sequence[Target], link: Connection) -> str:
    """Do `verb` to each target."""
    changed = [link.change(verb, *target) for target in targets]
    if len(targets) == 1 and verb == "cancel" and changed[0].batch.waits:
        return f"{targets[0][0]} will not be started"
    if len(targets) == 1 and changed[0].note:
        return changed[0].note
    return said(sum(one.windows for one in changed), PARTICIPLES[verb])


def hold_or_release(targets: Sequence[Target], link: Connection) -> str:
    """Release the targets if the first one is held, or else hold them."""
    batch_id, label = targets[0]
    held = (
        link.batch(batch_id).batch.state == "held"
        if label is None
        else link.window(batch_id, label).window.status == "held"
    )
    return change("release" if held else "hold", targets, link)


def said(windows: int, done: str) -> str:
    if not windows:
        return f"Nothing here can be {done}"
    return f"{counted(windows, 'window')} {done}"


def named(targets: Sequence[Target]) -> str:
    """The targets in a question."""
    if len(targets) > 1:
        kind = "batches" if all(label is None for _, label in targets) else "windows"
        return f"{len(targets)} {kind}"
    batch_id, label = targets[0]
    return f"{batch_id}/{label}" if label else batch_id


def drain_or_open(desk: Desk, device_id: str, *, is_open: bool) -> None:
    """Drain a device that is open, if somebody says yes; open any other."""
    if is_open:
        desk.ask(f"Place nothing more on {device_id}?", partial(_drain, device_id))
    else:
        desk.do(partial(_resume, device_id))


def _drain(device_id: str, link: Connection) -> str:
    link.drain(device_id)
    return f"{device_id} is draining: its windows go on, and no other starts there"


def _resume(device_id: str, link: Connection) -> str:
    if any(status.health == "trying" for status in link.resume(device_id)):
        return f"{device_id} is being tried: it opens if it trains"
    return f"{device_id} is open"
