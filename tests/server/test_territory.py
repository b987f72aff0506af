"""The daemon does for a client no more than that client could do alone; with two real users."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gpusched import directories
from gpusched.errors import InputError
from gpusched.service.clients import Peer
from gpusched.service.territory import (
    CodeNotYours,
    CodeUnreadable,
    DataNotYours,
    DataUnreadable,
    OutputNotYours,
    OutputPrivate,
    OutputUnwritable,
    OutsideRoots,
    ResultsNotYours,
    Territory,
    WorkloadRefused,
    may,
)
from tests.server.support import Daemon, finished

ALICE, BOB, STAFF = 4242, 4343, 4444
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


def peer(uid: int, *gids: int) -> Peer:
    return Peer(pid=1, uid=uid, gids=frozenset(gids or (uid,)))


def status(mode: int, uid: int = BOB, gid: int = STAFF) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "client", "wanted", "granted"),
    [
        (0o700, peer(BOB), 0o7, True),
        (0o077, peer(BOB, STAFF), 0o4, False),  # the owner has the owner's bits alone
        (0o770, peer(ALICE, ALICE, STAFF), 0o7, True),
        (0o707, peer(ALICE, ALICE, STAFF), 0o4, False),  # and so has the group
        (0o755, peer(ALICE), 0o5, True),
        (0o755, peer(ALICE), 0o2, False),
        (0o700, peer(ALICE), 0o1, False),
    ],
)
def test_modes(mode: int, client: Peer, wanted: int, granted: bool) -> None:
    assert may(client, status(mode), b"", wanted) is granted


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize(
    ("client", "wanted", "granted"),
    [
        (peer(ALICE), 0o7, False),  # her entry is all that counts, and the mask takes from it
        (peer(ALICE), 0o5, True),
        (peer(4545, STAFF), 0o5, True),
        (peer(4545, 4646), 0o4, True),  # one of the groups is enough
        (peer(4545, 4646), 0o1, False),
        (peer(4545), 0o4, False),
    ],
)
def test_access_lists(client: Peer, wanted: int, granted: bool) -> None:
    none = 0xFFFFFFFF
    entries = access_list(
        (0x01, 7, none), (0x02, 7, ALICE), (0x04, 5, none), (0x08, 4, 4646), (0x10, 5, none), (0x20, 0, none)
    )
    assert may(client, status(0o750), entries, wanted) is granted


# -- as the kernel would judge -----------------------------------------------------------------------------------------


def can(uid: int, gids: list[int], path: Path, wanted: int) -> bool:
    """The kernel's answer to a process of that user."""
    child = os.fork()
    if child == 0:
        os.setgroups(gids)
        os.setresgid(gids[0], gids[0], gids[0])
        os.setresuid(uid, uid, uid)
        os._exit(not os.access(path, wanted))
    return os.waitpid(child, 0)[1] == 0


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o770, 0o711, 0o733, 0o755, 0o777, 0o070, 0o007])
@pytest.mark.parametrize("gids", [[ALICE], [ALICE, STAFF]])
def test_it_is_judged_as_the_kernel_does(machine: Path, mode: int, gids: list[int]) -> None:
    place = machine / "place"
    place.mkdir()
    os.chown(place, BOB, STAFF)
    place.chmod(mode)
    asked = place.stat()
    for wanted in (os.R_OK, os.W_OK | os.X_OK, os.X_OK):
        assert may(peer(ALICE, *gids), asked, b"", wanted) is can(ALICE, gids, place, wanted)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[Path]:
    """Directories of a service and of two users, which all of them can reach: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="gpusched-") as name:
        path = Path(name)
        path.chmod(0o755)
        for below in ("state", "cache", "run", "state/runs", "alice", "bob", "bars"):
            (path / below).mkdir()
        os.chown(path / "alice", ALICE, ALICE)
        os.chown(path / "bob", BOB, BOB)
        (path / "state").chmod(0o700)
        (path / "bob").chmod(0o700)
        yield path


def territory(machine: Path) -> Territory:
    private = (machine / "state", machine / "cache", machine / "run")
    return Territory(output_root=machine / "state" / "runs", private=private)


@needs_root
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("state", "is"),
        ("state/logs", "lies in"),
        ("cache/bars/x", "lies in"),
        ("run", "is"),
        ("", "holds"),
        ("alias/logs", "lies in"),
    ],
)
def test_the_daemons_own_directories_are_no_outputs(machine: Path, output: str, why: str) -> None:
    (machine / "alias").symlink_to(machine / "state")
    with pytest.raises(OutputPrivate, match=why):
        territory(machine).place(peer(0), machine / output)


@needs_root
def test_the_output_root_may_lie_in_the_state_directory(machine: Path) -> None:
    place = territory(machine).place(peer(ALICE), machine / "state" / "runs" / "b")
    territory(machine).prepare(peer(ALICE), machine / "bars", place, is_theirs=True)
    assert (machine / "state" / "runs" / "b").is_dir()
    with pytest.raises(OutputNotYours, match="user 4242 cannot write to the output directory"):
        territory(machine).prepare(peer(ALICE), machine / "bars", place, is_theirs=False)


@needs_root
def test_an_output_is_where_its_client_could_write(machine: Path) -> None:
    rules = territory(machine)
    place = rules.place(peer(ALICE), machine / "alice" / "deep" / "er")
    assert place.guarded
    assert place.owner == ALICE
    rules.prepare(peer(ALICE), machine / "bars", place, is_theirs=False)
    assert (machine / "alice" / "deep" / "er").is_dir()
    for output in ("bob", "bob/x", "bars/x", "alice/../bob"):
        place = rules.place(peer(ALICE), machine / output)
        with pytest.raises(OutputNotYours):
            rules.prepare(peer(ALICE), machine / "bars", place, is_theirs=False)
    assert list((machine / "bob").iterdir()) == []
    assert list((machine / "bars").iterdir()) == []
    place = rules.place(peer(0), machine / "bob" / "x")
    assert not place.guarded
    rules.prepare(peer(0), machine / "bars", place, is_theirs=False)


@needs_root
def test_data_are_read_that_the_client_could_read(machine: Path) -> None:
    rules = territory(machine)
    place = rules.place(peer(ALICE), machine / "alice" / "x")
    (machine / "alice" / "link").symlink_to(machine / "bob")
    for root in ("bob", "alice/link"):
        with pytest.raises(DataNotYours, match="user 4242 cannot read the data root"):
            rules.prepare(peer(ALICE), machine / root, place, is_theirs=False)
    with pytest.raises(DataUnreadable, match="No such file"):
        rules.prepare(peer(ALICE), machine / "bars" / "none", place, is_theirs=False)
    rules.prepare(peer(BOB), machine / "bob", rules.place(peer(BOB), machine / "bob" / "x"), is_theirs=False)


@needs_root
def test_a_link_that_is_put_on_the_way_afterwards_leads_nowhere(machine: Path) -> None:
    rules = territory(machine)
    place = rules.place(peer(ALICE), machine / "alice" / "deep" / "er")
    rules.prepare(peer(ALICE), machine / "bars", place, is_theirs=False)
    (machine / "alice" / "deep").rename(machine / "alice" / "was")
    (machine / "alice" / "deep").symlink_to(machine / "state")
    with pytest.raises(OutputUnwritable, match="Not a directory"):
        rules.prepare(peer(ALICE), machine / "bars", place, is_theirs=False)
    with (
        pytest.raises(directories.NotOurs, match="reached by a link"),
        directories.opened_output(place.path, guarded=True),
    ):
        pass
    assert not (machine / "state" / "er").exists()


@needs_root
def test_new_output_directories_have_the_mode_and_the_group_of_the_team(machine: Path) -> None:
    rules = msgspec.structs.replace(territory(machine), output_group=STAFF, output_mode=0o750)
    place = rules.place(peer(ALICE), machine / "alice" / "deep" / "er")
    rules.prepare(peer(ALICE), machine / "bars", place, is_theirs=False)
    for path in (place.path.parent, place.path):
        made = path.stat()
        assert (stat.S_IMODE(made.st_mode), made.st_gid) == (0o2750, STAFF)
    (place.path / "result").mkdir()
    assert (place.path / "result").stat().st_gid == STAFF
    assert not (machine / "alice").stat().st_mode & stat.S_ISGID


def test_results_are_copied_for_whom_they_were_made(tmp_path: Path) -> None:
    (tmp_path / "runs" / "hers").mkdir(parents=True)
    (tmp_path / "runs" / "his").symlink_to("hers")
    hers = tmp_path.resolve() / "runs" / "hers"
    owners = {str(hers): ALICE}
    rules = Territory(output_root=tmp_path / "runs", roots=(tmp_path / "bars",))
    for client in (ALICE, 0):
        assert rules.results(peer(client), tmp_path / "runs" / "hers", owners.get) == hers
    for name in ("hers", "his", "none"):
        with pytest.raises(ResultsNotYours, match="no batch of user 4343 has its results in"):
            rules.results(peer(BOB), tmp_path / "runs" / name, owners.get)
    with pytest.raises(DataUnreadable, match="the daemon cannot read the directory of results"):
        rules.results(peer(0), tmp_path / "runs" / "none", owners.get)
    with pytest.raises(OutsideRoots, match="the directory of results"):
        rules.results(peer(0), tmp_path, owners.get)


def test_roots_narrow_what_may_be_named(tmp_path: Path) -> None:
    for name in ("bars", "models", "elsewhere", "runs"):
        (tmp_path / name).mkdir()
    rules = Territory(output_root=tmp_path / "runs", roots=(tmp_path / "bars", tmp_path / "models"))
    place = rules.place(peer(0), tmp_path / "models" / "x")
    assert place.guarded
    rules.prepare(peer(0), tmp_path / "bars", place, is_theirs=False)
    rules.prepare(peer(0), tmp_path / "bars", rules.place(peer(0), tmp_path / "runs" / "x"), is_theirs=True)
    (tmp_path / "bars" / "link").symlink_to(tmp_path / "elsewhere")
    for output in ("elsewhere/x", "modelsx", "bars/link/x"):
        with pytest.raises(OutsideRoots, match=r"the output directory .* lies outside"):
            rules.place(peer(0), tmp_path / output)
    for root in ("elsewhere", "bars/link"):
        with pytest.raises(OutsideRoots, match=r"the data root .* lies outside"):
            rules.prepare(peer(0), tmp_path / root, place, is_theirs=False)


def test_workloads_narrow_what_may_be_run(tmp_path: Path) -> None:
    assert Territory(output_root=tmp_path).workload(None, "any:thing") == "any:thing"
    rules = Territory(output_root=tmp_path, workloads=("gpusched.teacher:train_window",))
    assert rules.workload(None, "gpusched.teacher:train_window") == "gpusched.teacher:train_window"
    for name in ("os:system", f"{tmp_path}:os:system"):
        with pytest.raises(WorkloadRefused, match="workload os:system is none of those that this daemon runs"):
            rules.workload(None, name)
    # A client's directory is an offer: where names are limited, the daemon's own code of that name runs.
    theirs = Territory(output_root=tmp_path, workloads=("mine:train",))
    assert theirs.workload(None, "/no/such:mine:train") == "mine:train"


@needs_root
def test_code_is_imported_from_where_the_client_could_read_it(machine: Path) -> None:
    rules = territory(machine)
    own = f"{machine}/alice:mine:train"
    assert rules.workload(peer(ALICE), own) == own
    with pytest.raises(CodeNotYours, match="user 4242 cannot read the workload's code in"):
        rules.workload(peer(ALICE), f"{machine}/bob:mine:train")
    with pytest.raises(CodeUnreadable, match="No such file"):
        rules.workload(peer(ALICE), f"{machine}/alice/none:mine:train")


def test_code_lies_within_the_roots(tmp_path: Path) -> None:
    rules = Territory(output_root=tmp_path, roots=(tmp_path / "code",))
    (tmp_path / "code").mkdir()
    assert rules.workload(None, f"{tmp_path}/code:mine:train") == f"{tmp_path}/code:mine:train"
    with pytest.raises(OutsideRoots, match="the code directory"):
        rules.workload(None, f"{tmp_path}:mine:train")


def test_aliases_are_the_same_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert directories.is_same(tmp_path / "alias", tmp_path / "real")
    assert directories.is_same(tmp_path / "alias" / "new", tmp_path / "real" / "new")
    assert not directories.is_same(tmp_path / "alias", tmp_path)


@needs_root
@pytest.mark.parametrize(
    ("umask", "shared", "client", "readable"),
    [
        (0o022, False, peer(ALICE), True),
        (0o027, False, peer(ALICE), False),
        (0o027, True, peer(ALICE, ALICE, STAFF), True),
        (0o077, False, peer(0), True),
    ],
)
def test_whether_the_client_can_read_what_is_written_is_known(
    machine: Path, umask: int, shared: bool, client: Peer, readable: bool
) -> None:
    team = {"output_group": STAFF, "output_mode": 0o750} if shared else {}
    rules = msgspec.structs.replace(territory(machine), **team)
    place = rules.place(client, machine / "alice" / "out")
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(umask))
        assert rules.prepare(client, machine / "bars", place, is_theirs=False) is readable
    assert list(place.path.iterdir()) == [], "it was tried out, and nothing is left of that"


# -- a daemon and two users --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def acting_as(uid: int, group: int) -> Iterator[None]:
    """Everything here, connections above all, is done by that user, a member of the group."""
    groups = os.getgroups()
    os.setgroups([group])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@needs_root
def test_a_member_who_will_not_be_able_to_read_the_results_is_told(machine: Path) -> None:
    """They were in a directory of that member's own, who could neither read nor remove them."""
    group = grp.getgrall()[-1]
    daemon = Daemon(machine / "service")
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o027))
        daemon.start(environment={"GPUSCHED_TEST_GROUP": group.gr_name})
        stack.callback(daemon.kill)
        with acting_as(ALICE, group.gr_gid):
            connection = stack.enter_context(daemon.connect())
        out = machine / "alice" / "out"
        (note,) = connection.submit(daemon.spec("S"), source="s", name="hers", output_dir=out).notes
        assert note.startswith(f"User {ALICE} cannot read the results in {out}, which will be user root's")
        assert connection.submit(daemon.spec("T"), source="s", name="its").notes == ()
        finished(daemon, "hers")


@needs_root
def test_a_member_gets_no_more_done_than_that_member_could_do(machine: Path) -> None:
    """The daemon is root here, so that nothing but its own care keeps it from anything."""
    group = grp.getgrall()[-1]
    daemon = Daemon(machine / "service")
    daemon.start(environment={"GPUSCHED_TEST_GROUP": group.gr_name})
    alice, bob = machine / "alice", machine / "bob"
    (bob / "notes").write_text("mine")
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.kill)
        with acting_as(ALICE, group.gr_gid):
            connection = stack.enter_context(daemon.connect())
        first = connection.submit(daemon.spec("S", windows=2), source="s", name="first", output_dir=alice / "out")
        assert first.batch.output_dir == str(alice / "out")
        assert finished(daemon, "first").counts == {"succeeded": 2}
        assert {path.name for path in (alice / "out").iterdir()} >= {"teacher_runs.json", ".partial"}

        for output in (bob / "out", daemon.directory / "state" / "logs", machine / "bars"):
            with pytest.raises(InputError, match=r"cannot write to the output|where gpusched keeps"):
                connection.submit(daemon.spec("T"), source="s", name="other", output_dir=output)
        # The daemon has made it, for her; nobody else may have it replaced.
        again = daemon.spec("S", windows=2, other="setting")
        assert connection.submit(again, source="s", name="second", output_dir=alice / "out").how == "new"
        assert finished(daemon, "second").state == "finished"
        root = connection.submit(daemon.spec("U"), source="s", name="root")
        assert finished(daemon, "root").counts == {"succeeded": 1}
        with acting_as(BOB, group.gr_gid):
            other = stack.enter_context(daemon.connect())
        with pytest.raises(InputError, match="were written for another user"):
            other.forget("second", results=True)
        with pytest.raises(InputError, match="user 4343 cannot write to the output directory"):
            other.submit(again, source="s", name="bobs", output_dir=Path(root.batch.output_dir))

        # A link in the place of her directory, once it has been accepted.
        connection.submit(daemon.spec("BAD"), source="s", name="third", output_dir=alice / "third")
        assert finished(daemon, "third").counts == {"failed": 1}
        (alice / "third").rename(alice / "was")
        (alice / "third").symlink_to(bob)
        connection.change("retry", "third")
        finished(daemon, "third")
        (line,) = connection.windows("third")
        assert "reached by a link" in str(line.reason)
        assert [path.name for path in bob.iterdir()] == ["notes"]
