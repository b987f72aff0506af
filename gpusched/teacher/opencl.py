"""What LightGBM says of the OpenCL device that it trains on."""

from __future__ import annotations

import re

_NAMED = re.compile(r"Using GPU Device: (.*?), Vendor:")
#: the names that PoCL gives to the host: "cpu-haswell-AMD EPYC …", in old versions "pthread-…"
_PROCESSOR = re.compile(r"cpu-|.*pthread", re.IGNORECASE)


def device_named_in(message: str) -> str | None:
    """The device that a message of LightGBM's names, if it names one."""
    found = _NAMED.search(message)
    return found[1] if found else None


def is_processor(name: str) -> bool:
    """Whether an OpenCL device is the host's own processors, and no GPU."""
    return _PROCESSOR.match(name) is not None
