"""For all tests.

Random examples are the same at each run, and have no time limit of their own; language and umask are the same for
whoever runs them; files lie in memory where there is room; and more tests run at once than there are cores.
"""

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine under load would not keep a limit. Other examples are looked for with `--hypothesis-profile random`.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("gpusched", settings.get_profile("random"), derandomize=True)
settings.load_profile("gpusched")

# Whoever runs the tests has others: frames have the characters of the locale, files the modes that the umask leaves.
os.environ["LC_ALL"] = "C.UTF-8"
os.umask(0o022)

# A shell has what it runs in the background ignore Ctrl-C; so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules and 4,000 tests make a heap of objects that stay: a sixth of a collection was a search for garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# -- where files lie ---------------------------------------------------------------------------------------------------

IN_MEMORY = Path("/dev/shm")
PREFIX = "gpusched-"  # short, as paths of sockets are at most 107 bytes
#: the quick suite leaves 300 MB
ROOM_BYTES = 4 << 30
#: earlier runs whose files stay
KEPT = 2


def pytest_configure(config: pytest.Config) -> None:
    """Without `--basetemp`, files lie in memory: flushes that wait for a disk take a third of the suite's time."""
    if config.option.basetemp is None and is_fit(IN_MEMORY):
        with contextlib.suppress(OSError):  # another run may be removing the same
            remove_earlier()
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=IN_MEMORY))
        locked(place)  # until this process ends
        # Within it, as pytest makes the directory anew that it is given: the lock was on one that had gone.
        config.option.basetemp = str(place / "t")


def is_fit(directory: Path) -> bool:
    """Whether there is room, for libraries that the tests compile and load as well."""
    if not os.access(directory, os.W_OK):
        return False
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize >= ROOM_BYTES and not disk.f_flag & os.ST_NOEXEC


def remove_earlier() -> None:
    """Remove the files of earlier runs, but for the last of them, and for those that go on."""
    left = [path for path in IN_MEMORY.glob(f"{PREFIX}????????") if path.stat().st_uid == os.getuid()]
    for path in sorted(left, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        descriptor = locked(path)
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def locked(path: Path) -> int | None:
    """A descriptor of a directory that holds its lock; None if another process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let go of the memory; files of failed tests stay for whoever looks for the cause."""
    place = Path(session.config.option.basetemp or "/").parent
    if exitstatus == pytest.ExitCode.OK and place.parent == IN_MEMORY and place.name.startswith(PREFIX):
        shutil.rmtree(place, ignore_errors=True)


# -- how many tests run at once ----------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: half as many again as cores, as a test that waits for a process, a timer or a disk leaves its idle."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2
