"""Remedies for the troubles of a daemon, for people."""

from __future__ import annotations

from gpusched.protocol import Trouble

_REMEDIES: dict[str, str] = {
    "store": "make room, or mend that file system; nothing is launched until then, and cancelling works",
    "window": "its slot stays taken until it is gone; `dmesg` may tell what it waits for: a mount, or a driver",
    "launcher": "another takes its place; if this repeats, launcher.log in the state directory may tell why",
    "node": "windows run elsewhere, or wait; it joins the pool by itself when that is over",
    "index": "make room, or mend that file system; it is written as soon as it can be; no result is missing",
    "log": "make room (`df -h`, `df -i`), or mend that file system; windows are tried again, and cancelling works",
    "leftover": "it may hold memory of a GPU until it is gone; `dmesg` may tell what it waits for",
}


def remedy(trouble: Trouble) -> str:
    """The remedy in words; empty for a kind that only a newer daemon knows."""
    return _REMEDIES.get(trouble.kind, "")
