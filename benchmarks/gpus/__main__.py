"""The claims that only a machine with a GPU can prove, within minutes.

    python -m benchmarks.gpus [--deadline 420] [--device auto|cuda|gpu] [--set key=value] [--json FILE] [PART …]

Parts, in this order, each in its share of the time that is left: machine, checks (pinning, placement), contexts
(seconds and megabytes of one, alone and n at once), daily (seconds a window and the refill gap with 1, 2, 4, 8, 16
slots), cpu, auto (its choice against the truth), same (one window 20 times alone and beside others), baseline (an
interpreter for every window), 5m (as daily), room (a card whose memory others take), opencl (daily and 5m).

Needs no network and changes no setting of a card. FILE is written anew after each part, with every claim and whether it
holds. The exit code is 1 if one does not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpus.bench import Bench
from benchmarks.gpus.parts import PARTS
from benchmarks.gpus.proof import SLOTS, Proof
from benchmarks.gpus.tables import table, write
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
    parser.add_argument(
        "--opencl", type=Path, metavar="DIR", help="a LightGBM with OpenCL, where the installed has none"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few windows of daily bars, one slot")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]!r} is not a part; there are {', '.join(PARTS)}")
    found = look()
    for note in found.notes:
        print(f"note   {note}")
    with tempfile.TemporaryDirectory(prefix="gpusched-gpus-", ignore_cleanup_errors=True) as name:
        bench = Bench(Path(name), found.devices, options.deadline, options.set, options.opencl)
        types: Sequence[DeviceType] = ("cuda", "gpu") if options.device == "auto" else (options.device,)
        slots = (1,) if options.quick else SLOTS
        proof = Proof(bench, types, slots=slots, quick=options.quick)
        proof.holds(bool(found.devices), f"NVML shows {len(found.devices)} devices (driver {found.driver})")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _prove(proof, options.parts or list(PARTS), options.json)
        except KeyboardInterrupt:
            print("interrupted")
    print(table(proof))
    return 1 if proof.failed else 0


def _prove(proof: Proof, names: Sequence[str], path: Path | None) -> None:
    if not proof.bench.devices:
        names = [name for name in names if name == "machine"]
    for number, name in enumerate(names):
        part = PARTS[name]
        try:
            if proof.device_types or part.anywhere:
                proof.prove(name, part.measure, part.weight / sum(PARTS[other].weight for other in names[number:]))
            else:
                proof.holds(None, f"{name}: no device type trains here")
        finally:
            if path is not None:
                write(proof, path)


if __name__ == "__main__":
    sys.exit(main())
