"""Keep every GPU of a machine busy with thousands of short, isolated LightGBM trainings, and lose nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpusched.results import load_results as load_results

__version__ = "0.1.0"
__all__ = ["__version__", "load_results"]


def __getattr__(name: str) -> Any:
    """Import `load_results` on first use: the commands start without it."""
    if name == "load_results":
        from gpusched.results import load_results

        return load_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
