"""The measurements as tables, for the README, and as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpus.proof import Proof


def write(proof: Proof, path: Path) -> None:
    """All that is known so far, the tables included, as one JSON object."""
    found = {"failed": proof.failed, "claims": proof.claims, "parts": proof.found, "table": table(proof).splitlines()}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1, default=str) + "\n")
    new.replace(path)


def table(proof: Proof) -> str:
    """Every batch, the cost of contexts, and the users' own design, as far as the time sufficed."""
    devices = proof.bench.devices
    name = f"{devices[0].name}, {len(devices)} of them" if devices else "no GPU"
    parts = (_batches(proof), _contexts(proof), _baseline(proof), _choices(proof))
    return "\n".join([f"\n{name}; {len(os.sched_getaffinity(0))} cores", *(line for part in parts for line in part)])


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if rows:
        yield ""
        yield _row(names)
        yield "|" + "---|" * len(names)
        yield from map(_row, rows)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def _batches(proof: Proof) -> Iterator[str]:
    names = ("batch", "slots", "windows", "windows/s", "steady", "a window, s", "refill, ms", "p99")
    rows: list[list[object]] = []
    for run in proof.runs:
        use, memory = run.nvml.get("utilisation_mean"), run.nvml.get("process_mb_max")
        cells: list[object] = [run.name, run.slots, run.windows, run.per_s, run.steady_per_s, run.window_s]
        rows.append([*cells, run.refill_ms, run.refill_p99_ms, memory, None if use is None else f"{use:.0%}"])
    return _table((*names, "a process, MB", "use"), rows)


def _contexts(proof: Proof) -> Iterator[str]:
    steps = ("cuInit", "context", "first training", "second training", "window", "all", "context_mb", "window_mb")
    rows: list[list[object]] = []
    for at_once, told in _results(proof, "contexts"):
        if isinstance(told, dict):
            median = told["median"]
            rows.append([at_once, told["processes"] - told.get("failed", 0), *(median.get(step) for step in steps)])
    return _table(("contexts", "succeeded", *(step if "_mb" in step else f"{step}, ms" for step in steps)), rows)


def _baseline(proof: Proof) -> Iterator[str]:
    rows = [[name, one["windows"], one["per_s"], one["failed"]] for name, one in _results(proof, "baseline")]
    return _table(("an interpreter for every window", "windows", "windows/s", "failed"), rows)


def _choices(proof: Proof) -> Iterator[str]:
    rows = []
    for interval, one in _results(proof, "auto"):
        truth = ", ".join(f"{device} {seconds:.1f} s" for device, seconds in one["truth_s"].items())
        rows.append([interval, one.get("device"), truth, one.get("choice", {}).get("reason")])
    return _table(("bars", "auto came to", "measured", "its reason"), rows)


def _results(proof: Proof, part: str) -> list[tuple[str, Any]]:
    return list(proof.found.get(part, {}).get("result", {}).items())
