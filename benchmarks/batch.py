"""The users' batch, side by side in one run: the in-process limit, `gpusched run`, and a fresh process per window.

    python -m benchmarks.batch                     # 252 windows of daily bars
    python -m benchmarks.batch --bars 75           # the same with 5-minute bars
    python -m benchmarks.batch --file-per-day      # one CSV file per day

Contenders alternate, every one starts with an empty bars cache and an empty output directory, and the ratios are taken
within a repetition, so that a machine whose speed drifts favours none of them. Training a fresh process per window
is timed on `--fresh` windows only and scaled up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.bars import write_batch
from benchmarks.settings import END, START, WINDOW_DAYS, settings

CORES = len(os.sched_getaffinity(0))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
GPUSCHED = [sys.executable, "-m", "gpusched"]
DATES = ["--start", str(START), "--end", str(END), "--window-days", str(WINDOW_DAYS)]


class Bench:
    def __init__(self, directory: Path, symbols_file: Path, interval: str) -> None:
        self.directory = directory
        self.symbols_file = symbols_file
        self.interval = interval
        self.options = [f"--{name}={value}" for name, value in settings(interval).items()]
        self.number = 0

    def _fresh(self) -> tuple[Path, Path]:
        """An output and a cache directory. They are removed at the end: ext4 is slow to create after many deletions."""
        self.number += 1
        output, cache = self.directory / f"out{self.number}", self.directory / f"cache{self.number}"
        cache.mkdir()
        return output, cache

    def in_process(self) -> tuple[float, int]:
        """Seconds of the loop, and how many windows it trained."""
        output, cache = self._fresh()
        output.mkdir()
        arguments = [str(self.symbols_file), str(output), str(cache), self.interval]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.in_process", *arguments],
            env=ENVIRONMENT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(done.stdout)
        return found["seconds"], found["trained"]

    def run(self, workers: int) -> tuple[float, dict[str, int]]:
        """Seconds from shell to prompt, and what became of the windows."""
        output, cache = self._fresh()
        command = [
            *GPUSCHED, "run", str(self.symbols_file), "-o", str(output), "--json", *DATES, "--device", "cpu",
            "--data-root", str(self.symbols_file.parent / "data"), *self.options,
            "--workers", str(workers), "--set", f"cache.dir={cache}",
        ]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        return seconds, json.loads(done.stdout.splitlines()[-1])["windows"]

    def fresh_processes(self, windows: int, trained: int) -> float:
        """Seconds that `trained` windows would take with a new `gpusched train` process for each, one per core."""
        output, cache = self._fresh()
        symbols = self.symbols_file.read_text().split()

        def train(number: int) -> None:
            command = [
                *GPUSCHED, "train", symbols[number % len(symbols)], "2022-01-01", "2022-06-29", "-o", str(output),
                "--data-root", str(self.symbols_file.parent / "data"), *self.options,
                "--set", f"cache.dir={cache}",
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)

        began = time.perf_counter()
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(train, range(windows)))
        seconds = time.perf_counter() - began
        return seconds / windows * trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=36)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--bars", type=int, default=1, help="bars a day: 1, or 75 five-minute bars")
    parser.add_argument("--file-per-day", action="store_true")
    parser.add_argument("--fresh", type=int, default=20, help="windows to train in fresh processes; 0: none")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    interval = "1d" if options.bars == 1 else "5min"
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        symbols_file = write_batch(
            Path(name), symbol_count=options.symbols, interval=interval,
            bars_per_day=options.bars, file_per_day=options.file_per_day,
        )  # fmt: skip
        bench = Bench(Path(name), symbols_file, interval)
        rows: list[dict[str, float]] = []
        windows: dict[str, int] = {}
        for _ in range(options.repeat):
            alone, trained = bench.in_process()
            together, windows = bench.run(CORES)
            assert windows["succeeded"] == trained, (windows, trained)
            row = {"limit": alone / CORES, "run": together, "run/limit": alone / CORES / together}
            row["run windows/s"] = windows["total"] / together
            if options.fresh:
                fresh = bench.fresh_processes(options.fresh, trained)
                row |= {"fresh processes": fresh, "fresh/run": fresh / together}
            rows.append(row)
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    if options.json:
        print(json.dumps({"cores": CORES, "windows": windows, "median": medians, "repetitions": rows}))
        return
    print(f"{platform.machine()}, {CORES} cores, Python {platform.python_version()}; {windows}")
    for key, median in medians.items():
        values = [row[key] for row in rows]
        print(f"{key:>16}: median {median:8.3f}   min {min(values):8.3f}   max {max(values):8.3f}")


if __name__ == "__main__":
    main()
