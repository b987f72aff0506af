"""A machine of the test's own: this one's files under a layer of its own, booted by systemd in a container."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
COMMAND = "/opt/gpusched/bin/gpusched"
#: where the repository is in the machine, as far as it is needed
CLONE = "/usr/src/gpusched"
PATIENCE_S = 90.0
#: nothing of the machine's own business is to start
MASKED = (
    *("systemd-udevd", "systemd-networkd", "systemd-resolved", "systemd-timesyncd", "systemd-logind"),
    *("systemd-firstboot", "systemd-journal-flush", "networking", "console-getty", "cron", "ssh", "dbus"),
)

T = TypeVar("T")


def why_not() -> str | None:
    """Why no machine can be booted here, or None."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed: `apt install systemd systemd-container`"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed: `apt install systemd-container`"
    return None


class Machine:
    """Files below `root`, seen from outside; a context manager that leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        self._layer = directory / "layer"
        self.root = directory / "root"
        self._console = directory / "console.txt"
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Machine:
        for path in (self._layer, self.root):
            path.mkdir()
        _mount("-t", "tmpfs", "tmpfs", str(self._layer))
        try:
            for name in ("upper", "work"):
                (self._layer / name).mkdir()
            layers = f"lowerdir=/,upperdir={self._layer}/upper,workdir={self._layer}/work"
            _mount("-t", "overlay", "overlay", "-o", layers, str(self.root))
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()
        for path in (self.root, self._layer):
            subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)

    def path(self, inside: str) -> Path:
        """Where a path of the machine is, from outside."""
        return self.root / inside.removeprefix("/")

    # -- files on its disk ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        units = self.path("/etc/systemd/system")
        for name in MASKED:
            (units / f"{name}.service").unlink(missing_ok=True)
            (units / f"{name}.service").symlink_to("/dev/null")
        self.path("/etc/fstab").write_text("")
        self.path("/etc/machine-id").write_text("")
        self._install()
        shutil.copytree(REPOSITORY / "systemd", self.path(CLONE) / "systemd")

    def _install(self) -> None:
        """gpusched and its dependencies in /opt/gpusched, as pip would have put it there."""
        target = self.path("/opt/gpusched")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
        packages = target / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        left_out = shutil.ignore_patterns("*.pth", "__editable__*", "mypy", "sklearn", "hypothesis", "tests", "pip")
        shutil.copytree(sysconfig.get_path("purelib"), packages, dirs_exist_ok=True, ignore=left_out)
        for name in ("gpusched", "tests"):
            shutil.rmtree(packages / name, ignore_errors=True)
            shutil.copytree(REPOSITORY / name, packages / name, symlinks=True)
        script = self.path(COMMAND)
        script.write_text(
            "#!/opt/gpusched/bin/python\nimport sys\nfrom gpusched.__main__ import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
        # The interpreter may lie in a home directory, which is nobody else's business on a real machine.
        for parent in Path(sys.base_prefix).parents:
            self.path(str(parent)).chmod(0o755)

    # -- power ---------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started all that it was told to start."""
        command = ["systemd-nspawn", f"--directory={self.root}", "--boot", "--private-network", "--register=no"]
        command += ["--keep-unit", "--quiet", "--console=pipe", "systemd.unit=multi-user.target"]
        with self._console.open("ab") as console:
            self._container = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        self._leader = self.until(self._find_leader)
        self.until(lambda: self.run("systemctl", "is-system-running").strip() in ("running", "degraded"))

    def until_rebooted(self) -> None:
        """After `systemctl reboot`: under a service manager the container ends, and is to be started again."""
        assert self._container is not None
        self._container.wait(PATIENCE_S)
        self.boot()

    def _find_leader(self) -> int:
        assert self._container is not None
        assert self._container.poll() is None, self._console.read_text()
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def cut_power(self) -> None:
        """Everything in it is gone at once."""
        if self._container is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader or self._container.pid, signal.SIGKILL)
        try:
            self._container.wait(10)
        except subprocess.TimeoutExpired:
            self._container.kill()
            self._container.wait()
        self._container = None

    # -- commands in it ------------------------------------------------------------------------------------------------

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", "-t", str(self._leader), "-a", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, check: bool = False) -> str:
        """Run a command as root; return its output."""
        with self.start(*command) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        assert not check or process.returncode == 0, (command, process.returncode, out, err)
        return out

    def gpusched(self, *arguments: str) -> str:
        return self.run(COMMAND, *arguments, check=True)

    def status(self, batch_id: str) -> dict[str, Any]:
        found = json.loads(self.gpusched("status", batch_id, "--json"))
        assert isinstance(found, dict)
        return found

    def until(self, condition: Callable[[], T]) -> T:
        """The first true answer. There is no event to wait for from outside of the machine."""
        return until(condition, patience_s=PATIENCE_S, said=lambda: self.run("journalctl", "-n", "50", "--no-pager"))


@contextlib.contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    with Machine(directory) as machine:
        machine.boot()
        yield machine


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
