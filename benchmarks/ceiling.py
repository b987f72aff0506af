"""The supervisor's ceiling: `python -m benchmarks.ceiling [--json] [--windows N]`.

Windows pass through the real scheduler, supervisor, store and index, and a launcher that answers at once: no process is
started. What remains is the supervisor's own work, so its processor time for each window bounds the windows that it can
turn over in a second, however many slots there are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import anyio
import msgspec

from benchmarks.instant import InstantEngine
from benchmarks.makespan import BATCH
from benchmarks.throughput import plan
from gpusched.config import Config, Devices
from gpusched.core.events import WindowMoved
from gpusched.core.states import Finished
from gpusched.devices.slots import PoolRules
from gpusched.store.store import Store
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

WINDOWS = 3_000
SLOTS = (2, 16)
REPEAT = 3
#: windows each second that the supervisor must be able to turn over, by the number of slots
LEAST = {2: 2_000.0, 16: 5_000.0}


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    slots: int
    windows_per_second: float
    #: of the supervisor's thread for each window; the store's part included
    cpu_s: float

    @property
    def by_cpu(self) -> float:
        """The windows each second for which a core of its own would suffice."""
        return 1 / self.cpu_s


def measure(windows: int, slots: int) -> Ceiling:
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        return anyio.run(_measure, windows, slots, Path(name))


async def _measure(windows: int, slots: int, directory: Path) -> Ceiling:
    ends = Ends(windows)
    with Store.open(directory / "state" / "state.db") as store:
        runtime = Runtime(PoolRules(Config(devices=Devices(cpu_slots=slots))), store, InstantEngine(), ends)
        supervisor = runtime.supervisor
        async with runtime.working():
            batch = msgspec.structs.replace(BATCH, output_dir=str(directory / "output"))
            supervisor.hand_over(batch, plan(windows))
            await ends.first.wait()
            began, cpu = time.perf_counter(), time.thread_time()
            await ends.last.wait()
            seconds, cpu_s = time.perf_counter() - began, time.thread_time() - cpu
            supervisor.shut_down(drain=False)
            await supervisor.stopped()
    return Ceiling(slots=slots, windows_per_second=windows / seconds, cpu_s=cpu_s / windows)


class Ends:
    """Hears when the first and the last window have ended."""

    def __init__(self, windows: int) -> None:
        self._left = windows
        self.first, self.last = anyio.Event(), anyio.Event()

    def follow(self, news: News) -> None:
        if isinstance(news, WindowMoved) and isinstance(news.new, Finished):
            self._left -= 1
            self.first.set()
            if not self._left:
                self.last.set()


def measure_all(windows: int = WINDOWS) -> list[Ceiling]:
    """The medians for each number of slots; these take turns, as the machine's speed drifts."""
    rounds = [[measure(windows, slots) for slots in SLOTS] for _ in range(REPEAT)]
    return [
        Ceiling(
            slots=slots,
            windows_per_second=statistics.median(each.windows_per_second for each in of_slots),
            cpu_s=statistics.median(each.cpu_s for each in of_slots),
        )
        for slots, of_slots in zip(SLOTS, zip(*rounds, strict=True), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure_all(options.windows)
    if options.json:
        print(json.dumps(msgspec.to_builtins(measured)))
        return
    print(f"{'slots':<8}{'windows/s':>12}{'CPU a window':>16}{'windows/s by it':>18}{'at least':>12}")
    for each in measured:
        print(
            f"{each.slots:<8}{each.windows_per_second:>12,.0f}{1e6 * each.cpu_s:>13,.0f} µs{each.by_cpu:>18,.0f}"
            f"{LEAST[each.slots]:>12,.0f}"
        )


if __name__ == "__main__":
    main()
