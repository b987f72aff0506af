"""Workloads that train nothing and report the view of a window on a GPU. Named `tests.devices.workloads:<name>`.

`warm_up` answers as the environment variable TRIALS says: a JSON object of device type → why it does not train (null if
it does), or `device type on UUID` for one device. The file that TRIALS_FILE names, if there is one, says so instead,
and may change. It adds a line to the file that TRIALS_LOG names.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from gpusched.workload import BadParameters, DeviceType, Report, Result, Task, Trial

RECORDED = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "POCL_CACHE_DIR",
    "CUDA_CACHE_PATH",
)


def warm_up(device_type: DeviceType) -> Trial:
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    if log := os.environ.get("TRIALS_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{device_type} {device}\n")
    answers = json.loads(os.environ.get("TRIALS", "{}"))
    if (told := Path(os.environ.get("TRIALS_FILE", "/nowhere"))).exists():
        answers = json.loads(told.read_text())
    why = answers.get(f"{device_type} on {device}", answers.get(device_type))
    match why:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            _abort("unknown error")
        case "hang":
            signal.pause()
        case "raise":
            raise BadParameters("a bug in the workload")
        case str() if why.startswith("wait for "):
            Path(why.removeprefix("wait for ")).read_text()  # a FIFO: until its other end is closed
            return Trial(trained=True)
        case str() if why.startswith("trained on "):
            return Trial(trained=True, device=why.removeprefix("trained on "))
    return Trial(trained=why is None, why=why)


def _abort(words: str) -> NoReturn:
    """As LightGBM does when an error of CUDA's meets a second one."""
    error = f"[CUDA] {words} /src/cuda_utils.hu 123"
    sys.stderr.write(f"[LightGBM] [Fatal] {error}\n\nterminate called after throwing an instance of ")
    sys.stderr.write(f"'std::runtime_error'\n  what():  {error}\n")
    sys.stderr.flush()
    os.abort()


def _seen(task: Task) -> Result:
    return Result(
        metrics={},
        sample_counts={},
        metadata={
            "environment": {name: os.environ.get(name) for name in RECORDED},
            "affinity": sorted(os.sched_getaffinity(0)),
            "threads": task.threads,
        },
        phases={},
    )


def in_pairs(task: Task, directory: Path, report: Report) -> Result:
    """Ends when a window on another device has come this far, too: the data root has a FIFO `pair-DEVICE` for each."""
    fifos = {path.name.removeprefix("pair-"): os.open(path, os.O_RDWR) for path in Path(task.data_root).glob("pair-*")}
    with contextlib.ExitStack() as stack:
        for descriptor in fifos.values():
            stack.callback(os.close, descriptor)
        (other,) = set(fifos) - {task.device}
        os.write(fifos[other], b"\n")
        os.read(fifos[task.device], 1)
    return _seen(task)


def until_told(task: Task, directory: Path, report: Report) -> Result:
    """On the device that the FIFO `held` of the data root is named for, wait until something is written to it."""
    held = Path(task.data_root) / f"held-{task.device}"
    if held.exists():
        report("waiting")
        with held.open() as fifo:
            fifo.read(1)
    return _seen(task)


def fails_first(task: Task, directory: Path, report: Report) -> Result:
    """The first attempt at each window fails as the environment variable FAILURE says."""
    mark = Path(task.data_root) / f"{task.label}.failed"
    if not mark.exists():
        mark.touch()
        raise RuntimeError(os.environ["FAILURE"])
    return _seen(task)


def aborts_first(task: Task, directory: Path, report: Report) -> Result:
    """As `fails_first`, by the death that LightGBM dies of an error of CUDA's."""
    mark = Path(task.data_root) / f"{task.label}.failed"
    if not mark.exists():
        mark.touch()
        _abort(os.environ["FAILURE"])
    return _seen(task)


def writes(task: Task, directory: Path, report: Report) -> Result:
    """Some of the files that training leaves, the same each time and for each symbol."""
    for name in ("model.txt", "labels.csv.gz", "predictions.csv.gz", "feature_importance.csv"):
        (directory / name).write_text(str(task.start))
    return _seen(task)


def takes_a_while(task: Task, directory: Path, report: Report) -> Result:
    """Writes as `writes`, and is there for several of NVML's readings, as a training is on a GPU."""
    time.sleep(0.3)  # six periods of `benchmarks.gpus.watch`
    return writes(task, directory, report)


def paced(task: Task, directory: Path, report: Report) -> Result:
    """Takes as many seconds as the environment variable PACE says for its device type, and tells where it ran."""
    with (Path(task.data_root) / "paced").open("a") as file:
        file.write(f"{task.device_type} {directory.parent}\n")
    time.sleep(json.loads(os.environ["PACE"])[task.device_type])  # `auto` measures the time
    return _seen(task)
