"""`python -m gpusched.cli.commands.trial DEVICE_TYPE`: the doctor's trial, in a process of its own.

Prints `Trial`s as JSON, one a line, of which the last one counts: what CUDA has against a device is said before
LightGBM, which alone knows whether it was built for CUDA, meets the same and may die of it.
"""

from __future__ import annotations

import sys

import msgspec

from gpusched.core.model import CPU, DeviceType
from gpusched.teacher.libraries import OPTIONAL, hidden
from gpusched.teacher.trial import try_training
from gpusched.worker.cuda import CudaError, require_device
from gpusched.worker.trial import leave_no_core
from gpusched.workload import Trial


def main(device_type: DeviceType) -> None:
    """Train on the first device that this process sees."""
    try:
        require_device(CPU, device_type)
    except CudaError as refused:
        _say(Trial(trained=False, why=str(refused)))
        leave_no_core()
    with hidden(OPTIONAL):  # as for windows, and twice as fast
        _say(try_training(device_type))


def _say(trial: Trial) -> None:
    print(msgspec.json.encode(trial).decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(msgspec.convert(sys.argv[1], DeviceType))
