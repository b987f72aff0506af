"""Where the log of an attempt is."""

from __future__ import annotations

from pathlib import Path

WROTE_NOTHING = "has written nothing to stdout or stderr"


def log_of(logs_dir: Path, label: str, attempt: int) -> Path | None:
    """The log of an attempt, below its batch's directory; None for one that wrote nothing, which leaves no log.

    Where this user may not look, or there are no logs, it is taken to be there.
    """
    path = logs_dir / f"{label}.{attempt}.log"
    try:
        path.lstat()
    except FileNotFoundError:
        return None if logs_dir.is_dir() else path
    except OSError:
        pass
    return path
