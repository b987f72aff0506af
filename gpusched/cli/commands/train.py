"""`train`: train one window in this process, by the same function that a slot runs."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gpusched.cli.commands.batches import check_data_root, check_libraries, given_path, load_config
from gpusched.client.programs import with_code
from gpusched.config import batch_spec
from gpusched.core.model import WindowResult
from gpusched.core.planning import with_remedy
from gpusched.core.symbols import symbol_problem
from gpusched.errors import DONE, GpuschedError, InputError, UsageError
from gpusched.worker.threads import capped

if TYPE_CHECKING:
    from gpusched.worker.messages import WindowJob


class BadDate(UsageError):
    problem = "{text!r} is not a date"
    remedy = "write it as YYYY-MM-DD"


class BadTrainSymbol(UsageError):
    problem = "{symbol!r} cannot be a symbol: {why}"
    remedy = "name one symbol"


class WindowFailed(InputError):
    problem = "the window cannot be trained: {why}"
    remedy = "`gpusched plan` says what every window would find"


class WindowRaised(InputError):
    exit_code = 1
    problem = "the window failed: {why}"
    remedy = "run it again with --debug to see the traceback"


class NoSuchDevice(InputError):
    problem = "the window cannot be trained with --device {device_type}: {why}"
    remedy = "`gpusched doctor` says what works here; --device cpu needs no GPU"


def train(options: argparse.Namespace) -> int:
    """Train the window, and print its result."""
    # Set before an OpenMP or BLAS runtime is loaded: only the workload uses more threads, as many as its task allows.
    for name, value in capped(1).items():
        os.environ.setdefault(name, value)
    from gpusched.engines.local.warm_up import launcher_environment
    from gpusched.worker.messages import WindowJob
    from gpusched.workload import Task

    if why := symbol_problem(options.symbol):
        raise BadTrainSymbol(symbol=options.symbol, why=why)
    output = given_path(options.output)
    start, end = _date(options.start_date), _date(options.end_date)
    dates = [("windows.start", start, "START"), ("windows.end", end, "END")]
    options.flags += dates
    config = with_code(load_config(options).config)
    spec = batch_spec(config, (options.symbol,))
    check_libraries(spec.workload)
    check_data_root(spec)
    os.environ |= launcher_environment(config)
    task = Task(
        symbol=options.symbol,
        start=start,
        end=end,
        data_root=spec.data_root,
        cache_dir=str(config.cache.dir),
        settings=spec.settings,
        device_type="cpu" if spec.device == "auto" or spec.device == "mixed" else spec.device,
        threads=len(os.sched_getaffinity(0)),
    )
    sys.path.append(str(Path.cwd()))
    result = _train_here(WindowJob(workload=spec.workload, task=task, output_dir=str(output)))
    print(msgspec.json.encode(result).decode() if options.json else _sentences(result))  # noqa: T201
    return DONE


def _train_here(job: WindowJob) -> WindowResult:
    """Train a window as a slot does. Raises GpuschedError: the device, the data or the code failed."""
    from gpusched.worker.cuda import CudaError
    from gpusched.worker.loading import load_module
    from gpusched.worker.window import branch_random_numbers, run_window
    from gpusched.workload import BadData, BadParameters, DeviceMismatch, NoData

    task = job.task
    try:
        preload = getattr(load_module(job.workload), "preload", None)
        if preload is not None:
            preload()
        branch_random_numbers(task.label)
        return run_window(job, lambda phase, round=0, rounds=0: None)
    except (CudaError, DeviceMismatch) as error:
        raise NoSuchDevice(place=task.label, device_type=task.device_type, why=error) from error
    except (NoData, BadData, BadParameters) as error:
        raise WindowFailed(place=task.label, why=with_remedy(str(error), getattr(error, "remedy", ""))) from error
    except (GpuschedError, PermissionError):
        raise
    except Exception as error:
        raise WindowRaised(place=task.label, why=f"{type(error).__name__}: {error}") from error


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise BadDate(text=text) from None


def _sentences(result: WindowResult) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in result.sample_counts.items())
    phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result.phases.items())
    lines = [f"Artifacts: {result.artifacts_path}", f"Rows: {counts}"]
    if result.moved_aside is not None:
        lines.append(f"Moved aside, since it was no result of gpusched: {result.moved_aside}")
    for part, metrics in result.metrics.items():
        if isinstance(metrics, dict):
            lines.append(f"{part.capitalize()}: " + ", ".join(f"{name} {_number(v)}" for name, v in metrics.items()))
        else:
            lines.append(f"{part}: {_number(metrics)}")
    lines.append(f"Seconds: {result.seconds:.3f} ({phases}) on {result.device_type}")
    return "\n".join(lines)


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "undefined" if value is None else str(value)
