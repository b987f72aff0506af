"""Where the socket is: the paths that clients try, and the one that a daemon listens on."""

from __future__ import annotations

import os
from pathlib import Path

from gpusched.errors import UsageError

SOCKET_NAME = "gpusched.sock"
#: where the system service has its socket
SYSTEM_DIRECTORY = Path("/run/gpusched")


class NoPlace(UsageError):
    problem = "there is no place for the daemon's socket: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set"
    remedy = "give one with --socket or daemon.socket; clients then need it too (GPUSCHED_SOCKET)"


def socket_paths(explicit: Path | None) -> list[Path]:
    """Where a daemon may listen, in the order in which a client tries."""
    if explicit is not None:
        return [explicit]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directories = [*([Path(runtime) / "gpusched"] if runtime else []), SYSTEM_DIRECTORY]
    return [directory / SOCKET_NAME for directory in directories]


def listening_path(explicit: Path | None) -> Path:
    """The path of the daemon's socket: `explicit`, or else the one where clients look. Raises NoPlace."""
    if explicit is not None:
        return explicit.absolute()
    if directories := os.environ.get("RUNTIME_DIRECTORY"):  # set by systemd
        return Path(directories.partition(":")[0]) / SOCKET_NAME
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "gpusched" / SOCKET_NAME
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY / SOCKET_NAME
    raise NoPlace
