"""Processes in /proc: their parents, states and environments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpusched.errors import LaunchError

ROOT = Path("/proc")
#: states of a process that is dead already and waits to be reaped by its parent
DEAD = "ZX"
#: states of a process that was stopped, by a signal or a debugger
STOPPED = "Tt"


class NoProc(LaunchError):
    """This directory is empty in a chroot, and wherever it was not mounted."""

    problem = "/proc is not mounted here, and without it no process of a window can be watched"
    remedy = "mount it (`mount -t proc proc /proc`), or have the container or chroot started with it"


class Seen(NamedTuple):
    """A process at one moment."""

    #: one letter, as in proc(5): R running, S sleeping, D waiting for a device or a file system, T stopped, Z dead, …
    state: str
    parent: int
    group: int
    session: int


def require() -> None:
    """Raise NoProc unless processes can be seen here."""
    if not (ROOT / "self" / "task").is_dir():
        raise NoProc


def look(pid: int) -> Seen | None:
    """Read the state of a process; None if there is no such process."""
    try:
        # pid (command) state ppid pgrp session …, where the command may contain any characters
        state, *numbers = (ROOT / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
        parent, group, session = map(int, numbers)
    except (OSError, ValueError):
        return None
    return Seen(state, parent, group, session)


def lives(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    seen = look(pid)
    return seen is not None and seen.state not in DEAD


def doing(pid: int) -> str:
    """Describe a process's state, and the kernel function in which it waits: `state D in nfs_wait_bit_killable`."""
    seen = look(pid)
    if seen is None:
        return "gone"
    try:
        where = (ROOT / str(pid) / "wchan").read_text().strip()
    except OSError:
        where = ""
    return f"state {seen.state}" + (f" in {where}" if where not in ("", "0") else "")


def living() -> Iterator[tuple[int, Seen]]:
    """Every process that is not a zombie."""
    for name in os.listdir(ROOT):  # noqa: PTH208 - no Path for each process of the machine
        if name.isdigit() and (seen := look(int(name))) is not None and seen.state not in DEAD:
            yield int(name), seen


def children(parent: int) -> list[tuple[int, Seen]]:
    """The living children of a process that has one thread."""
    try:
        listed = (ROOT / str(parent) / "task" / str(parent) / "children").read_text().split()
    except OSError:  # it is gone, or the kernel keeps no such list
        return [(pid, seen) for pid, seen in living() if seen.parent == parent]
    processes = ((pid, look(pid)) for pid in map(int, listed))
    return [(pid, seen) for pid, seen in processes if seen is not None and seen.state not in DEAD]


def members(group: int) -> list[int]:
    """The living processes of a process group."""
    return [pid for pid, seen in living() if seen.group == group]


def environment(pid: int) -> list[bytes]:
    """The environment with which a process was executed; empty if it is gone, or another user's.

    Reading it may hang if the process hangs in the kernel, so it must not be called in the event loop's thread.
    """
    with contextlib.suppress(OSError):
        return (ROOT / str(pid) / "environ").read_bytes().split(b"\0")
    return []
