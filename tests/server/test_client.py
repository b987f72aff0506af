"""Finding a daemon, and saying why there is none."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from gpusched.client.connection import NoDaemon, NotAllowed, connect
from gpusched.client.link import HungUp, NotADaemon, OtherVersion
from gpusched.errors import DaemonError, InputError
from gpusched.protocol import Welcome, encode, places
from gpusched.protocol.places import NoPlace, listening_path, socket_paths
from tests.server.support import Daemon


def answering(path: Path, answer: bytes) -> threading.Thread:
    """Something that listens at `path` and answers the first client so."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            link.recv(65536)
            link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_order_of_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert socket_paths(Path("/s")) == [Path("/s")]
    assert socket_paths(None) == [Path("/run/user/1000/gpusched/gpusched.sock"), Path("/run/gpusched/gpusched.sock")]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_paths(None) == [Path("/run/gpusched/gpusched.sock")]


def test_daemons_listen_where_clients_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert listening_path(None) == socket_paths(None)[0]
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/gpusched:/run/other")
    assert listening_path(None) == places.SYSTEM_DIRECTORY / places.SOCKET_NAME
    assert listening_path(Path("/s")) == Path("/s")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoPlace, match="GPUSCHED_SOCKET"):
        listening_path(None)


def test_the_first_that_answers_is_found(service: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(places, "SYSTEM_DIRECTORY", service.socket.parent)
    monkeypatch.setattr(places, "SOCKET_NAME", service.socket.name)
    service.start()
    with connect() as connection:
        assert connection.path == service.socket
        assert connection.daemon.pid == service.process.pid
    service.stop()
    with pytest.raises(NoDaemon, match="gpusched daemon") as error:
        connect()
    assert str(service.socket) in str(error.value)
    assert str(tmp_path / "gpusched" / service.socket.name) in str(error.value)
    assert error.value.exit_code == 3


def test_a_socket_that_nobody_listens_at(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(NoDaemon):
        connect(tmp_path / "s")
    (tmp_path / "file").touch()
    with pytest.raises(NoDaemon):
        connect(tmp_path / "file")
    with pytest.raises(NoDaemon):
        connect(tmp_path / ("long" * 50))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(NotAllowed, match=r"daemon\.group") as error:
        connect(tmp_path / "s")
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (encode(Welcome(protocol=1, version="0.1.0", pid=1, started_at=0.0, state_dir="/s")), OtherVersion),
        (b"220 mail.example.com ESMTP\r\n", NotADaemon),
        (b'{"type":"pong","draining":false,"active":0,"unfinished":0,"trouble":null}\n', NotADaemon),
        (b'{"type":"error","problem":"too old","remedy":"upgrade","exit_code":3}\n', DaemonError),
        (b"", HungUp),
        (b'{"type":"welc', HungUp),
    ],
)
def test_what_else_may_listen_there(tmp_path: Path, answer: bytes, error: type[DaemonError]) -> None:
    server = answering(tmp_path / "s", answer)
    with pytest.raises(error) as raised:
        connect(tmp_path / "s")
    assert raised.value.exit_code == 3
    server.join()


def test_the_daemon_goes_in_the_middle_of_an_answer(service: Daemon) -> None:
    service.start()
    with service.connect() as connection:
        subscription = connection.subscribe()
        service.kill()
        with pytest.raises(HungUp) as error:
            next(iter(subscription))
    assert error.value.exit_code == 3


def test_a_request_that_is_too_large_for_the_daemon_is_not_sent(daemon: Daemon) -> None:
    """The daemon's own answer, a frame that is too long, helps nobody who has a file of windows."""
    symbols = tuple(f"S{number:07}" for number in range(800_000))
    with daemon.connect() as client:
        with pytest.raises(
            InputError, match=r"the request takes 8\.\d MiB, and the daemon takes 8 MiB at most\n  submit"
        ):
            client.submit(daemon.spec(*symbols), source="s")
        assert client.batches() == ()


def test_what_the_daemon_refuses_is_said_as_if_it_were_said_here(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        with pytest.raises(InputError, match="there is no batch nothing\n  `gpusched status` lists them all") as error:
            connection.batch("nothing")
        assert error.value.exit_code == 4
        connection.ping()
