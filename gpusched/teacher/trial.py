"""Try whether this LightGBM really trains on a device type.

Only for processes that do nothing else, since a device that does not work may crash or hang the process that tries it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gpusched.core.model import DeviceType
from gpusched.teacher import opencl
from gpusched.teacher.features import FEATURES
from gpusched.teacher.schema import GPU_DEFAULTS
from gpusched.workload import DeviceMismatch, Trial

#: numbers of rows: LightGBM compiles different OpenCL kernels for up to 64 bins (the first) and for up to 256 (the
#: second)
ROWS_OF_EACH_KERNEL = (120, 1024)


def try_training(device_type: DeviceType, rows: tuple[int, ...] = (256,)) -> Trial:
    """Train a tiny model for each number of rows, one after the other. Takes over LightGBM's log."""
    messages: list[str] = []
    version = why = None
    try:
        import numpy as np

        from gpusched.teacher.booster import Booster, Dataset, Listener
        from gpusched.teacher.fingerprint import lightgbm_version

        version = lightgbm_version()
        params: dict[str, Any] = {"objective": "binary", "device_type": device_type, "num_threads": 1, "verbosity": 1}
        if device_type != "cpu":
            params |= GPU_DEFAULTS | {"gpu_device_id": 0}  # GPU_DEFAULTS select other kernels
        with Listener(messages.append):
            for count in rows:
                x = np.random.default_rng(0).normal(size=(count, len(FEATURES)))
                booster = Booster(params, Dataset(x, x[:, 0] > 0, params))
                for _ in range(2):
                    booster.update()
    except Exception as error:  # any error is the answer
        why = str(error).strip() or type(error).__name__
    return Trial(trained=why is None, version=version, device=opencl.device_named_in("\n".join(messages)), why=why)


def warm_up(device_type: DeviceType) -> Trial:
    """Try training so that every kernel that a window may need is compiled; see `gpusched.workload`."""
    trial = try_training(device_type, ROWS_OF_EACH_KERNEL)
    if device_type == "gpu" and trial.trained:
        try:
            opencl.require_gpu(trial.device)
        except DeviceMismatch as mismatch:
            return msgspec.structs.replace(trial, trained=False, why=str(mismatch))
    return trial
