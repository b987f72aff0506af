"""The variable that marks the descendants of a launcher process; see `gpusched.engines.local.leftovers`."""

from __future__ import annotations

MARK = "GPUSCHED_LAUNCHER"
