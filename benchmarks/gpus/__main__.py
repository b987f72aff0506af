"""The claims that only a machine with a GPU can prove, within minutes.

    python -m benchmarks.gpus [--deadline 420] [--device auto|cuda|gpu] [--set key=value] [--json FILE] [PART …]

Parts, in this order, each in the time that is left: machine, checks (pinning, placement), contexts (seconds and
megabytes of one, alone and n at once), daily (seconds a window and the refill gap with 1, 2, 4, 8, 16 slots), cpu, auto
(its choice against the truth), same (determinism), baseline (an interpreter for every window), 5m (as daily), room (a
full card), opencl (as daily).

Needs no network and changes no setting of a card. FILE is written anew after each part. The exit code is 1 if a claim
does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpus.bench import LEAST_S, Bench, OutOfTime
from benchmarks.gpus.proof import PARTS, SLOTS, Proof
from gpusched.core.model import DeviceType
from gpusched.devices.nvidia.gpus import look

DEADLINE_S = 420.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, metavar="SECONDS", help="for all of it")
    parser.add_argument("--device", choices=("auto", "cuda", "gpu"), default="auto", help="auto: both")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for gpusched")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few windows of daily bars, one slot")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]!r} is not a part; there are {', '.join(PARTS)}")
    found = look()
    for note in found.notes:
        print(f"note   {note}")
    print(f"{'ok' if found.devices else 'FAILS':<5}  NVML shows {len(found.devices)} devices (driver {found.driver})")
    if not found.devices:
        return 1
    types: Sequence[DeviceType] = ("cuda", "gpu") if options.device == "auto" else (options.device,)
    with tempfile.TemporaryDirectory(prefix="gpusched-gpus-") as name:
        bench = Bench(Path(name), found.devices, options.deadline, options.set)
        # the benchmarks' own programs are started in another directory
        here = str(Path(__file__).parents[2])
        bench.environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        proof = Proof(bench, types, slots=(1,) if options.quick else SLOTS, quick=options.quick)
        _prove(proof, options.parts or list(PARTS), options.json)
    print(table(proof))
    return 1 if proof.failed else 0


def _prove(proof: Proof, parts: Sequence[str], path: Path | None) -> None:
    for part in parts:
        if part not in ("machine", "checks") and not proof.device_types:
            break
        if proof.bench.left() < LEAST_S:
            proof.holds(None, f"{part}: no time is left")
            proof.found[part] = None
            continue
        print(f"       -- {part}, {proof.bench.left():.0f} s are left", flush=True)
        began = time.monotonic()
        result: Any = None
        try:
            result = PARTS[part](proof)
        except OutOfTime:
            proof.holds(None, f"{part}: no time is left for the rest of it")
        except Exception as error:  # the next part may work
            proof.holds(False, f"{part}: {type(error).__name__}: {error}")
        proof.found[part] = {"seconds": round(time.monotonic() - began, 1), "result": result}
        if path is not None:
            new = path.with_suffix(".new")
            new.write_text(json.dumps({"failed": proof.failed, "parts": proof.found}, indent=1, default=str) + "\n")
            new.replace(path)


def table(proof: Proof) -> str:
    """The measured batches, for the README."""
    device = proof.bench.devices[0]
    lines = [
        f"\n{device.name}, {len(proof.bench.devices)} of them; {len(os.sched_getaffinity(0))} cores\n",
        "| batch | slots | windows | windows/s | steady | a window, s | refill, ms | p99 | a process, MB | use |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in proof.runs:
        use, memory = run.nvml.get("utilisation_mean"), run.nvml.get("process_mb_max")
        cells: list[object] = [run.name, run.slots, run.windows, run.per_s, run.steady_per_s, run.window_s]
        cells += [run.refill_ms, run.refill_p99_ms, memory, None if use is None else f"{use:.0%}"]
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
