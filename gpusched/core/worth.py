"""What results are worth: models that have nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpusched.core.states import Finished, Reused, State, Succeeded


def is_constant(state: State) -> bool:
    """Whether a window is finished with a model that predicts a constant."""
    match state:
        case Finished(outcome=Succeeded(result=result) | Reused(result=result)):
            return result.constant is True
        case _:
            return False


def constants_note(constants: int, models: int, settings: Mapping[str, Any]) -> str:
    """A sentence about the models that predict a constant, with the settings that are the usual cause; empty: none."""
    if not constants:
        return ""
    said = f"{constants} of {models} models {'predicts' if constants == 1 else 'predict'} a constant"
    parameters = settings.get("lightgbm")
    if not isinstance(parameters, Mapping):
        return said
    names = [f"{name} {parameters[name]}" for name in ("num_leaves", "min_data_in_leaf") if name in parameters]
    return f"{said}: too few rows for {', '.join(names)}?" if names else said
