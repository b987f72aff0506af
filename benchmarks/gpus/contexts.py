"""The cost, step by step, of the first use of a device in a process that was forked from a preloaded one.

    python -m benchmarks.gpus.contexts JOB.json --type cuda --device GPU-… --at-once 1,4,16

Prints a JSON object, anew after each number at once: for each, the median milliseconds of each step and the megabytes
of a process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from gpusched.core.model import DeviceType
from gpusched.worker.loading import load_module
from gpusched.worker.messages import WindowJob
from gpusched.worker.rehearsal import make_ready
from gpusched.worker.window import run_window

#: seconds after which a process that hangs is ended
ALARM_S = 60
REPEAT = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--type", choices=("cpu", "gpu", "cuda"), default="cuda")
    parser.add_argument("--device", default="cpu", help="its UUID")
    parser.add_argument("--at-once", default="1,2,4,8,16")
    options = parser.parse_args()
    job = msgspec.json.decode(options.job.read_bytes(), type=WindowJob)
    task = msgspec.structs.replace(job.task, device_type=options.type, device=options.device)
    job = msgspec.structs.replace(job, task=task)
    began = time.perf_counter()
    load_module(job.workload).preload()
    make_ready(job.workload)
    found: dict[str, Any] = {"preload_s": round(time.perf_counter() - began, 3)}
    with tempfile.TemporaryDirectory(prefix="contexts-") as directory:
        _at_once(1, job, Path(directory))  # a first time, for the kernels and the driver's files
        for count in map(int, options.at_once.split(",")):
            rounds = REPEAT if count == 1 else 1
            told = [steps for _ in range(rounds) for steps in _at_once(count, job, Path(directory))]
            found[f"{count} at once"] = _summary(told)
            print(json.dumps(found), flush=True)
    return 0


def _at_once(count: int, job: WindowJob, directory: Path) -> list[dict[str, Any]]:
    """Fork `count` processes, let them begin together, and read the milliseconds of each step."""
    go, start = os.pipe()
    children = []
    for number in range(count):
        told, tell = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(start)
            _child(job, directory / f"{number}", go, tell)
        os.close(tell)
        children.append((pid, told))
    os.close(start)  # every child reads its end of file at once
    found = []
    for pid, told in children:
        with os.fdopen(told, "rb") as pipe:
            text = pipe.read()
        _, _, usage = os.wait4(pid, 0)
        steps = json.loads(text or b'{"error": "it said nothing"}')
        if "error" not in steps:
            steps["cpu"] = round(1000 * (usage.ru_utime + usage.ru_stime), 1)
        found.append(steps)
    os.close(go)
    return found


def _child(job: WindowJob, output: Path, go: int, tell: int) -> NoReturn:
    signal.alarm(ALARM_S)
    steps: dict[str, Any] = {}
    try:
        if job.task.device != "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = job.task.device
        os.read(go, 1)
        began = time.perf_counter()
        if job.task.device_type == "cuda":
            _use_cuda(steps)
            steps["context_mb"] = own_megabytes(job.task.device)
        with _timed(steps, "first training"):
            _train(job.task.device_type)
        with _timed(steps, "second training"):
            _train(job.task.device_type)
        with _timed(steps, "window"):
            run_window(msgspec.structs.replace(job, output_dir=str(output)), lambda phase, round=0, rounds=0: None)
        steps["window_mb"] = own_megabytes(job.task.device)
        steps["all"] = round(1000 * (time.perf_counter() - began), 1)
    except BaseException as error:  # it is reported, and this process ends
        steps["error"] = f"{type(error).__name__}: {error}"[:300]
    os.write(tell, json.dumps(steps).encode())
    os._exit(0)


def _use_cuda(steps: dict[str, Any]) -> None:
    """Use CUDA as a window does, but time each call by itself."""
    with _timed(steps, "load libcuda"):
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()

    def hold_context() -> int:
        code: int = (
            cuda.cuDeviceGet(ctypes.byref(device), 0)
            or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
            or cuda.cuCtxSetCurrent(context)
        )
        return code

    calls: dict[str, Callable[[], int]] = {
        "cuInit": lambda: int(cuda.cuInit(0)),
        "context": hold_context,
        "first allocation": lambda: int(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 20))),
    }
    for name, call in calls.items():
        with _timed(steps, name):
            failed = call()
        if failed:
            raise RuntimeError(f"{name}: CUDA returned {failed}")


def _train(device_type: DeviceType) -> None:
    import lightgbm
    import numpy as np

    x = np.random.default_rng(0).normal(size=(120, 15))
    params = {"objective": "binary", "device_type": device_type, "num_threads": 1, "verbosity": -1}
    if device_type != "cpu":
        params |= {"gpu_device_id": 0, "gpu_use_dp": True}  # the kernels of windows
    lightgbm.train(params, lightgbm.Dataset(x, x[:, 0] > 0), num_boost_round=2)


@contextlib.contextmanager
def _timed(steps: dict[str, Any], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    steps[name] = round(1000 * (time.perf_counter() - began), 2)


def own_megabytes(device_id: str) -> float | None:
    """GPU memory of this process by NVML; None where NVML does not list it, as in a container."""
    from gpusched.devices.nvidia.readings import Gone, Reader, Unreadable

    with contextlib.suppress(Gone, Unreadable), Reader([device_id], slow_s=5.0, sees_own_pids=True) as reader:
        used = (reader.read(device_id, time.time()).process_memory_bytes or {}).get(os.getpid())
        return None if used is None else round(used / 2**20, 1)
    return None


def _summary(told: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [error for steps in told if (error := steps.pop("error", None)) is not None]
    medians = {
        name: round(statistics.median(numbers), 2)
        for name in dict.fromkeys(name for steps in told for name in steps)
        if (numbers := [steps[name] for steps in told if steps.get(name) is not None])
    }
    return {"processes": len(told), "failed": len(errors), "median": medians, "errors": sorted(set(errors))[:3]}


if __name__ == "__main__":
    sys.exit(main())
