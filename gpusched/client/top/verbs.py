"""The actions of keys on batches, windows and devices, and the sentence that tells the result."""

from __future__ import annotations

from gpusched.client.connection import Connection
from gpusched.core.statuses import PARTICIPLES


def cancel(batch_id: str, label: str | None, link: Connection) -> str:
    return said(link.cancel(batch_id, label).windows, PARTICIPLES["cancel"])


def retry(batch_id: str, label: str | None, link: Connection) -> str:
    return said(link.retry(batch_id, label).windows, PARTICIPLES["retry"])


def hold_or_release(batch_id: str, label: str | None, link: Connection) -> str:
    held = (
        link.batch(batch_id).batch.state == "held"
        if label is None
        else link.window(batch_id, label).window.status == "held"
    )
    if held:
        return said(link.release(batch_id, label).windows, PARTICIPLES["release"])
    return said(link.hold(batch_id, label).windows, PARTICIPLES["hold"])


def said(windows: int, done: str) -> str:
    if not windows:
        return f"Nothing here can be {done}"
    return f"{windows} {'window' if windows == 1 else 'windows'} {done}"


def drain(device_id: str, link: Connection) -> str:
    link.drain(device_id)
    return f"{device_id} is draining: its windows go on, and no other starts there"


def resume(device_id: str, link: Connection) -> str:
    if any(status.health == "trying" for status in link.resume(device_id)):
        return f"{device_id} is being tried: it opens if it trains"
    return f"{device_id} is open"
