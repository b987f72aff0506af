"""`bench`: time the same windows with one slot and with all slots, and show where the time goes."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
import msgspec

from gpusched import directories
from gpusched.cli.commands.batches import ask, check_data_root, check_libraries
from gpusched.cli.verdict import NothingToTrain
from gpusched.client.drawing.listing import print_json
from gpusched.config import Config
from gpusched.core.events import BatchAccepted, WindowMoved
from gpusched.core.model import BatchSpec, DeviceChoice
from gpusched.core.states import Active, Finished, Running, Starting, Succeeded
from gpusched.devices.slots import PoolRules
from gpusched.errors import DONE, INTERRUPTED, UsageError
from gpusched.runs.run import Interrupted, Planned, Run, RunSummary, Surveyed, run_batch
from gpusched.supervisor.followers import News

#: phases outside the workload: from placement to the fork, from the result to the end of the process, and idle slots
LAUNCH, LEAVE, IDLE = "launch", "leave", "idle"


class WrongRepeat(UsageError):
    problem = "--repeat must be 1 or more, got {repeat}"
    remedy = "three are enough for a median"


class Measured(msgspec.Struct, kw_only=True):
    """One run: `seconds` from start to end, survey included, and `phases`, the seconds of all slots by phase."""

    slots: int
    seconds: float = 0.0
    total: int = 0
    trained: int = 0
    phases: dict[str, float] = {}
    #: the device of the request, or the one chosen for `auto`
    device: DeviceChoice = "auto"


class Stopwatch:
    """Sums up the time of a run by phase, from its updates."""

    def __init__(self) -> None:
        self.phases: defaultdict[str, float] = defaultdict(float)
        self.trained = self.total = 0
        self.device: DeviceChoice = "auto"
        self._placed: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._first, self._last = float("inf"), 0.0

    def follow(self, news: News | Surveyed | Planned | Interrupted) -> None:
        match news:
            case BatchAccepted(windows=windows, batch=batch):
                self.total, self.device = len(windows), batch.device
            case WindowMoved():
                self._add(news)

    def _add(self, update: WindowMoved) -> None:
        """Add the time of a window's attempt to the phases."""
        label = update.key.label
        match update.new:
            case Starting():
                self._placed[label] = update.at
                self._first = min(self._first, update.at)
            case Running():
                self._began[label] = update.at
                self.phases[LAUNCH] += update.at - self._placed[label]
            case Finished(outcome=Succeeded(result=result)) if isinstance(update.old, Active):
                self.trained += 1
                self._last = max(self._last, update.at)
                for name, seconds in result.phases.items():
                    self.phases[name] += seconds
                self.phases["commit"] += max(0.0, result.seconds - sum(result.phases.values()))
                self.phases[LEAVE] += max(0.0, update.at - self._began[label] - result.seconds)

    def of_all_slots(self, slots: int) -> dict[str, float]:
        """Seconds by phase. Unused slot time between the first placement and the last end is idle."""
        busy = sum(self.phases.values())
        return {**self.phases, IDLE: max(0.0, slots * (self._last - self._first) - busy)}


def bench(options: argparse.Namespace) -> int:
    """Measure the speed-up and name its limit. The output directory is not touched."""
    request = ask(options)
    check_libraries(request.spec.workload)
    check_data_root(request.spec)
    if options.repeat < 1:
        raise WrongRepeat(repeat=options.repeat)
    rules = PoolRules(request.config, request.spec.device)
    pool = rules.pool(rules.find())
    most = request.spec.workers or pool.slots(request.spec.device)
    spec = request.spec
    with directories.temporary(directories.temporary_place()) as outputs:
        runs: list[Measured] = []
        # The first run warms the bars cache and chooses the device for `auto`; it is not counted.
        for number in range(1 + 2 * options.repeat):
            slots = 1 if number % 2 else most
            measured, ended = anyio.run(_measure, request.config, spec, slots, outputs / str(number))
            if ended.interrupted:
                return INTERRUPTED
            if not measured.trained:
                raise NothingToTrain(
                    why=f"none of the {measured.total} windows was trained", likeliest="`gpusched plan` says why"
                )
            if number:
                runs.append(measured)
            else:
                spec = msgspec.structs.replace(spec, device=measured.device)
                most = spec.workers or pool.slots(spec.device)
    summary = report(runs)
    if options.json:
        print_json(summary)
    else:
        _print(summary)
    return DONE


async def _measure(config: Config, spec: BatchSpec, slots: int, output: Path) -> tuple[Measured, RunSummary]:
    watch = Stopwatch()
    spec = msgspec.structs.replace(spec, workers=slots)
    run = Run(config=config, spec=spec, batch_id=f"bench-{slots}", digest="", output_dir=output)
    ended = await run_batch(run, watch)
    return Measured(
        slots=slots,
        seconds=ended.seconds,
        total=watch.total,
        trained=watch.trained,
        phases=watch.of_all_slots(slots),
        device=watch.device,
    ), ended


def report(runs: list[Measured]) -> dict[str, Any]:
    """Medians by the number of slots; phases as shares of all slots' time, largest first."""
    sums = [_summed([run for run in runs if run.slots == slots]) for slots in sorted({run.slots for run in runs})]
    speedup = sums[0]["seconds"] / sums[-1]["seconds"]
    return {
        "windows": runs[0].trained,
        "repeat": len(runs) // len(sums),
        "runs": sums,
        "speedup": round(speedup, 3),
        "limited_by": limit(sums[-1]["shares"], speedup / sums[-1]["slots"]),
    }


def _summed(runs: list[Measured]) -> dict[str, Any]:
    """Sum up runs with the same number of slots."""
    seconds = [run.seconds for run in runs]
    names = {name for run in runs for name in run.phases}
    medians = {name: statistics.median(run.phases.get(name, 0.0) for run in runs) for name in names}
    every = sum(medians.values()) or 1.0
    largest_first = sorted(medians, key=medians.__getitem__, reverse=True)
    return {
        "slots": runs[0].slots,
        "seconds": round(statistics.median(seconds), 3),
        "least_seconds": round(min(seconds), 3),
        "most_seconds": round(max(seconds), 3),
        "windows_per_second": round(runs[0].trained / statistics.median(seconds), 3),
        "shares": {name: round(medians[name] / every, 4) for name in largest_first},
    }


def limit(shares: dict[str, float], efficiency: float) -> str:
    """A phrase that names the limit. `efficiency` is the speed-up divided by the number of slots, 0..1."""
    first = next(iter(shares))
    if first == IDLE:
        return "slots that wait for windows: there are too few of them, or one is much longer than the rest"
    own = shares.get(LAUNCH, 0.0) + shares.get(LEAVE, 0.0)
    if own > 0.4:
        return f"processes: {own:.0%} of the time is their start and end, so longer windows would cost less each"
    text = f"{first}, {shares[first]:.0%} of the time"
    if efficiency < 0.7:
        text += f"; a slot does {efficiency:.0%} of what it does alone: they share cores, memory or the disk"
    return text


def _print(summary: dict[str, Any]) -> None:
    from gpusched.client.drawing.listing import print_listing

    rows = [
        [run["slots"], run["seconds"], run["least_seconds"], run["most_seconds"], run["windows_per_second"]]
        for run in summary["runs"]
    ]
    print_listing(["slots", "seconds", "least", "most", "windows/s"], rows, styles={})
    shares = summary["runs"][-1]["shares"]
    print_listing(["phase", "share"], [[name, f"{share:.1%}"] for name, share in shares.items()], styles={})
    print(  # noqa: T201
        f"{summary['windows']} windows, median of {summary['repeat']}: {summary['speedup']:.2f} times as fast with"
        f" {summary['runs'][-1]['slots']} slots as with one.\nLimited by {summary['limited_by']}."
    )
