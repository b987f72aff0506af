"""A plan before a run.

Lines are laid out here rather than by rich's tables, which look at every cell twice and keep all of them: a plan has as
many lines as the batch has windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.plain import clean
from gpusched.client.drawing.summary import notes_lines, reason_lines
from gpusched.client.drawing.text import Glyphs, glyphs
from gpusched.client.views.reasons import Reasons, of_plan
from gpusched.core.model import PlannedWindow
from gpusched.core.planning import Action, Plan, action, reason_of_plan, replacing, with_remedy
from gpusched.core.wording import counted

#: windows that are listed one by one where nobody asks for all
MOST_WINDOWS = 20

_OUTCOME_OF: dict[Action, str] = {"train": "succeeded", "reuse": "reused", "skip": "skipped", "fail": "failed"}


def plan_rows(plan: Plan) -> Iterator[str]:
    """Tab-separated lines for pipes, below a line with their names."""
    yield "symbol\tstart\tend\twindow\tbars\tusable_rows\taction\treason"
    for planned in plan.windows:
        window = planned.window
        yield "\t".join(
            (
                clean(window.symbol),
                window.start.isoformat(),
                window.end.isoformat(),
                clean(window.label),
                str(planned.bars),
                str(planned.usable_rows),
                action(planned),
                clean(with_remedy(reason_of_plan(planned), planned.remedy)),
            )
        )


def plan_line(plan: Plan) -> str:
    """A plan in one line: how many windows are trained, reused, skipped."""
    line = f"{len(plan.to_train)} to train, {len(plan.to_reuse)} to reuse, {len(plan.to_skip)} to skip"
    line += f", {len(plan.to_fail)} to fail: their data are refused" if plan.to_fail else ""
    return "; ".join((line, *replacing(plan.to_replace, plan.to_move_aside)))


class PlanTable(msgspec.Struct, frozen=True, kw_only=True):
    """A line for each window, or `bars` in their place, then the totals.

    Unless `every_window` is asked for, more than `MOST_WINDOWS` are summed up by symbol.
    """

    plan: Plan
    bars: RenderableType | None = None
    every_window: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw, plan = glyphs(ascii_only=options.ascii_only), self.plan
        if self.bars is not None:
            yield self.bars
        elif not self.every_window and len(plan.windows) > MOST_WINDOWS:
            yield from self._symbols(options, draw)
        else:
            yield from self._windows(options, draw)
        yield Text()
        yield Text(f"{counted(len(plan.windows), 'window')}: {plan_line(plan)}", "bold")
        yield from reason_lines(of_plan(plan.to_skip), draw)
        if refused := plan.to_fail:
            yield Text()
            yield Text("Data that are refused", "bold")
            yield from reason_lines(of_plan(refused), draw)
        if plan.notes:
            yield Text()
            yield Text("About the data", "bold")
            yield from (Text(f"  {draw.clean(line)}") for line in notes_lines(plan.notes))

    def _windows(self, options: ConsoleOptions, draw: Glyphs) -> Iterator[Text]:
        plan = self.plan
        longest = max((cell_len(planned.window.label) for planned in plan.windows), default=6)
        # The other columns take 30 cells; a reason gets nearly as many before a label takes more than its half. A
        # reason that is cut off here stands below, grouped, and in full where the plan goes through a pipe.
        width = max(6, min(longest, max(options.max_width // 2, options.max_width - 56)))
        room = options.max_width - width - 30
        yield Text(f"{draw.crop('window', width)}  {'bars':>8}  {'usable':>8}  action  reason", "bold", no_wrap=True)
        for planned in plan.windows:
            act = action(planned)
            label = draw.crop_middle(draw.clean(planned.window.label), width)
            rows = (planned.bars, planned.usable_rows) if _is_surveyed(planned) else (draw.dash, draw.dash)
            line = Text(f"{label}  {rows[0]:>8}  {rows[1]:>8}  ", no_wrap=True, overflow="crop")
            line.append(act, STYLES[_OUTCOME_OF[act]])
            if (why := reason_of_plan(planned)) and room > 4:
                reason = draw.crop(draw.clean(why), room).rstrip()
                line.append(" " * (8 - len(act)) + reason)
            yield line

    def _symbols(self, options: ConsoleOptions, draw: Glyphs) -> Iterator[Text]:
        """A line for each symbol: how many of its windows are trained, reused, skipped and refused, and their rows."""
        by_symbol: dict[str, list[PlannedWindow]] = {}
        for planned in self.plan.windows:
            by_symbol.setdefault(planned.window.symbol, []).append(planned)
        counts = {symbol: Counter(map(action, windows)) for symbol, windows in by_symbol.items()}
        shown = [name for name in _OUTCOME_OF if name == "train" or any(count[name] for count in counts.values())]
        width = max(6, min(24, max(cell_len(draw.clean(symbol)) for symbol in by_symbol)))
        heading = "".join(f"{name:>7}" for name in shown)
        yield Text(f"{draw.crop('symbol', width)}  windows{heading}  usable rows  reason", "bold", no_wrap=True)
        for symbol, windows in by_symbol.items():
            line = Text(
                f"{draw.crop_middle(draw.clean(symbol), width)}  {len(windows):>7}", no_wrap=True, overflow="crop"
            )
            for name in shown:
                count = counts[symbol][name]
                line.append(f"{count or draw.dash:>7}", STYLES[_OUTCOME_OF[name]] if count else "dim")
            rows = [planned.usable_rows for planned in windows if _is_surveyed(planned)]
            line.append(f"  {_range(rows) if rows else draw.dash:>11}")
            reasons = Reasons()
            for planned in windows:
                if why := reason_of_plan(planned):
                    reasons.add(why, "")
            for reason, _ in reasons.most_common(1):
                room = options.max_width - line.cell_len - 2
                line.append("  " + draw.crop(draw.clean(reason), room).rstrip() if room > 4 else "")
            yield line


def _is_surveyed(planned: PlannedWindow) -> bool:
    """Whether its rows are known: a workload without a survey tells none."""
    return planned.usable_rows > 0 or action(planned) != "train"


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least}..{most}"
