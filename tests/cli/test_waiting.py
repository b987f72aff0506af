"""Whoever waits for a batch of the daemon sees how it ends, and the commands that are of use then."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

import pytest

from gpusched.cli.next_commands import mending_commands
from tests.cli.clients import ASKED, Client
from tests.server.support import Daemon, finished
from tests.waiting import PATIENCE_S


def test_wait_shows_the_run_and_ends_with_its_exit_code(client: Client) -> None:
    good = client.submit("waited", "S0", "S1", "SKIP", more=("--wait",))
    assert good.splitlines()[0] == "waited"
    assert "[6/6] succeeded" in good
    assert "2 × told to" in good or "2 x told to" in good
    ended = client.json("submit", client.symbols("S0", "BAD"), "--name", "failing", *ASKED, "--wait", code=1)
    assert ended["windows"]["failed"] == 2
    assert ended["refused"] == [{"reason": "told to", "windows": 2}]
    again = client.json("status", "failing")
    assert again["windows"] == ended["windows"]
    allowed = ("--max-failure-rate", "0.5")
    assert client.submit("forgiven", "S0", "BAD", more=("--wait", *allowed))


def test_a_batch_of_which_nothing_can_be_trained_ends_with_5_and_says_why(client: Client) -> None:
    asked = ("submit", client.symbols("ABSENT", "REFUSED"), "--name", "nothing", *ASKED, "--wait")
    out, err = client.said(*asked, code=5)
    assert "nothing to train: no data: nothing there (2 windows); bad_data: REFUSED.csv:3: '1,5' is not" in err
    assert "likeliest remedy: give --interval 1day" in err
    assert "2 × REFUSED.csv:3" in out or "2 x REFUSED.csv:3" in out
    found = client.json("windows", "nothing")["windows"]
    assert [(line["status"], line["failure"]) for line in found] == [("skipped", None)] * 2 + [
        ("failed", "bad_data")
    ] * 2
    assert {line["attempts"] for line in found} == {0}
    assert client.json("results", "nothing")["results"][2]["reason"].endswith("'1,5' is not a number; set data.decimal")
    _, err = client.said(*asked[:-1])
    assert "Nothing to train: `gpusched windows nothing` has the reasons" in err
    # Mended, the same question is asked anew; and a retry runs the refused windows.
    data = client.daemon.data
    (data / "REFUSED").touch()
    assert client.json(*asked)["windows"]["succeeded"] == 2
    (data / "REFUSED").unlink()
    client.submit("retried", "REFUSED", "S0")
    assert finished(client.daemon, "retried").counts == {"failed": 2, "succeeded": 2}
    assert "2 windows queued again" in client("retry", "retried")
    assert finished(client.daemon, "retried").counts == {"succeeded": 4}


def test_an_interrupt_detaches(client: Client) -> None:
    with client.daemon.fifo() as release:
        asked = ("submit", client.symbols("FIFO"), "--name", "detached", *ASKED, "--wait")
        process = client.start(*asked)
        release()
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("[1/2]"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert "Detached: detached goes on" in out + err
        release()
        assert finished(client.daemon, "detached").counts == {"succeeded": 2}


def test_a_daemon_that_goes_ends_the_wait(tmp_path: Path) -> None:
    with Daemon(tmp_path / "service") as daemon, daemon.fifo() as release:
        (tmp_path / "client").mkdir()
        client = Client(daemon, tmp_path / "client")
        process = client.start("submit", client.symbols("FIFO"), "--name", "b", *ASKED, "--wait")
        release()
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("[1/2]"))
        daemon.kill()
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 3
        assert "closed the connection" in err
        assert "start one with" in client.error("status", code=3)


def test_a_wait_outlives_its_reader(client: Client) -> None:
    symbols = client.symbols("S1", "BAD")
    with client.start("submit", symbols, "--name", "unseen", *ASKED, "--wait") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 1


def ended_by(client: Client, verb: str, name: str, *symbols: str) -> tuple[str, int]:
    """The output of `submit --wait` and its exit code, when a command about the batch has ended it."""
    with client.start("submit", client.symbols(*symbols), "--name", name, *ASKED, "--wait") as shown:
        assert shown.stdout is not None
        assert next(shown.stdout) == f"{name}\n"
        client(verb, name)
        out, _ = shown.communicate(timeout=PATIENCE_S)
    return out, shown.returncode


def test_cancelled_windows_are_none_that_failed(client: Client) -> None:
    with client.daemon.fifo():
        out, code = ended_by(client, "cancel", "dropped", "FIFO")
        assert "2  cancelled" in out
        assert out.splitlines()[-1] == "  gpusched retry dropped"
        assert code == 0


def test_a_wait_ends_with_the_commands_that_go_on_from_there(client: Client) -> None:
    """A batch that was cancelled, held or has failed left whoever waited for it without a next step."""
    out = client.submit("worse", "S0", "BAD", code=1, more=("--wait",))
    place = client.json("status", "worse")["output_dir"]
    assert out.splitlines()[-5:] == [
        f"Results  {place}",
        "  gpusched results worse",
        "  gpusched report worse",
        "  gpusched windows worse --status failed",
        "  gpusched retry worse",
    ]
    out, err = client.said("wait", "worse", code=1)
    assert out == "worse: finished, 2 succeeded, 2 failed\n"
    assert err == "  gpusched windows worse --status failed\n  gpusched retry worse\n"
    client.submit("complete", "S0")
    assert client.said("wait", "complete") == ("complete: finished, 2 succeeded\n", ""), "nothing is missing"
    client.submit("none", "SKIP")
    assert client.said("wait", "none", code=5)[1] == "  gpusched windows none --status skipped\n"


@pytest.mark.parametrize(
    ("counts", "left", "commands"),
    [
        ({"succeeded": 2, "skipped": 1}, "", []),
        ({"succeeded": 2, "timed_out": 1}, "", ["gpusched windows b --status timed_out", "gpusched retry b"]),
        ({"lost": 1, "cancelled": 1}, "", ["gpusched windows b --status lost", "gpusched retry b"]),
        ({"cancelled": 1}, "", ["gpusched retry b"]),
        ({"skipped": 1}, "", ["gpusched windows b --status skipped"]),
        ({"failed": 1, "queued": 1}, "release", ["gpusched windows b --status failed", "gpusched release b"]),
    ],
)
def test_the_commands_are_those_that_find_something(
    counts: dict[str, int], left: Literal["", "release"], commands: list[str]
) -> None:
    assert mending_commands("b", counts, left=left) == commands


def test_whoever_waits_for_a_batch_that_is_held_hears_how_it_goes_on(client: Client) -> None:
    """The same command does not go on with it, as the end of `submit --wait` said."""
    client.done("ended", "S0")
    with client.daemon.fifo():
        out, code = ended_by(client, "hold", "stands", "FIFO", "FIFO2")
        assert "not finished; `gpusched release stands` lets it go on\n" in out
        assert out.splitlines()[-1] == "  gpusched release stands"
        assert code == 1
        _, err = client.said("wait", "stands", code=1)
        assert err == "stands is held: by request; `gpusched release stands` lets it go on\n  gpusched release stands\n"
        client("release", "stands")
        with client.start("wait", "ended", "stands") as waiting:
            assert waiting.stdout is not None
            assert next(waiting.stdout) == "ended: finished, 2 succeeded\n"
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=PATIENCE_S)
            assert (waiting.returncode, err) == (
                130,
                "Detached, and nothing else: `gpusched wait stands` waits again\n",
            )
        client("cancel", "stands")
        finished(client.daemon, "stands")


def test_whoever_waits_already_hears_that_all_is_held_that_is_left(client: Client) -> None:
    """Only those heard it who came later; the others waited for ever, in silence."""
    with client.daemon.fifo() as release:
        asked = ("submit", client.symbols("FIFO"), "--name", "halted", *ASKED, "--workers", "1")
        with client.start(*asked, "--wait", "--json") as shown, client.start(*asked, "--wait") as plain:
            assert plain.stdout is not None
            assert shown.stderr is not None
            assert next(plain.stdout) == "halted\n"
            with client.start("wait", "halted") as waiting:
                assert waiting.stderr is not None
                queued = client.json("windows", "halted", "--status", "queued")["windows"][0]["window"]
                client("hold", queued)
                release()
                held = "the window that is left; `gpusched release halted` lets it go on\n"
                assert next(waiting.stderr) == f"halted is held: {held}"
                assert f"Held: {held}" in shown.stderr
                assert f"Held: {held}" in plain.stdout
                client("release", queued)
                release()
                assert [process.wait(PATIENCE_S) for process in (shown, plain, waiting)] == [0, 0, 0]
