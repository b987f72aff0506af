"""`tests.worker.sharing`, in a launcher that keeps no memory file without a window."""

from __future__ import annotations

from gpusched import shared
from tests.worker.sharing import shares as shares


def preload() -> None:
    shared.LINGER_S = 0.0
