"""One window, from its bars to its artifacts."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import talib

import gpusched
from gpusched.teacher.artifacts import write_artifacts
from gpusched.teacher.common import Common
from gpusched.teacher.examples import window_examples
from gpusched.teacher.features import FEATURES
from gpusched.teacher.fingerprint import fingerprint, lightgbm_version
from gpusched.teacher.history import load_history
from gpusched.teacher.metrics import metrics
from gpusched.teacher.schema import READING, WORKLOAD_VERSION, Settings, parse_settings, written
from gpusched.teacher.training import Trained, train
from gpusched.workload import Report, Result, Task


class _Phases:
    """Reports phases and measures their times; a round reported within a phase does not end it."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._current: str | None = None
        self._began = 0.0
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, round: int = 0, rounds: int = 0) -> None:
        if phase != self._current:
            self.end()
            self._current, self._began = phase, time.perf_counter()
        self._report(phase, round, rounds)

    def end(self) -> None:
        if self._current is not None:
            self.seconds[self._current] = round(time.perf_counter() - self._began, 6)
            self._current = None


def train_window(task: Task, directory: Path, report: Report) -> Result:
    """See `gpusched.teacher.train_window`."""
    settings = parse_settings(task.settings)
    phase = _Phases(report)

    phase("load")
    history = load_history(task.data_root, task.cache_dir, task.symbol, settings)
    settings = msgspec.structs.replace(settings, interval=history.interval)
    bars = history.bars.window(task.start, task.end)
    examples = window_examples(history.bars, bars, task.start, task.end, settings)
    digest = fingerprint(task.symbol, task.start, task.end, bars, settings)

    phase("features")
    common = Common(task.symbol, examples)

    trained = train(examples, common.features, settings.lightgbm, task.device_type, task.threads, phase)

    phase("metrics")
    probabilities = trained.booster.predict(common.features)
    scores = {
        name: metrics(examples.labels[rows], probabilities[rows])
        for name, rows in (("train", examples.split.train), ("validation", examples.split.validation))
    }

    phase("artifacts")
    write_artifacts(directory, task.symbol, examples, trained, probabilities, common)
    phase.end()
    return Result(
        metrics=scores,
        sample_counts=examples.counts(),
        metadata=_metadata(task, settings, trained, digest, bars.quality()),
        phases=phase.seconds,
        fingerprint=digest,
        constant=bool(np.ptp(probabilities[examples.split.validation]) == 0),
    )


def _metadata(task: Task, settings: Settings, trained: Trained, digest: str, quality: dict[str, int]) -> dict[str, Any]:
    """The details in metadata.json that identify this model, and that are needed to make it again."""
    given, defaults = written(settings), Settings()
    return {
        "requested": {"symbol": task.symbol, "start": task.start.isoformat(), "end": task.end.isoformat()}
        | {name: value for name, value in given.items() if name not in ("lightgbm", *READING)}
        | {name: given[name] for name in READING if getattr(settings, name) != getattr(defaults, name)},
        "parameters": trained.parameters,
        "requested_parameters": given["lightgbm"],
        "rounds": trained.rounds,
        "best_iteration": trained.best_iteration,
        "features": list(FEATURES),
        "data_quality": quality,
        "data_fingerprint": digest,
        "opencl_device": trained.opencl_device,
        "versions": {
            "gpusched": gpusched.__version__,
            "workload": WORKLOAD_VERSION,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "lightgbm": lightgbm_version(),
            "ta-lib": talib.__version__,
        },
    }
