"""Abuse by clients: one error reply at most, the connection closed, the daemon unharmed."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpusched import __version__
from gpusched.core.events import BatchFinished, WindowMoved
from gpusched.errors import DaemonError
from gpusched.protocol import MAX_REQUEST_BYTES, PROTOCOL, Submit, encode
from gpusched.service import clients
from gpusched.service.clients import Clients, Over, Peer, may_connect, peer_of
from gpusched.service.listener import Listener, SocketUnusable, UnknownGroup
from gpusched.service.surveys import MAX_SURVEYS
from tests.server.support import Daemon, finished, frame, read_frame, read_to_end, until
from tests.waiting import PATIENCE_S
from tests.waiting import until as patiently


@pytest.fixture(autouse=True)
def _unharmed(daemon: Daemon) -> Iterator[None]:
    """After each of these tests the same daemon answers."""
    yield
    with daemon.connect() as connection:
        assert connection.daemon.pid == daemon.process.pid
        assert connection.ping().trouble is None


def only_error(answer: bytes) -> dict[str, object]:
    """The one frame of an answer, an error with a remedy."""
    (line,) = answer.splitlines()
    problem = json.loads(line)
    assert problem["type"] == "error"
    assert problem["problem"]
    assert problem["remedy"]
    assert problem["exit_code"] == 3
    return dict(problem)


def last_words(link: socket.socket) -> dict[str, object]:
    with link:
        return only_error(read_to_end(link))


# -- frames ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.booleans(), noise=st.binary(min_size=1, max_size=2000))
@example(before=True, noise=b"\n")
@example(before=False, noise=b"\n\n\n")
@example(before=False, noise=b"\0" * 2000)
def test_random_bytes(daemon: Daemon, before: bool, noise: bytes) -> None:
    with daemon.raw() if before else daemon.greeted() as link:
        link.sendall(noise)
        link.shutdown(socket.SHUT_WR)
        only_error(read_to_end(link))


def test_half_a_frame(daemon: Daemon) -> None:
    link = daemon.greeted()
    link.sendall(b'{"type":"pi')
    link.shutdown(socket.SHUT_WR)
    assert "middle of a frame" in str(last_words(link)["problem"])


def test_surveys_that_hang_end_with_their_clients(service: Daemon, tmp_path: Path) -> None:
    """They kept their places, of which there are few: no batch of anybody was accepted any more."""
    (tmp_path / "hangs.py").write_text(
        "import signal\nfrom pathlib import Path\n"
        "def survey(task):\n    Path(task.data_root, task.symbol).touch()\n    signal.pause()\n"
        "def train(*_): ...\n"
    )
    service.start(BEAT_S=0.1)
    for number in range(MAX_SURVEYS):
        spec = msgspec.structs.replace(service.spec(f"HANGS{number}"), workload=f"{tmp_path}:hangs:train")
        with service.greeted() as link:
            link.sendall(encode(Submit(spec=spec, source="s")))
            patiently((service.data / f"HANGS{number}").exists, patience_s=PATIENCE_S)
    with service.connect() as client:
        client.submit(service.spec("A"), source="s", name="served")
    assert finished(service, "served").counts == {"succeeded": 1}
    assert service.stop() == 0


def test_half_a_frame_and_gone(daemon: Daemon) -> None:
    link = daemon.greeted()
    link.sendall(b'{"type":"pi')
    link.close()


def test_a_frame_in_pieces_is_a_frame(daemon: Daemon) -> None:
    with daemon.greeted() as link:
        for byte in frame(type="ping"):
            link.send(bytes([byte]))
        assert read_frame(link)["type"] == "pong"


def test_a_frame_of_100_megabytes(daemon: Daemon) -> None:
    link = daemon.greeted()
    try:
        for _ in range(100):
            link.sendall(b"x" * (1 << 20))
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert str(MAX_REQUEST_BYTES) in str(last_words(link)["problem"])


@pytest.mark.parametrize(
    "opening", [b"[", b'{"a":', b'{"type":"ping","x":[', b'{"type":"submit","spec":{"settings":{"a":[']
)
def test_deep_nesting(daemon: Daemon, opening: bytes) -> None:
    link = daemon.greeted()
    link.sendall(opening * 200_000 + b"\n")
    last_words(link)


def test_another_version(daemon: Daemon) -> None:
    link = daemon.raw()
    link.sendall(frame(type="hello", protocol=PROTOCOL + 1, version="9.9.9"))
    problem = last_words(link)
    assert "9.9.9" in str(problem["problem"])
    assert __version__ in str(problem["problem"])
    assert "upgrade" in str(problem["remedy"])


def test_a_request_without_a_hello(daemon: Daemon) -> None:
    link = daemon.raw()
    link.sendall(frame(type="ping"))
    last_words(link)


def test_requests_can_be_sent_ahead(daemon: Daemon) -> None:
    with daemon.greeted() as link:
        link.sendall(frame(type="ping") * 100)
        for _ in range(100):
            assert read_frame(link)["type"] == "pong"


def test_no_hello_in_time(service: Daemon) -> None:
    service.start(HELLO_S=0.05)
    assert "hello" in str(last_words(service.raw())["problem"])
    service.stop()


# -- who may connect ---------------------------------------------------------------------------------------------------

OWNER, GROUP = 1000, 50


@pytest.mark.parametrize(
    ("uid", "gids", "group", "allowed"),
    [
        (OWNER, {1000}, None, True),
        (0, {0}, None, True),
        (1001, {1001}, None, False),
        (1001, {1000}, None, False),
        (1001, {GROUP}, GROUP, True),
        (1001, {1001, GROUP}, GROUP, True),
        (1001, {1001, 51}, GROUP, False),
        (1001, set(), GROUP, False),
        (1001, {0}, None, False),
    ],
)
def test_who_may_connect(uid: int, gids: set[int], group: int | None, allowed: bool) -> None:
    peer = Peer(pid=1, uid=uid, gids=frozenset(gids))
    assert may_connect(peer, owner=OWNER, group=group) is allowed


def test_the_kernel_says_who_it_is() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.gids == {os.getgid(), *os.getgroups()}


def test_the_socket_is_private(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
    assert daemon.socket.parent.stat().st_mode & 0o777 == 0o700
    assert (daemon.directory / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
def test_somebody_else_is_turned_away_even_where_the_modes_are_wrong() -> None:
    with tempfile.TemporaryDirectory() as place, Daemon(Path(place)) as open_daemon:
        Path(place).chmod(0o755)
        open_daemon.socket.parent.chmod(0o755)
        open_daemon.socket.chmod(0o666)
        os.seteuid(65534)
        try:
            link = open_daemon.raw()
        finally:
            os.seteuid(0)
        assert "may not talk" in str(last_words(link)["problem"])
        assert "uid=65534" in open_daemon.log.read_text()


def test_a_socket_for_a_group(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid())
    listener = Listener(tmp_path / "run" / "s", group.gr_name)
    try:
        assert listener.group == group.gr_gid
        assert (tmp_path / "run" / "s").stat().st_mode & 0o777 == 0o660
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750
    finally:
        listener.close()
    with pytest.raises(UnknownGroup, match="groupadd"):
        Listener(tmp_path / "s", "no-such-group")
    with pytest.raises(SocketUnusable, match="longer than"):
        Listener(tmp_path / ("s" * 100), None)


# -- many and slow -----------------------------------------------------------------------------------------------------


def test_200_clients_at_once(daemon: Daemon) -> None:
    links = [daemon.greeted() for _ in range(200)]
    for link in links:
        link.sendall(frame(type="list_batches"))
    for link in links:
        assert read_frame(link)["type"] == "batches"
        link.close()


def test_the_owner_always_gets_in(service: Daemon) -> None:
    """The connection that nothing was asked on for the longest time makes room, and is told why."""
    service.start(MAX_CLIENTS=3)
    links = [service.greeted() for _ in range(3)]
    links[0].sendall(frame(type="ping"))
    assert read_frame(links[0])["type"] == "pong"
    with service.connect() as connection:
        connection.ping()
        assert "idle for the longest time" in str(last_words(links[1])["problem"])
        for link in (links[0], links[2]):
            link.sendall(frame(type="ping"))
            assert read_frame(link)["type"] == "pong"
            link.close()
    service.stop()


class Nobody:
    """A connection as far as `Clients` looks at it."""

    def __init__(self) -> None:
        self.busy, self.idle_since, self.left = False, 0.0, False

    def leave(self, last_words: object) -> None:
        self.left = True


def test_nobody_keeps_others_out_with_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 5)
    monkeypatch.setattr(clients, "MAX_OF_A_USER", 3)
    connected = Clients(owner=1000)

    with contextlib.ExitStack() as stack:

        def come(uid: int) -> Nobody:
            client = Nobody()
            peer = Peer(pid=1, uid=uid, gids=frozenset())
            stack.enter_context(connected.admitted(client, peer))  # type: ignore[arg-type]  # a stand-in
            return client

        for _ in range(3):
            come(7)
        with pytest.raises(Over, match="your user has 3 connections"):
            come(7)
        come(8)
        come(8)
        with pytest.raises(Over, match="5 clients already"):
            come(9)
        for uid in (0, 1000):
            first = come(uid)
            second = come(uid)
            first.busy, second.idle_since = True, 1.0
            for _ in range(3):
                come(uid).idle_since = 2.0
            come(uid)
            assert (first.left, second.left) == (False, True)
    with contextlib.ExitStack() as stack:
        come(7)  # all of them have left


def test_an_error_of_the_daemon_itself_is_answered_and_logged(service: Daemon) -> None:
    """Only errors of the connection mean that the client is gone: it is told, and the connection goes on."""
    service.start()
    logs = service.directory / "state" / "logs"
    logs.mkdir(exist_ok=True)
    logs.rename(logs.with_name("elsewhere"))
    logs.write_text("a file where a directory should be")
    with service.connect() as connection:
        with pytest.raises(DaemonError, match=r"could not answer: .*logs") as caught:
            connection.submit(service.spec("A"), source="s")
        reference = re.search(r"under the reference (\w+)", str(caught.value))
        assert reference is not None
        log = service.log.read_text()
        assert f"a request could not be answered reference={reference[1]} request=submit" in log
        assert "Traceback" in log
        logs.unlink()
        submitted = connection.submit(service.spec("A"), source="s")
        assert finished(service, submitted.batch.id).counts == {"succeeded": 1}
    assert service.stop() == 0


def test_a_subscriber_that_does_not_read_is_dropped_and_windows_go_on(service: Daemon) -> None:
    service.start(MAX_BEHIND_BYTES=1024)
    slow = service.greeted()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(frame(type="subscribe"))
    with service.connect() as connection, service.connect() as follower:
        subscription = follower.subscribe()
        submitted = connection.submit(service.spec("A", windows=150), source="s")
        seen = until(subscription, lambda delta: isinstance(delta, BatchFinished))
        assert connection.batch(submitted.batch.id).batch.counts == {"succeeded": 150}
    ended = [delta for delta in seen if isinstance(delta, WindowMoved) and delta.ending is not None]
    assert len(ended) == 150
    assert not read_to_end(slow).endswith(b'"batch_finished"}\n')
    slow.close()
    assert "dropped" in service.log.read_text()
    service.stop()


def test_a_client_that_does_not_read_its_answers_is_dropped(service: Daemon) -> None:
    service.start(SEND_S=0.1)
    with service.connect() as connection:
        connection.submit(service.spec("SKIP", windows=100), source="s", name="batch")
    with service.greeted() as slow:
        slow.sendall(frame(type="list_windows", batch_id="batch") * 100)
        with service.connect() as connection:
            while "does not read its answers" not in service.log.read_text():
                assert len(list(connection.windows("batch"))) == 100
        assert read_to_end(slow).count(b'"type":"end"') < 100
    service.stop()


def test_no_descriptors_left(service: Daemon) -> None:
    """Connections wait, windows are tried again, and all of it goes on when there are descriptors again."""
    service.start(("prlimit", "--nofile=48:48"))
    with service.connect() as connection:
        links = [service.raw() for _ in range(60)]
        # The log is written at the first accept that fails, and the daemon answers all the same.
        while "no connection can be accepted" not in service.log.read_text():
            connection.ping()
        for link in links:
            link.close()
        submitted = connection.submit(service.spec("A", windows=3), source="s")
    assert finished(service, submitted.batch.id).counts == {"succeeded": 3}
    assert service.stop() == 0
