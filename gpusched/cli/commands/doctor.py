"""`doctor`: check this machine and its configuration, with a remedy for every fault."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec

from gpusched import __version__
from gpusched.cli.commands.batches import load_config
from gpusched.cli.commands.findings import (
    Check,
    Status,
    data_check,
    device_check,
    exchange_check,
    files_check,
    gpu_notes,
    library_checks,
    lightgbm_checks,
    space_check,
    state_check,
)
from gpusched.cli.commands.trials import try_all
from gpusched.cli.cuda_build.workshop import interrupted, put_back_command
from gpusched.config import Config
from gpusched.core.model import DeviceType
from gpusched.core.symbols import symbol_problem
from gpusched.engines.local import proc
from gpusched.engines.local.proc import NoProc
from gpusched.errors import BAD_INPUT, DONE, GpuschedError, UsageError
from gpusched.files import exists, is_directory
from gpusched.teacher.suffixes import SUFFIXES, TEXT
from gpusched.workload import Trial

DEVICE_TYPES: tuple[DeviceType, ...] = get_args(DeviceType)

#: seconds for LightGBM to train on a device: OpenCL may have to compile its kernels first
TRIAL_S = 90.0

#: distribution → module
LIBRARIES = {"TA-Lib": "talib", "pandas": "pandas"}


class NothingToBuild(UsageError):
    problem = "{option} goes with --build-cuda"
    remedy = "add --build-cuda, or leave it out"


def doctor(options: argparse.Namespace) -> int:
    """Run all checks and print them. The exit code is 4 if nothing can be trained here."""
    config = load_config(options).config
    if options.build_cuda:
        from gpusched.cli.cuda_build.command import build_cuda

        if not build_cuda(options, config):
            return DONE
    elif options.yes or options.arch is not None:
        raise NothingToBuild(option="--yes" if options.yes else "--arch")
    checks = list(all_checks(config))
    hopeless = any(check.status == "problem" for check in checks)
    if options.json:
        print(json.dumps({"checks": [msgspec.structs.asdict(check) for check in checks], "ok": not hopeless}))  # noqa: T201
    else:
        _print(checks)
    return BAD_INPUT if hopeless else DONE


def all_checks(config: Config) -> Iterator[Check]:
    """All checks, in the order in which they are shown."""
    trials, imported = try_all(DEVICE_TYPES, LIBRARIES, TRIAL_S)
    yield Check(
        name="gpusched",
        status="ok",
        message=f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.release()}",
    )
    yield from _process_checks()
    kept = interrupted(config.cache.dir / "lightgbm-cuda")
    yield from exchange_check(None if kept is None else put_back_command(kept))
    yield from lightgbm_checks(trials)
    yield from library_checks(imported)
    yield from _device_checks(config, trials)
    yield _data_check(config.data.root)
    yield _space_check("cache", config.cache.dir, "set cache.dir to a directory that you may write")
    yield _space_check("output", config.run.output, "set run.output, or give -o")
    yield from _daemon_checks(config)


# -- checks ------------------------------------------------------------------------------------------------------------


def _process_checks() -> Iterator[Check]:
    try:
        proc.require()
    except NoProc as error:
        yield Check(name="proc", status="problem", message=error.sentence, remedy=error.hint)


def _device_checks(config: Config, trials: Mapping[DeviceType, Trial]) -> Iterator[Check]:
    from gpusched.devices.nvidia import cards as devices
    from gpusched.devices.slots import PoolRules

    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    discovered = devices.discover(mask)
    rules = PoolRules(config)
    pool = rules.pool(rules.select(discovered))
    used = {device.id for device in pool.devices if device.kind != "host"}
    for gpu in discovered.devices:
        memory = f", {gpu.memory_total_bytes / 2**30:.0f} GiB" if gpu.memory_total_bytes else ""
        yield Check(name="gpu", status="ok", message=f"{gpu.name}{memory}, {gpu.id}, driver {discovered.driver}")
    for gpu in discovered.devices:
        if gpu.id not in used:
            yield Check(name="gpu", status="ok", message=f"{gpu.id} is not used: devices.include, devices.exclude")
    yield from gpu_notes(pool.notes)
    if mask is not None:
        yield Check(name="gpu", status="ok", message=f"CUDA_VISIBLE_DEVICES={mask} is the mask of what may be used")
    yield device_check(
        config.run.device,
        gpus=len(used),
        fallback=config.devices.fallback == "cpu",
        trials=trials,
        cpu_opencl=config.devices.allow_cpu_opencl,
    )
    yield Check(name="cores", status="ok", message=f"{pool.cores} of {os.cpu_count()} cores may be used")
    limits = [None if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE)]
    yield files_check(limits[0], limits[1], sum(device.capacity for device in pool.devices))


def _data_check(root: Path) -> Check:
    symbols: set[str] = set()
    texts: set[str] = set()
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                suffix = next((one for one in SUFFIXES if entry.name.lower().endswith(one)), "")
                if symbol_problem(entry.name) is None and (suffix or entry.is_dir()):
                    name = entry.name[: len(entry.name) - len(suffix)]
                    (texts if suffix == TEXT else symbols).add(name)
    except OSError as error:
        return data_check(str(root), None, error.strerror or str(error))
    return data_check(str(root), len(symbols or texts))  # beside other files a text is a note about them


def _space_check(name: str, path: Path, remedy: str) -> Check:
    """Check the directory at `path`, or its nearest existing parent; nothing is created."""
    why, free = None, 0
    try:
        existing = next(parent for parent in (path, *path.parents) if exists(parent))
        free = shutil.disk_usage(existing).free
        if not is_directory(existing):
            why = f"{existing} is not a directory"
        elif not os.access(existing, os.W_OK | os.X_OK):
            why = f"this user may not write to {existing}"
    except OSError as error:
        why = error.strerror or str(error)
    return space_check(name, str(path), why=why, free_bytes=free, remedy=remedy)


def _state_check(path: Path) -> Iterator[Check]:
    """Check the disk with the daemon's state, which others may not be able to look at."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path).free
        yield state_check(str(path), free)


def _daemon_checks(config: Config) -> Iterator[Check]:
    from gpusched.client.connection import NoDaemon, connect
    from gpusched.client.drawing.trouble import remedy

    try:
        with connect(config.daemon.socket) as daemon:
            about = daemon.daemon
            message = f"gpusched {about.version} answers at {daemon.path}"
            if about.version == __version__:
                yield Check(name="daemon", status="ok", message=message)
            else:
                hint = f"this is {__version__}: restart the daemon after an upgrade (`systemctl restart gpusched`)"
                yield Check(name="daemon", status="warning", message=message, remedy=hint)
            yield from _state_check(Path(about.state_dir))
            for trouble in daemon.ping().troubles:
                yield Check(name="daemon", status="problem", message=trouble.text, remedy=remedy(trouble))
    except GpuschedError as error:
        # A machine needs no daemon, but a daemon that runs should answer.
        status: Status = "ok" if isinstance(error, NoDaemon) else "warning"
        yield Check(name="daemon", status=status, message=error.sentence, remedy=error.hint)


# -- printing ----------------------------------------------------------------------------------------------------------

_MARKS: dict[Status, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "warning": ("!", "!", "yellow"),
    "problem": ("✗", "x", "bold red"),
}


def _print(checks: list[Check]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from gpusched.client.drawing.plain import clean
    from gpusched.client.drawing.terminal import open_console

    console = open_console()
    if not console.is_terminal:
        for check in checks:
            print("\t".join(clean(text) for text in (check.status, check.name, check.message, check.remedy)))  # noqa: T201
        return
    ascii_only = console.options.ascii_only
    for check in checks:
        fancy, plain, style = _MARKS[check.status]
        line = Text(f"{plain if ascii_only else fancy} ", style)
        line.append(f"{check.name}: ", "bold default")
        line.append(clean(check.message, ascii_only=ascii_only), "default not bold")
        console.print(line)
        if check.remedy:
            console.print(Padding(Text(clean(check.remedy, ascii_only=ascii_only), "dim"), (0, 0, 0, 4)))
