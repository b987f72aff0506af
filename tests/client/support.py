"""A scheduler that works through a batch while a view looks on, and consoles that keep their output."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console, RenderableType

from gpusched.client.views.batch import BatchView
from gpusched.core.events import AttemptEnded, Event, ProgressReported
from gpusched.core.model import Device, WindowResult
from gpusched.core.states import Ending
from tests.core.support import RESULT, Driver, failure, key

TEACHER_METRICS: dict[str, Any] = {
    "train": {"accuracy": 0.91, "precision": 0.9, "recall": 0.9, "f1": 0.9, "auc": 0.97},
    "validation": {"accuracy": 0.54, "precision": None, "recall": 0.2, "f1": 0.3333333, "auc": 0.5321},
}


def trained(metrics: dict[str, Any] | None = None) -> WindowResult:
    return msgspec.structs.replace(RESULT, metrics=TEACHER_METRICS if metrics is None else metrics)


class Onlooker(Driver):
    """A driver that shows each record to the view, at the scheduler's own time."""

    def __init__(self, *devices: Device, view: BatchView | None = None) -> None:
        self.view = view or BatchView()
        super().__init__(*devices)

    def send(self, event: Event) -> Onlooker:
        super().send(event)
        for record in self.records:
            self.view.apply(record, self.at)
        return self

    def train(self, symbol: str, ending: Ending | None = None, *, seconds: float = 1.0, attempt: int = 1) -> Onlooker:
        """Start a placed window and end it after `seconds`."""
        self.start(key(symbol), attempt)
        self.wait(seconds)
        self.send(AttemptEnded(key=key(symbol), attempt=attempt, ending=trained() if ending is None else ending))
        return self

    def fail(self, symbol: str, message: str = "ValueError: no", *, attempt: int = 1) -> Onlooker:
        return self.train(symbol, failure("bad_data", message), attempt=attempt)

    def progress(self, symbol: str, phase: str, round: int = 0, rounds: int = 0, *, attempt: int = 1) -> None:
        report = ProgressReported(key=key(symbol), attempt=attempt, phase=phase, round=round, rounds=rounds)
        self.view.apply(report, self.at)


def calls(function: Callable[[], object]) -> int:
    """The calls, of Python and of C, that a function leads to: its cost, on a machine of any speed."""
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def console(width: int = 80, height: int = 24, *, terminal: bool = True, encoding: str = "utf-8") -> Console:
    """A console that writes to memory; read it with `text`."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(
        file=file,
        width=width,
        height=height,
        force_terminal=terminal,
        color_system=None,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},
    )


def text(shown: Console) -> str:
    file = shown.file
    file.seek(0)
    return file.read()


def drawn(what: RenderableType, width: int = 80, height: int = 24, *, encoding: str = "utf-8") -> str:
    """Draw an object and return the text, without trailing blanks."""
    screen = console(width, height, encoding=encoding)
    screen.print(what)
    return "\n".join(line.rstrip() for line in text(screen).splitlines())
