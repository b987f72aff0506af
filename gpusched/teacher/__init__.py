"""The built-in workload: one LightGBM "teacher" model per window, from bars to artifacts.

`gpusched.teacher:train_window` is its entry point. Importing this package costs nothing; the functions import what
they need when they are called, so that a client can check settings without numpy and a survey run without LightGBM.

    sources → parsing → quality ⇄ cache    what a symbol has: found, read and judged once, mapped ever after
        contents → layout → tables → timestamps, numbers → rows: from bytes to rows; quality: from rows to bars
    features, labels, split → examples     what a window of it gives to train on; the survey stops here
    training → metrics → artifacts         what is made of it
"""

from __future__ import annotations

from pathlib import Path

from gpusched.workload import DeviceType, Report, Result, SurveyTask, SymbolSurvey, Task, Trial


def train_window(task: Task, directory: Path, report: Report) -> Result:
    """Train one window and write its artifacts into `directory`.

    Raises NoData when there is nothing to train on, BadData for data that cannot be used, BadParameters for settings
    that cannot be used, DeviceMismatch when OpenCL gives another device than the slot's, and whatever LightGBM raises.
    """
    from gpusched.teacher.window import train_window

    return train_window(task, directory, report)


def survey(task: SurveyTask) -> SymbolSurvey:
    """What the windows of a symbol would find, in their order; needs no LightGBM.

    A window has a `skip_reason` if and only if `train_window` would raise NoData. Raises NoData for a symbol without
    files, BadData for files that cannot be used, BadParameters for settings that cannot be used.
    """
    # Not a module named `survey`: importing it would put it in the place of this function.
    from gpusched.teacher.surveyor import survey

    return survey(task)


def warm_up(device_type: DeviceType) -> Trial:
    """Train tiny models on the GPU that this process sees. Processors that OpenCL passes off as one are refused."""
    from gpusched.teacher.trial import warm_up

    return warm_up(device_type)


def preload_survey() -> None:
    """Import what surveys need. Only for processes of our own, as `preload` is."""
    from gpusched.teacher.libraries import preload_survey

    preload_survey()


def preload() -> None:
    """Import what windows need. Only for processes of our own: it hides other packages while LightGBM is imported."""
    from gpusched.teacher.libraries import preload

    preload()
