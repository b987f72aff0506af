"""What LightGBM says of the OpenCL device that it trains on."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpusched.workload import DeviceMismatch

#: set to 1 it allows OpenCL on the host's processors, for tests of the path of a GPU without one
ALLOW_CPU_OPENCL = "GPUSCHED_ALLOW_CPU_OPENCL"

_NAMED = re.compile(r"Using GPU Device: (.*?), Vendor:")
#: the names that PoCL gives to the host, "cpu-haswell-AMD EPYC …", in old versions "pthread-…"; and those that other
#: drivers do, "Intel(R) Xeon(R) Gold 6338", of which some GPUs on the same chip have a part
_PROCESSOR = re.compile(r"cpu-|.*pthread|(?!.*(Radeon|Graphics)).*(\bCPU\b|Xeon|EPYC|Ryzen|Core\(TM\))", re.IGNORECASE)


def device_named_in(message: str) -> str | None:
    """The device that a message of LightGBM's names, if it names one."""
    found = _NAMED.search(message)
    return found[1] if found else None


def is_processor(name: str) -> bool:
    """Whether an OpenCL device is the host's own processors, and no GPU."""
    return _PROCESSOR.match(name) is not None or name.split() == (processor_name() or "").split()


def processor_name() -> str | None:
    """What the kernel calls the host's processors, None where it has no name for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == "model name"), None)


def require_gpu(name: str | None) -> None:
    """Raise DeviceMismatch unless the device that LightGBM named (None: it named none) is a GPU, or may be none."""
    if os.environ.get(ALLOW_CPU_OPENCL) == "1":
        return
    if name is None:
        raise DeviceMismatch("LightGBM did not say which OpenCL device it used, so it may have been the CPU")
    if is_processor(name):
        raise DeviceMismatch(
            f"OpenCL gave LightGBM the host's processors ({name}) instead of the slot's GPU: remove that OpenCL driver,"
            f" or install the GPU's (for NVIDIA: its libOpenCL and /etc/OpenCL/vendors/nvidia.icd)"
        )
