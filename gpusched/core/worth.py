"""The worth of results, and of the time that they took: models that have nothing to say, imports made anew."""

from __future__ import annotations

from collections.abc import Mapping

from gpusched.core.entry_point import entry_point
from gpusched.core.model import BatchSpec
from gpusched.core.states import State
from gpusched.core.statuses import result_of

#: parameters that leave few rows no split
_LEAVES = ("num_leaves", "min_data_in_leaf")


def is_constant(state: State) -> bool:
    """Whether a window is finished with a model that predicts a constant."""
    result = result_of(state)
    return result is not None and result.constant is True


def constants_note(constants: int, models: int, spec: BatchSpec) -> str:
    """A sentence about the models that predict a constant, with the settings that are the usual cause; empty: none.

    A setting that the batch sweeps has no one value, and is left out.
    """
    if not constants:
        return ""
    said = f"{constants} of {models} models {'predicts' if constants == 1 else 'predict'} a constant"
    parameters = spec.settings.get("lightgbm")
    if not isinstance(parameters, Mapping):
        return said
    swept = {key for point in spec.points.values() for key in point}
    names = [f"{name} {parameters[name]}" for name in _LEAVES if name in parameters and f"lightgbm.{name}" not in swept]
    return f"{said}: too few rows for {', '.join(names)}?" if names else said


def imports_note(spec: BatchSpec, label: str, phases: Mapping[str, float] | None, seconds: float | None) -> str:
    """A sentence about a window that imported for longer than it did all else; empty: it did not.

    `phases` and `seconds` are those of its result.
    """
    imports = (phases or {}).get("import", 0.0)
    if not seconds or imports <= seconds / 2:
        return ""
    entry = entry_point(spec.workload)
    module = spec.workload if entry is None else entry.module
    return (
        f"{label} took {imports:.1f} of its {seconds:.1f} s to import modules: move those imports to the top of"
        f" {module}, where they are made once for all windows"
    )
