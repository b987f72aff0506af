"""The numbers among the metrics of a window. Pure."""

from __future__ import annotations

from typing import Any


def chief_metrics(metrics: dict[str, Any] | None) -> dict[str, float | None]:
    """Numbers by name, those that say most first; None: undefined.

    Those of the validation, AUC and accuracy first. Workloads may report any metrics: numbers at the top, or one
    level below, will do.
    """
    if not isinstance(metrics, dict):
        return {}
    part = metrics.get("validation")
    if not isinstance(part, dict):
        nested = next((value for value in metrics.values() if isinstance(value, dict)), {})
        part = metrics if any(_is_number(value) for value in metrics.values()) else nested
    first = [name for name in ("auc", "accuracy") if name in part]
    names = first + [name for name in part if name not in first]
    return {str(name): part[name] for name in names if part[name] is None or _is_number(part[name])}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
