"""The OpenCL device that LightGBM trains on, as its messages name it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpusched.workload import DeviceMismatch

#: environment variable; 1 accepts the host's processors as an OpenCL device, so that tests need no GPU
ALLOW_CPU_OPENCL = "GPUSCHED_ALLOW_CPU_OPENCL"

_NAMED = re.compile(r"Using GPU Device: (.*?), Vendor:")
#: names of processors: PoCL's ("cpu-haswell-AMD EPYC …", in old versions "pthread-…") and those of other drivers
#: ("Intel(R) Xeon(R) Gold 6338"); names of GPUs on the same chip can share a part with these, but say Radeon or
#: Graphics
_PROCESSOR = re.compile(r"cpu-|.*pthread|(?!.*(Radeon|Graphics)).*(\bCPU\b|Xeon|EPYC|Ryzen|Core\(TM\))", re.IGNORECASE)


def device_named_in(message: str) -> str | None:
    """The device that a message of LightGBM names; None if it names none."""
    match = _NAMED.search(message)
    return match[1] if match else None


def is_processor(name: str) -> bool:
    """Whether an OpenCL device is the host's own processors rather than a GPU."""
    return _PROCESSOR.match(name) is not None or name.split() == (processor_name() or "").split()


def processor_name() -> str | None:
    """The kernel's name for the host's processors; None if it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == "model name"), None)


def require_gpu(name: str | None) -> None:
    """Raise DeviceMismatch if the device that LightGBM named is not a GPU, or if it named none (None).

    `ALLOW_CPU_OPENCL` turns the check off.
    """
    if os.environ.get(ALLOW_CPU_OPENCL) == "1":
        return
    if name is None:
        raise DeviceMismatch("LightGBM did not say which OpenCL device it used, so it may have been the CPU")
    if is_processor(name):
        raise DeviceMismatch(
            f"OpenCL gave LightGBM the host's processors ({name}) instead of the slot's GPU: remove that OpenCL driver,"
            f" or install the GPU's (for NVIDIA: its libOpenCL and /etc/OpenCL/vendors/nvidia.icd)"
        )
