from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.support import Daemon


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, not started yet."""
    daemon = Daemon(tmp_path)
    yield daemon
    if hasattr(daemon, "process") and daemon.process.poll() is None:
        daemon.kill()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon, shared by the tests of a module: it must survive them all."""
    with Daemon(tmp_path_factory.mktemp("daemon")) as shared:
        yield shared
        with shared.connect() as connection:
            assert connection.daemon.pid == shared.process.pid
        assert shared.stop() == 0, shared.log.read_text()
    assert "Traceback" not in shared.log.read_text()
    assert not shared.processes()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A batch name of the test's own."""
    return str(request.node.name).translate(str.maketrans("[]", "--"))[:80].rstrip("-")
