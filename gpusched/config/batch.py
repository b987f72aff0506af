"""The settings of a batch: its specification, and its terms."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from gpusched.config.schema import MEGABYTE, STATE_DIR, Config, Priority, Run, bounds, range_of
from gpusched.config.workloads import workload_settings
from gpusched.core.model import BatchSpec, Limits, Window
from gpusched.core.terms import terms_of
from gpusched.errors import UsageError


class NoDates(UsageError):
    problem = "no {missing} date is given"
    remedy = "give --start and --end (YYYY-MM-DD), or set windows.start and windows.end in config.toml"


class DatesReversed(UsageError):
    problem = "the windows end on {end}, before they start on {start}"
    remedy = "swap --start and --end"


def batch_spec(
    config: Config, symbols: tuple[str, ...], *, windows: tuple[Window, ...] = (), priority: int = 0
) -> BatchSpec:
    """The specification of a batch of `symbols`, or of `windows` one by one. Raises NoDates, DatesReversed."""
    start, end = config.windows.start, config.windows.end
    if windows:
        start, end = min(window.start for window in windows), max(window.end for window in windows)
    if start is None or end is None:
        missing = " and no ".join(name for name, date in (("start", start), ("end", end)) if date is None)
        raise NoDates(missing=missing)
    if end < start:
        raise DatesReversed(start=start, end=end)
    run = config.run
    return BatchSpec(
        symbols=symbols,
        start=start,
        end=end,
        window_days=config.windows.days,
        stride_days=config.windows.stride_days,
        anchored=config.windows.anchored,
        windows=windows,
        data_root=str(config.data.root),
        workload=run.workload,
        settings=workload_settings(config),
        device=run.device,
        workers=run.workers,
        priority=priority,
        limits=_limits(run),
    )


def run_state_dir(config: Config, output_dir: Path) -> Path:
    """The directory of the database and the logs of `gpusched run`: a separate one for each output directory."""
    if config.run.state_dir is None:
        return output_dir / STATE_DIR
    place = os.path.realpath(output_dir)
    return config.run.state_dir / f"{output_dir.name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def _limits(run: Run) -> Limits:
    return Limits(
        max_attempts=run.max_attempts,
        timeout_s=run.timeout_s,
        grace_s=run.grace_s,
        backoff_s=run.backoff_s,
        backoff_max_s=run.backoff_max_s,
        memory_limit_bytes=run.memory_limit_mb * MEGABYTE,
        log_limit_bytes=run.log_limit_mb * MEGABYTE,
        max_failure_rate=run.max_failure_rate,
        breaker_failures=run.breaker_failures,
    )


def terms(config: Config) -> dict[str, tuple[str, Any]]:
    """The settings that are terms of a batch: `section.key` → (name in `gpusched.core.terms`, value)."""
    of_run = {"workers": config.run.workers, **msgspec.structs.asdict(_limits(config.run))}
    return {f"run.{_key(name)}": (name, value) for name, value in of_run.items()}


def term_problem(spec: BatchSpec) -> str | None:
    """Why a term of a batch is outside of the bounds of its setting, or None."""
    for name, value in terms_of(spec).items():
        least, most = range_of(Priority) if name == "priority" else bounds(Run, _key(name))
        unit = MEGABYTE if name.endswith("_bytes") else 1
        if not least * unit <= value <= most * unit:
            return f"{name} is out of range: at least {least * unit:,.12g} and at most {most * unit:,.12g}"
    return None


def _key(term: str) -> str:
    """The key in the section `run` of a term of a batch."""
    return term.replace("_bytes", "_mb")
