"""The commands of the service, each against a daemon as users have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusched import __version__
from gpusched.cli import sources
from gpusched.cli.sources import reach
from tests.cli.clients import ASKED, LABEL, Client
from tests.end_to_end.terminal import Terminal
from tests.server.support import finished
from tests.waiting import PATIENCE_S, until


def test_submit_prints_the_id_of_what_is_durable(client: Client) -> None:
    assert client.submit("first", "S0", "S1").splitlines() == ["first"]
    finished(client.daemon, "first")
    found = client.json("submit", client.symbols("S0", "S1"), "--name", "first", *ASKED)
    assert (found["batch_id"], found["how"]) == ("first", "again")
    finished(client.daemon, "first")
    assert client.json("status", "first")["windows"] == {
        "total": 4, "succeeded": 0, "reused": 4, "skipped": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip


def test_a_name_that_asks_for_something_else_is_refused(client: Client) -> None:
    client.done("taken", "S0")
    symbols = client.symbols("S1")
    assert "there is a batch taken already" in client.error("submit", symbols, "--name", "taken", *ASKED, code=4)


def test_without_a_name_the_same_question_is_the_same_batch(client: Client) -> None:
    symbols = client.symbols("S5")
    (first,) = client("submit", symbols, *ASKED).splitlines()
    assert client("submit", symbols, *ASKED).splitlines() == [first]
    assert first.startswith("symbols-")
    assert [row["batch"] for row in client.table("status")].count(first) == 1


def test_a_survey_that_fails_says_nothing_about_the_data(client: Client) -> None:
    """The windows run: one of them finds its data, the other finds that there is none."""
    ended = client.json("submit", client.symbols("UNKNOWN", "UNKNOWN2"), "--name", "doubted", *ASKED, "--wait")
    assert (ended["windows"]["succeeded"], ended["windows"]["skipped"], ended["windows"]["failed"]) == (2, 2, 0)
    shown = client("show", "doubted/UNKNOWN2_2022-01-01_to_2022-01-10")
    assert "OSError: [Errno 5] Input/output error" in shown
    assert "no data after all" in shown


def test_what_the_data_are_like_is_known_later(client: Client) -> None:
    client.done("noted", "NOTED", "S0")
    note = "÷ 4 on 2022-01-05: a split?"
    told = {"NOTED": [{"kind": "jumps", "text": note}]}
    assert client.json("results", "noted")["data_notes"] == told
    assert note in client("show", "noted/NOTED_2022-01-01_to_2022-01-10")
    assert client.json("show", "noted/NOTED_2022-01-01_to_2022-01-10")["data_notes"] == told["NOTED"]
    assert client.json("show", "noted/S0_2022-01-01_to_2022-01-10")["data_notes"] == []
    assert client.json("status", "noted")["data_notes"] == told
    _, err = client.said("status", "noted")
    assert f"NOTED: {note}" in err
    for more in ((), ("--wait",)):
        _, err = client.said("submit", client.symbols("NOTED", "S0"), "--name", "noted", *ASKED, *more)
        assert f"NOTED: {note}" in err
    finished(client.daemon, "noted")
    out, err = client.said("results", "noted", "--csv")
    assert note not in out
    assert f"NOTED: {note}" in err


def test_batches_are_chosen_by_name_state_and_number(client: Client) -> None:
    for name in ("chosen-1", "chosen-2"):
        client.done(name, "S0", "BAD" if name == "chosen-1" else "S1")
    assert [row["batch"] for row in client.table("status", "--name", "chosen")] == ["chosen-1", "chosen-2"]
    assert [row["batch"] for row in client.table("status", "--name", "chosen", "--limit", "1")] == ["chosen-2"]
    assert [row["batch"] for row in client.table("status", "--name", "chosen", "--state", "failed")] == ["chosen-1"]
    told = client.json("status", "--name", "chosen", "--state", "finished")["batches"]
    assert [batch["batch_id"] for batch in told] == ["chosen-1", "chosen-2"]
    assert client.table("status", "--name", "chosen", "--state", "held") == []
    assert "did you mean 'running'?" in client.error("status", "--state", "runing", code=2)


def test_a_batch_on_one_screen(client: Client) -> None:
    client.done("seen", "S0", "BAD")
    with Terminal(client, "status", "--name", "seen") as terminal:
        lines = terminal.rest().splitlines()
        assert terminal.end() == 0
    assert any("seen" in line and "finished" in line and "4/4" in line for line in lines)
    with Terminal(client, "status", "seen") as terminal:
        shown = terminal.rest()
        assert terminal.end() == 0
    assert "4 windows: " in shown
    assert "Slowest windows" in shown
    _, told = client.said("status", "seen")
    assert "2 × bad data: told to\n      BAD_2022-01-01_to_2022-01-10, BAD_2022-01-11_to_2022-01-20\n" in told
    failed = shown.partition("Failures by reason")[2]
    assert "bad data" in failed
    assert "told to" in failed
    assert "logs/seen/BAD_2022-01-01_to_2022-01-10.1.log" in failed


def test_who_follows_a_log_ends_when_its_reader_does(client: Client) -> None:
    """`logs -f | head -1`: nothing more is written that could fail, and still it ends."""
    with client.daemon.fifo():
        client.submit("unread", "FIFO")
        with client.start("logs", "-f", "unread/FIFO_2022-01-01_to_2022-01-10") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("attempt at FIFO")
            process.stdout.close()
            assert process.wait(PATIENCE_S) == 0
        client("cancel", "unread")


def test_hold_release_cancel_retry(client: Client) -> None:
    with client.daemon.fifo() as release:
        client.submit("held", "FIFO", "S1")
        first = "held/FIFO_2022-01-01_to_2022-01-10"
        assert client("hold", first) == "held: FIFO_2022-01-01_to_2022-01-10 has started, and goes on\n"
        assert client.json("hold", first)["note"] == "FIFO_2022-01-01_to_2022-01-10 has started, and goes on"
        found = client.json("hold", "held")
        assert (found["state"], found["batch_id"]) == ("held", "held")
        assert "Held: by request; `gpusched release held` lets it go on" in client("status", "held")
        assert client.json("release", "held")["state"] == "open"
        assert client.json("cancel", first)["changed"] == 1
        # Alive, it may take the byte for the other one.
        until(lambda: client.json("show", first)["status"] == "cancelled", patience_s=PATIENCE_S)
        release()
        assert finished(client.daemon, "held").counts == {"cancelled": 1, "succeeded": 3}
        assert client("wait", "held") == "held: finished, 3 succeeded, 1 cancelled\n"
        release()
        assert "1 window queued again" in client("retry", "held")
        assert finished(client.daemon, "held").counts == {"succeeded": 4}
        assert client("wait", "held") == "held: finished, 4 succeeded\n"


def test_other_limits_of_a_batch_at_work_are_applied_and_told(client: Client) -> None:
    """They were accepted and ignored: every window ran into the old timeout."""
    with client.daemon.fifo():
        client.submit("altered", "FIFO", "S1", more=("--set", "run.timeout_s=1000", "--set", "run.grace_s=0"))
        other = (
            "--set",
            "run.timeout_s=0.2",
            "--set",
            "run.max_attempts=1",
            "--set",
            "run.grace_s=0",
            "--priority",
            "3",
        )
        _, err = client.said("submit", client.symbols("FIFO", "S1"), "--name", "altered", *ASKED, *other)
        assert "goes on with max_attempts 3 → 1; timeout_s 1000 → 0.2; priority 0 → 3" in err
        assert finished(client.daemon, "altered").counts == {"timed_out": 2, "succeeded": 2}
        assert "timeout_s 1000 → 0.2" in client("show", "altered/FIFO_2022-01-01_to_2022-01-10")
        assert "batch altered batch=altered" in client.daemon.log.read_text()

        found = client.json("retry", "altered", "--set", "run.timeout_s=1000", "--set", "run.memory_limit_mb=500")
        assert found["changes"] == ["timeout_s 0.2 → 1000", "memory_limit_bytes 0 → 524288000"]
        assert client("priority", "altered", "-5") == "altered: priority 3 → -5\n"
        client("cancel", "altered")
        finished(client.daemon, "altered")


def test_terms_that_nobody_asks_for_stay_as_they_are(client: Client) -> None:
    """Whoever submits it again only to wait for it does not reset the terms that others have set."""
    with client.daemon.fifo():
        client.submit("steady", "FIFO", more=("--set", "run.timeout_s=1000", "--priority", "3"))
        again = ("submit", client.symbols("FIFO"), "--name", "steady", *ASKED)
        _, err = client.said(*again)
        assert "goes on with" not in err
        assert "goes on with priority 3 → 0" in client.said(*again, "--priority", "0")[1]
        client("cancel", "steady")
        finished(client.daemon, "steady")


def test_what_cannot_be_changed_is_refused_with_what_can(client: Client) -> None:
    client.done("fixed", "S0", "BAD")
    refused = client.error("retry", "fixed", "--set", "labels.horizon=3", code=2)
    assert "retry cannot change labels.horizon" in refused
    assert "`gpusched submit SYMBOLS_FILE --set labels.horizon=…`" in refused
    window = client.error("retry", "fixed/BAD_2022-01-01_to_2022-01-10", "--set", "run.timeout_s=3", code=4)
    assert "`gpusched retry fixed --set …`" in window
    for command in ("cancel", "hold"):
        assert "uses no setting" in client.error(command, "fixed", "--set", "run.timeout_s=3", code=2)
    assert "uses no setting" in client.error("resume", "--set", "run.timeout_s=3", code=2)
    client.done("good", "S0")
    assert "is finished" in client.error("retry", "good", "--set", "run.timeout_s=3", code=4)
    assert "is finished" in client.error("priority", "good", "1", code=4)


def test_finished_batches_are_forgotten(client: Client) -> None:
    client.done("old-1", "S0")
    client.done("old-2", "S0", "BAD")
    output = Path(client.json("status", "old-2")["output_dir"])
    assert client("forget", "old-1") == "old-1: 2 windows forgotten, with their logs; the results stay\n"
    assert "there is no batch old-1" in client.error("status", "old-1", code=4)
    assert client.json("forget", "--older-than", "30d") == {"batches": [], "windows": 0, "results": 0, "kept": []}
    (output / "S0_2022-01-11_to_2022-01-20" / "mine.txt").touch()
    told = client("forget", "old-2", "--results")
    assert told.startswith("old-2: 4 windows forgotten, with their logs; 1 result removed\n  left: ")
    assert [path.name for path in output.iterdir()] == ["S0_2022-01-11_to_2022-01-20"]
    assert "either batches or --older-than" in client.error("forget", code=2)
    assert "'30' is not an age" in client.error("forget", "--older-than", "30", code=2)


def test_devices_are_drained_and_opened_again(client: Client) -> None:
    (device,) = client.json("devices")["devices"]
    assert (device["id"], device["health"], device["slots"]) == ("cpu", "open", 2)
    assert device["slots_used"] in range(3), "a window of another test may still be ending"
    assert client.table("drain", "cpu")[0]["health"] == "draining"
    assert client.table("resume")[0]["health"] == "open"


def test_why_a_window_waits(client: Client) -> None:
    client("drain", "cpu")
    try:
        client.submit("waits", "S0", more=("--priority", "1"))
        client.submit("behind", "S1")
        window = next(line["window"] for line in client.json("windows", "behind")["windows"])
        assert client("explain", window).splitlines() == [
            "queued: waits for attempt 1",
            "waits (priority 1, here 0) goes first; `gpusched priority behind N` changes that",
            "cpu: draining: drained by request",
        ]
        assert client.json("explain", window) == {
            "window": window,
            "status": "queued",
            "summary": "waits for attempt 1",
            "hindrances": [{"kind": "turn", "text": "waits (priority 1, here 0) goes first"}],
            "devices": [{"device_id": "cpu", "reason": "draining: drained by request"}],
        }
        client("hold", "behind")
        told = client("explain", window).splitlines()
        assert "its batch is held: by request; `gpusched release behind` lets it go on" in told
        client("release", "behind")
    finally:
        client("resume", "cpu")
    finished(client.daemon, "behind")
    assert client("explain", window) == "succeeded: finished after 1 attempt\n"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("status", "nosuch"), 4, "there is no batch nosuch"),
        (("windows", "nosuch"), 4, "there is no batch nosuch"),
        (("show", "nosuch"), 2, "BATCH/LABEL"),
        (("show", f"nosuch/{LABEL}"), 4, "nosuch"),
        (("logs", "a/"), 2, "BATCH/LABEL"),
        (("explain", "nosuch"), 2, "BATCH/LABEL"),
        (("explain", f"nosuch/{LABEL}"), 4, "nosuch"),
        (("cancel", "nosuch"), 4, "there is no batch nosuch"),
        (("retry", "/no/such"), 4, "/no/such is not the directory of a run"),
        (("drain", "GPU-1"), 4, "there is no device GPU-1"),
        (("drain", "cpuu"), 4, "did you mean cpu?"),
        (("stauts",), 2, "did you mean 'status'?"),
        (("--socket", "/nowhere/s", "status"), 3, "/nowhere/s"),
    ],
)
def test_mistakes_are_sentences(client: Client, arguments: tuple[str, ...], code: int, word: str) -> None:
    assert word in client.error(*arguments, code=code)


def test_status_imports_no_more_than_it_needs(client: Client) -> None:
    program = (
        "import sys, json; from gpusched.cli import run; code = run(['status']);"
        "print(json.dumps([code, [name for name in ('pandas', 'numpy', 'lightgbm', 'anyio', 'asyncio', 'sqlite3',"
        " 'pynvml', 'gpusched.service') if name in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=client.environment, capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    assert found == [0, []]


def test_a_daemon_of_another_version_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reach(client.daemon.socket).close()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sources, "__version__", "9.9.9")
    reach(client.daemon.socket).close()
    said = capsys.readouterr().err
    assert f"is gpusched {__version__}, and this is 9.9.9\nhint: restart the daemon after an upgrade" in said


@pytest.mark.parametrize("setting", ["devices.slots=1", "cache.keep_days=3", "daemon.keep_days=3", "run.output=there"])
def test_what_only_the_daemon_decides_is_not_dropped_in_silence(client: Client, setting: str) -> None:
    refused = client.error("submit", client.symbols("S0"), *ASKED, "--set", setting, code=2)
    assert f"{setting.partition('=')[0]} is the daemon's own setting" in refused
