"""Keep every GPU of a machine busy with thousands of short, isolated LightGBM trainings, and lose nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpusched.client.batches import Batch as Batch
    from gpusched.client.batches import submit as submit
    from gpusched.errors import GpuschedError as GpuschedError
    from gpusched.results import load_labels as load_labels
    from gpusched.results import load_model as load_model
    from gpusched.results import load_predictions as load_predictions
    from gpusched.results import load_results as load_results

__version__ = "0.2.0.dev0"

#: public name → the module that defines it, which is imported on first use: the commands start without pandas
_HOMES = {
    "Batch": "gpusched.client.batches",
    "GpuschedError": "gpusched.errors",
    "load_labels": "gpusched.results",
    "load_model": "gpusched.results",
    "load_predictions": "gpusched.results",
    "load_results": "gpusched.results",
    "submit": "gpusched.client.batches",
}
__all__ = [
    "Batch",
    "GpuschedError",
    "__version__",
    "load_labels",
    "load_model",
    "load_predictions",
    "load_results",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
