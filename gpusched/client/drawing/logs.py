"""Where the log of an attempt is."""

from __future__ import annotations

from pathlib import Path

from gpusched.core.logs import log_name

WROTE_NOTHING = "has written nothing to stdout or stderr"


def written_log(logs_dir: Path, label: str, attempt: int, node: str = "") -> Path | None:
    """The log of an attempt, below its batch's directory; None for one that wrote nothing, which leaves no log.

    It is taken to be there where this user may not look, where there are no logs, and if a `node` may keep it.
    """
    path = logs_dir / log_name(label, attempt)
    try:
        path.lstat()
    except FileNotFoundError:
        return None if logs_dir.is_dir() and not node else path
    except OSError:
        pass
    return path
