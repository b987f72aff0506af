"""Names of users."""

from __future__ import annotations

import functools
import pwd


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
