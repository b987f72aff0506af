"""Try whether the installed LightGBM really trains on a device type, by its Python package as a user would.

Only for processes that do nothing else, since a device that does not work may crash or hang the process that tries it.
"""

from __future__ import annotations

import msgspec

from gpusched.core.model import DeviceType
from gpusched.teacher import opencl
from gpusched.teacher.libraries import optional_hidden
from gpusched.teacher.schema import GPU_DEFAULTS
from gpusched.workload import DeviceMismatch, Trial

#: numbers of rows: LightGBM compiles different OpenCL kernels for up to 64 bins (the first) and for up to 256 (the
#: second)
ROWS_OF_EACH_KERNEL = (120, 1024)
#: the number of the teacher's features; their module is not imported for it, since that imports TA-Lib, which imports
#: pandas: two thirds of a trial's time
COLUMNS = 15


class _Log:
    """Collects LightGBM's messages."""

    def __init__(self) -> None:
        self.text = ""

    def info(self, message: str) -> None:
        self.text += message + "\n"

    warning = info


def try_training(device_type: DeviceType, rows: tuple[int, ...] = (256,)) -> Trial:
    """Train a tiny model for each number of rows, one after the other. Takes over LightGBM's log."""
    log = _Log()
    version = why = None
    try:
        import lightgbm
        import numpy as np

        version = lightgbm.__version__
        lightgbm.register_logger(log)
        params = {"objective": "binary", "device_type": device_type, "num_threads": 1, "verbosity": 1}
        if device_type != "cpu":
            params |= GPU_DEFAULTS | {"gpu_device_id": 0}  # GPU_DEFAULTS select other kernels
        for count in rows:
            x = np.random.default_rng(0).normal(size=(count, COLUMNS))
            lightgbm.train(params, lightgbm.Dataset(x, x[:, 0] > 0), num_boost_round=2)
    except Exception as error:  # any error is the answer
        why = str(error).strip() or type(error).__name__
    return Trial(trained=why is None, version=version, device=opencl.device_named_in(log.text), why=why)


def warm_up(device_type: DeviceType) -> Trial:
    """Try training so that every kernel that a window may need is compiled; see `gpusched.workload`."""
    with optional_hidden():  # the import takes half the time without them
        trial = try_training(device_type, ROWS_OF_EACH_KERNEL)
    if device_type == "gpu" and trial.trained:
        try:
            opencl.require_gpu(trial.device)
        except DeviceMismatch as mismatch:
            return msgspec.structs.replace(trial, trained=False, why=str(mismatch))
    return trial
