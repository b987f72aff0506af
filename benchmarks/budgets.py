"""Every budget of the supervisor, measured: `python -m benchmarks.budgets [--only NAME …] [--json] [--windows N]`.

Exits with 1 if one does not hold. Times are noisy on a busy machine: they are medians of repetitions, or the best of a
few, as each says. Ratios of two times of one run, and counts, hold on any machine, and are tests as well (`pytest -m
slow tests/benchmarks`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec

from benchmarks import commands, event_cost, frames, launch, parse, service, soak, throughput

MB = 1e6
#: windows that the long measurements run through a supervisor
REFILL_WINDOWS, SOAK_WINDOWS, QUEUED_WINDOWS = 3_000, 100_000, 100_000
#: most frames that the live screens draw in a second
FRAMES_PER_S = 8


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    measured: float
    #: the least value that `measured` may have, or the greatest
    least: float | None = None
    most: float | None = None
    unit: str = ""
    #: a time of one run, which depends on the machine as much as on the code
    noisy: bool = False

    @property
    def holds(self) -> bool:
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The size of the measurements; None: the size that the budget is about."""

    windows: int | None = None


# -- measurements ------------------------------------------------------------------------------------------------------


def of_launch(options: Options) -> Iterator[Budget]:
    measured = launch.measure(options.windows or 200, fresh_runs=5)
    yield Budget(
        what="a fresh interpreter ÷ a window that does nothing, medians",
        measured=measured["fresh_over_launch"], least=launch.RATIO_BUDGET, unit="×",
    )  # fmt: skip
    yield Budget(
        what="unshared memory of a window process",
        measured=measured["unshared_bytes"] / MB, most=launch.UNSHARED_BUDGET_BYTES / MB, unit="MB",
    )  # fmt: skip


def of_throughput(options: Options) -> Iterator[Budget]:
    measured = throughput.measure(options.windows or REFILL_WINDOWS)
    p50, p99 = 1e3 * measured.refill_p50_s, 1e3 * measured.refill_p99_s
    yield Budget(what="slot refill, exit to next start, p50", measured=p50, most=15.0, unit="ms", noisy=True)
    yield Budget(what="slot refill, exit to next start, p99", measured=p99, most=15.0, unit="ms", noisy=True)
    yield Budget(
        what="windows that do nothing, durable",
        measured=measured.windows_per_second,
        least=100.0,
        unit="/s",
        noisy=True,
    )
    yield Budget(what="commits for each window, two slots", measured=measured.commits_per_window, most=3.0)


def of_events(options: Options) -> Iterator[Budget]:
    few, *_, many = event_cost.SIZES
    for event, cost in (
        ("event of the scheduler", event_cost.of_scheduler),
        ("window in the supervisor", event_cost.of_supervisor),
    ):
        costs = event_cost.by_size(cost)
        yield Budget(what=f"{event}, {many:,} : {few:,} queued, best of {event_cost.REPEAT} medians",
                     measured=costs[many] / costs[few], most=1.5, unit="×")  # fmt: skip


def of_backlog(options: Options) -> Iterator[Budget]:
    measured = service.measure_backlog(options.windows or QUEUED_WINDOWS)
    name = f"with {measured.windows:,} windows"
    yield Budget(what=f"submit of a batch {name}", measured=measured.submit_s, most=10.0, unit="s", noisy=True)
    yield Budget(
        what=f"`status` {name}, median of {commands.REPEAT}", measured=measured.status.seconds, most=0.3, unit="s",
        noisy=True,
    )  # fmt: skip


def of_frames(options: Options) -> Iterator[Budget]:
    for screen, seconds in frames.measure(options.windows or QUEUED_WINDOWS).items():
        yield Budget(
            what=f"{FRAMES_PER_S} frames/s of `{screen}`, of a core, mean of {frames.FRAMES}",
            measured=100 * seconds * FRAMES_PER_S, most=5.0, unit="%", noisy=True,
        )  # fmt: skip


def of_commands(options: Options) -> Iterator[Budget]:
    version = commands.measure("--version")
    yield Budget(
        what=f"`gpusched --version`, median of {commands.REPEAT}", measured=version.seconds, most=0.25, unit="s",
        noisy=True,
    )  # fmt: skip
    yield Budget(what="modules that `gpusched --version` imports", measured=version.modules, most=100)


def of_service(options: Options) -> Iterator[Budget]:
    measured = service.measure(starts=3)
    status = measured.status
    yield Budget(what="daemon, start to answer, best of 3", measured=measured.start_s, most=0.5, unit="s", noisy=True)
    yield Budget(what="idle daemon, of a core", measured=100 * measured.idle, most=0.5, unit="%")
    yield Budget(what="idle daemon, resident", measured=measured.resident_bytes / MB, most=60.0, unit="MB")
    yield Budget(
        what=f"`gpusched status`, median of {commands.REPEAT}", measured=status.seconds, most=0.25, unit="s", noisy=True
    )
    yield Budget(what="modules that `gpusched status` imports", measured=status.modules, most=260)
    yield Budget(what="heavy modules that it imports", measured=len(status.heavy), most=0)


def of_soak(options: Options) -> Iterator[Budget]:
    measured = soak.measure(options.windows or SOAK_WINDOWS)
    yield Budget(
        what=f"daemon's growth from window {soak.WARM * measured.windows:,.0f} to {measured.windows:,}",
        measured=(measured.end_bytes - measured.warm_bytes) / MB, most=max(10.0, 0.1 * measured.warm_bytes / MB),
        unit="MB",
    )  # fmt: skip


def of_parse(options: Options) -> Iterator[Budget]:
    for bars_per_day, interval in parse.SHAPES:
        measured = parse.measure(bars_per_day, interval)
        files = f"first parse of {parse.FILES} files of {bars_per_day} bars"
        yield Budget(
            what=f"{files}, median of {parse.REPEAT}", measured=measured.first, most=0.15, unit="s", noisy=True
        )
        yield Budget(
            what=f"{files} ÷ csv.reader alone", measured=measured.first / measured.csv_reader, most=3.5, unit="×"
        )
    slowest = max(parse.measure(*parse.SHAPES[-1], form).first for form in parse.FORMS.values())
    yield Budget(
        what=f"{files} in the slowest form ÷ in the usual one", measured=slowest / measured.first, most=2, unit="×"
    )


MEASUREMENTS: dict[str, Callable[[Options], Iterator[Budget]]] = {
    "launch": of_launch,
    "throughput": of_throughput,
    "events": of_events,
    "backlog": of_backlog,
    "frames": of_frames,
    "commands": of_commands,
    "service": of_service,
    "parse": of_parse,
    "soak": of_soak,
}


# -- output ------------------------------------------------------------------------------------------------------------


def line(budget: Budget) -> str:
    bound = f"≥ {budget.least:g}" if budget.least is not None else f"≤ {budget.most:g}"
    measured, unit = f"{budget.measured:.3g}", budget.unit
    verdict = "holds" if budget.holds else "DOES NOT HOLD"
    return f"{budget.what:<68} {measured:>7} {unit:<2}  {bound + ' ' + unit:<9} {verdict}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME",
                        help=f"may be given several times; one of {', '.join(MEASUREMENTS)}")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of the table")
    parser.add_argument("--windows", type=int, help="run or queue so many windows in each, for a quick look")
    options = parser.parse_args(arguments)
    broken = 0
    for name in options.only or MEASUREMENTS:
        for budget in MEASUREMENTS[name](Options(windows=options.windows)):
            broken += not budget.holds
            entry = {"name": name, **msgspec.to_builtins(budget), "holds": budget.holds}
            print(json.dumps(entry) if options.json else line(budget), flush=True)
    if not options.json:
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        print(f"{'all of them hold' if not broken else f'{broken} of them do not hold'}; load average {load}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
