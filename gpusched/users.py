"""Names and homes of users."""

from __future__ import annotations

import functools
import pwd
from pathlib import Path


@functools.lru_cache(maxsize=1024)
def user_name(uid: int | None) -> str:
    """The name of a user, or the number where nobody has it; empty for None.

    It is kept, since a directory service may be slow.
    """
    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def home() -> Path:
    """This user's home directory; the root where neither HOME nor the user's entry names one, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
