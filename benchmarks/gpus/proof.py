"""The results of the parts so far, and the claims that hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpus.bench import LEAST_S, Bench, Interval, OutOfTime, Run, Work
from gpusched.core.model import DeviceType

#: in this order: if time is short, the ends of the range tell more than its middle
SLOTS = (1, 4, 16, 2, 8)
#: slots → symbols, so that each measurement takes about as long
SYMBOLS = {1: 4, 2: 8, 4: 16}
MOST_SYMBOLS: Mapping[Interval, int] = {"1d": 36, "5m": 12}
_VERDICTS = {True: "ok", False: "FAILS", None: "?"}


@dataclass
class Proof:
    """`device_types` are those that are still believed to train here."""

    bench: Bench
    device_types: Sequence[DeviceType]
    slots: Sequence[int] = SLOTS
    quick: bool = False
    found: dict[str, Any] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def holds(self, holds: bool | None, what: str) -> None:
        """Tell whether a claim holds; None: this machine cannot tell."""
        self.claims.append({"verdict": _VERDICTS[holds], "claim": what})
        print(f"{_VERDICTS[holds]:<5}  {what}", flush=True)

    @property
    def failed(self) -> int:
        return sum(claim["verdict"] == "FAILS" for claim in self.claims)

    def measured(self, run: Run) -> Run:
        self.runs.append(run)
        rate = f"{run.per_s}/s, steady {run.steady_per_s}/s, a window {run.window_s} s, refill {run.refill_ms} ms"
        self.holds(
            None if run.windows else False, f"{run.name}: {run.windows} windows, {rate} {run.error[-200:]}".strip()
        )
        return run

    @property
    def main_type(self) -> DeviceType:
        return self.device_types[0]

    @property
    def device(self) -> str:
        return self.bench.devices[0].id

    def work(self, slots: int, interval: Interval = "1d") -> Work:
        """A batch that takes about as long with any number of slots."""
        most = MOST_SYMBOLS[interval]
        return self.bench.batch(interval, 1 if self.quick else min(most, SYMBOLS.get(slots, most)))

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return ("1d",) if self.quick else ("1d", "5m")

    def prove(self, name: str, measure: Callable[[Proof, dict[str, Any]], None], share: float) -> None:
        """Run a part in its share of the seconds that are left. Whatever happens in it, the next one can work."""
        entry: dict[str, Any] = {"seconds": 0.0, "result": {}}
        began = time.monotonic()
        try:
            self.bench.seconds(LEAST_S)
            print(f"       -- {name}, {self.bench.left():.0f} s are left", flush=True)
            with self.bench.share(share):
                measure(self, entry["result"])
        except OutOfTime:
            entry["error"] = "no time is left"
            self.holds(None, f"{name}: no time is left{' for the rest of it' if entry['result'] else ''}")
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {error}"
            self.holds(False, f"{name}: {entry['error']}")
        except BaseException as error:
            entry["error"] = f"interrupted ({type(error).__name__})"
            raise
        finally:
            entry["seconds"] = round(time.monotonic() - began, 1)
            self.found[name] = entry
