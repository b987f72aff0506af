"""A disk whose flushes take longer, for all programs that are started from here: a library that they preload."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("slow_disk.c")


def slow_down(flush_ms: float, directory: Path) -> None:
    """Let every fsync and fdatasync of programs started from now on take `flush_ms` more. Needs a C compiler."""
    library = directory / "slow_disk.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    os.environ["SLOW_DISK_US"] = str(round(1000 * flush_ms))
