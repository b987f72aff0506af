"""The person at the terminal of a run, who sees its screen, its notes and its end."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from gpusched.cli.next_commands import next_commands
from gpusched.cli.notes import notes_object
from gpusched.cli.verdict import Untrained, exit_code, is_nothing, nothing_to_train, refused_object
from gpusched.client.drawing.plain import QuietScreen
from gpusched.client.drawing.trouble import remedy
from gpusched.client.views.batch import BatchView
from gpusched.config import run_state_dir
from gpusched.core.events import Update
from gpusched.core.planning import Plan
from gpusched.core.totals import batch_object
from gpusched.engines.condition import TroubleChanged
from gpusched.errors import INTERRUPTED
from gpusched.protocol import Trouble
from gpusched.runs.run import Interrupted, Planned, Run, RunSummary, Surveyed
from gpusched.supervisor.followers import News, Noted

if TYPE_CHECKING:
    from rich.console import Console

    from gpusched.client.drawing.terminal import RunScreen

_INTERRUPTED = {
    1: "Draining: the running windows may finish, no other starts; interrupt again to stop them.",
    2: "Stopping the running windows.",
}
_UNWRITABLE = (
    "Draining: the running windows may finish, and the run ends as soon as it can record how, however long that takes:"
    " {trouble}. Make room there, or interrupt again (Ctrl-C, SIGTERM) to leave now: windows that still run are"
    " stopped, and the same command finds the results that are complete and runs the rest again."
)


class Onlooker:
    """Follows a run. `console` is on stdout; None: the result is printed there as an object, and nothing else.

    `advises`: it ends with the commands that look at the results.
    """

    screen: RunScreen | QuietScreen

    def __init__(self, run: Run, console: Console | None, *, advises: bool) -> None:
        self._advises = advises
        self._run = run
        self._console = console
        self._view = BatchView()
        self._plan: Plan | None = None
        if console is None:
            self.screen = QuietScreen(self._view)
        else:
            from gpusched.client.drawing.terminal import RunScreen  # rich, which a run for a program can do without

            self.screen = RunScreen(console, self._view)
        #: why the run's records cannot be written at the moment; empty if they can
        self._unwritable = ""
        self._signals = 0
        #: functions that show a note; while the `top` screen is open, one of them is its
        self._shown: list[Callable[[str], None]] = [self.screen.note]

    def follow(self, news: News | Surveyed | Planned | Interrupted) -> None:
        match news:
            case Noted(text=text):
                self.screen.note(text)
            case Surveyed(done=done, total=total):
                self.screen.planning(done, total)
            case Planned(plan=plan):
                self._plan = plan
                self.screen.planned(plan)
            case Interrupted(count=count):
                self._signals = count
                self._tell_of_signals()
            case TroubleChanged(trouble=trouble, present=present):
                self._tell_of_trouble(trouble, present=present)
            case _ if isinstance(news, Update):
                self.screen.update(news)

    def _tell_of_signals(self) -> None:
        """Tell the consequence of the signals so far, and of the next one."""
        text = _INTERRUPTED.get(self._signals, "Leaving, whatever hangs.")
        if self._signals == 1 and self._unwritable:
            text = _UNWRITABLE.format(trouble=self._unwritable)
        for show in self._shown:
            show(text)

    def _tell_of_trouble(self, trouble: Trouble, *, present: bool) -> None:
        if trouble.kind == "store":
            self._unwritable = trouble.text if present else ""
            if present and self._signals == 1:
                self._tell_of_signals()
                return
        self.screen.note(f"{trouble.text}; {remedy(trouble)}" if present else f"Over: {trouble.text}")

    async def watch(self, socket: Path, over: anyio.Event) -> None:
        """Look at the run in `top` until it is left or the run is over."""
        from gpusched.client.drawing.terminal import RunScreen
        from gpusched.client.top.app import Top

        assert self._console is not None
        assert isinstance(self.screen, RunScreen)
        with self.screen.paused():
            top = Top(self._console, socket, words=f"gpusched run, {self._run.output_dir}")
            self._shown.append(top.say)
            await top.run_until(over.wait())
            self._shown.remove(top.say)

    def conclude(self, ended: RunSummary) -> int:
        """Print how the run ended; return the exit code. Raises NothingToTrain."""
        view, plan, totals = self._view, self._plan, self._view.totals()
        if self._console is None:
            object = batch_object(ended.batch_id, str(ended.output_dir), totals, ended.seconds)
            object |= refused_object(view.every_refusal()) | notes_object({} if plan is None else plan.notes)
            print(json.dumps(object))  # noqa: T201
        else:
            from gpusched.client.drawing.summary import Summary

            summary = Summary(
                view=view,
                seconds=ended.seconds,
                held_reason=ended.held_reason,
                interrupted=ended.interrupted,
                logs_dir=run_state_dir(self._run.config, ended.output_dir) / "logs",
                spec=self._run.spec,
            )
            self._console.print(summary, crop=False)
            if self._advises:
                self._console.print(self._next_commands(ended.output_dir), soft_wrap=True)
        if ended.interrupted:
            return INTERRUPTED
        if plan is not None and is_nothing(totals, view.refused):
            raise nothing_to_train(
                Untrained.planned(window, view.reason_of(window.window.label)) for window in plan.windows
            )
        return exit_code(totals, self._run.spec.limits.max_failure_rate, held=ended.held_reason is not None)

    def _next_commands(self, directory: Path) -> str:
        """The directory of the run, and the commands that look at it."""
        view, shown = self._view, directory
        with contextlib.suppress(FileNotFoundError, ValueError):  # the shell's own was removed, or is elsewhere
            shown = directory.relative_to(Path.cwd())
        shown = directory if shown == Path() else shown
        name = shlex.quote(str(shown) if "/" in str(shown) or shown.is_absolute() else f"./{shown}")
        commands = next_commands(name, view.counts, left="retry" if view.done < view.total else "")
        return "\n".join([f"Results  {directory}", *(f"  {command}" for command in commands)])
