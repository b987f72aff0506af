"""The built-in workload: one LightGBM "teacher" model per window, from bars to artifacts.

`gpusched.teacher:train_window` is its entry point. Importing this package costs nothing: each function imports its
libraries when it is called, so that a client can check settings without numpy and a survey run without LightGBM.

    sources → parsing → quality ⇄ cache    the bars of a symbol: read and checked once, then mapped from the cache
        contents → layout → tables → timestamps, numbers → rows: from bytes to rows; quality: from rows to bars
    features, labels, split → examples     the rows of a window that train and validate; the survey stops here
    booster → training → metrics → artifacts   the model, its scores and its files
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.workload import DeviceType, Report, Result, SurveyTask, SymbolSurvey, Task, Trial

if TYPE_CHECKING:
    from gpusched.teacher.schema import Settings


def train_window(task: Task, directory: Path, report: Report) -> Result:
    """Train one window and write its artifacts into `directory`.

    Raises NoData when there is nothing to train on, BadData for data that cannot be used, BadParameters for settings
    that cannot be used, DeviceMismatch when OpenCL gives another device than the slot's, and LightGBM's own errors.
    """
    from gpusched.teacher.window import train_window

    return train_window(task, directory, report)


def settings(raw: Mapping[str, Any]) -> Settings:
    """The settings of a batch, complete. Raises BadParameters."""
    # The module is not named `settings`: importing it would put the module in the place of this function.
    from gpusched.teacher.schema import parse_settings

    return parse_settings(raw)


def check_settings(settings: Settings) -> None:
    """Have LightGBM try its parameters, if they are not the defaults. Raises BadParameters for one that it refuses."""
    from gpusched.teacher.schema import LIGHTGBM_DEFAULTS

    if settings.lightgbm != LIGHTGBM_DEFAULTS:
        from gpusched.teacher.training import try_parameters

        try_parameters(msgspec.json.encode(settings.lightgbm))


def survey(task: SurveyTask) -> SymbolSurvey:
    """Look at the windows of a symbol, in the order of the task, without training them; needs no LightGBM.

    A window has a `skip_reason` if and only if `train_window` would raise NoData. Raises NoData for a symbol without
    files, BadData for files that cannot be used, BadParameters for settings that cannot be used.
    """
    # As with `settings`, the module has another name.
    from gpusched.teacher.surveyor import survey

    return survey(task)


def warm_up(device_type: DeviceType) -> Trial:
    """Train tiny models on the GPU that this process sees; refuse a processor that OpenCL passes off as a GPU."""
    from gpusched.teacher.trial import warm_up

    return warm_up(device_type)


def preload_survey() -> None:
    """Import the modules that surveys need. Only for gpusched's own processes, as `preload` is."""
    from gpusched.teacher.libraries import preload_survey

    preload_survey()


def preload() -> None:
    """Import the modules that windows need.

    Only for gpusched's own processes: it hides other packages while LightGBM is imported.
    """
    from gpusched.teacher.libraries import preload

    preload()


def __rehearsal__(directory: Path) -> Task:
    """A small window, with its bars in `directory`. Only for gpusched's own processes."""
    from gpusched.teacher.rehearsal import rehearsal

    return rehearsal(directory)
