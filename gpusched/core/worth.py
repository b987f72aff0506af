"""What results are worth: models that have learned nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpusched.core.states import Finished, Reused, State, Succeeded

#: the AUC of scores that are all equal: every pair of a 1 and a 0 is a tie, and a tie counts half
TIES_ONLY = 0.5


def predicts_constant(metrics: Mapping[str, Any] | None) -> bool:
    """Whether a model gives one probability to every row, by its AUC: one half, exactly, in training and validation.

    A tree splits where the classes differ, so a single split lifts the AUC of the training above one half. In the
    validation the AUC may also be undefined, for lack of a class.
    """
    return _auc(metrics, "train") == TIES_ONLY and _auc(metrics, "validation") in (TIES_ONLY, None)


def is_constant(state: State) -> bool:
    """Whether a window is finished with a model that predicts a constant."""
    match state:
        case Finished(outcome=Succeeded(result=result) | Reused(result=result)):
            return predicts_constant(result.metrics)
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


def _auc(metrics: Mapping[str, Any] | None, part: str) -> object:
    scores = (metrics or {}).get(part)
    return scores.get("auc") if isinstance(scores, Mapping) else None
