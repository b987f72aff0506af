"""`python -m gpusched.cli.commands.trial DEVICE_TYPE`: the doctor's trial, in a separate process.

Prints `Trial`s as JSON, one per line; the last one counts. An error of CUDA is printed before LightGBM, which
alone knows whether it was built for CUDA, is tried: LightGBM may meet the same error and crash.
"""

from __future__ import annotations

import sys

import msgspec

from gpusched.core.model import CPU, DeviceType
from gpusched.teacher.libraries import optional_hidden
from gpusched.teacher.trial import try_training
from gpusched.worker.cuda import CudaError, require_device
from gpusched.worker.trial import leave_no_core
from gpusched.workload import Trial


def main(device_type: DeviceType) -> None:
    """Train on the first device that this process sees."""
    try:
        require_device(CPU, device_type)
    except CudaError as error:
        _say(Trial(trained=False, why=str(error)))
        leave_no_core()
    with optional_hidden():  # as for windows, and twice as fast
        _say(try_training(device_type))


def _say(trial: Trial) -> None:
    print(msgspec.json.encode(trial).decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(msgspec.convert(sys.argv[1], DeviceType))
