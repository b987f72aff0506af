"""The names of attempts' logs, which have their stdout and stderr."""

from __future__ import annotations

from gpusched.core.model import WindowKey


def log_name(label: str, attempt: int) -> str:
    """The name of an attempt's log, in the directory of its batch's logs."""
    return f"{label}.{attempt}.log"


def log_of(key: WindowKey, attempt: int) -> str:
    """The path of an attempt's log below the directory of all logs."""
    return f"{key.batch_id}/{log_name(key.label, attempt)}"
