"""Stages as people see them in `status`, `top` and `submit --wait`: while they wait, and when they have begun."""

from __future__ import annotations

from tests.cli.clients import ASKED, Client
from tests.end_to_end.terminal import Terminal
from tests.server.support import finished
from tests.waiting import PATIENCE_S


def test_a_stage_is_seen_while_it_waits_and_when_it_starts(client: Client) -> None:
    with client.daemon.fifo() as release, Terminal(client, "top") as top:
        top.until(" busy ")
        client.submit("teachers", "FIFO")
        asked = ("submit", client.symbols("S0", "S1"), "--name", "students", *ASKED, "--after", "teachers", "--wait")
        with Terminal(client, *asked) as waiting:
            waiting.until("students waits until teachers has succeeded")
            top.until("until teachers has succeeded")
            found = client.json("status", "students")
            assert (found["state"], found["held_reason"], found["waits"]) == (
                "waiting",
                None,
                "until teachers has succeeded",
            )
            with Terminal(client, "status", "--name", "students") as terminal:
                assert "students waits until teachers has succeeded" in terminal.rest()
            with Terminal(client, "status", "students") as terminal:
                assert "waits until teachers has succeeded; it is planned then" in terminal.rest()
                assert terminal.end() == 0
            release()
            release()
            shown = waiting.rest()
            assert waiting.end() == 0
        assert "4/4" in shown
        assert "Finished last" in shown
        assert "4 windows in" in shown
        top.until("S1_2022-01-11_to_2022-01-20")


def test_in_a_pipe_it_is_told_once_and_then_each_window(client: Client) -> None:
    with client.daemon.fifo() as release:
        client.submit("first", "FIFO")
        asked = ("submit", client.symbols("S2"), "--name", "second", *ASKED, "--after", "first", "--wait")
        with client.start(*asked) as process:
            assert process.stdout is not None
            lines = [next(process.stdout).strip() for _ in range(2)]
            release()
            release()
            lines += process.stdout.read().splitlines()
        assert process.returncode == 0
    assert lines[:2] == ["second", "second waits until first has succeeded"]
    assert lines[2].startswith("[1/2] succeeded S2_")
    assert lines[3].startswith("[2/2] succeeded S2_")


def test_who_waits_for_a_stage_hears_that_it_waits_for_what_is_held(client: Client) -> None:
    """It may be the predecessor of a predecessor, whose release nobody would think of."""
    with client.daemon.fifo() as release:
        client.submit("early", "FIFO")
        client.submit("later", "S5", more=("--after", "early"))
        client.submit("last", "S6", more=("--after", "later"))
        with client.start("wait", "last") as waiting:
            assert waiting.stderr is not None
            assert next(waiting.stderr) == "last waits until later has succeeded\n"
            client("hold", "early")
            why = "waits until later has succeeded (early is held: `gpusched release early`)\n"
            assert next(waiting.stderr) == f"last {why}"
            assert client("explain", "last") == f"waiting: {why}"
            assert client.said("wait", "early", code=1)[0] == "early: held, 2 left\n"
            client("release", "early")
            assert next(waiting.stderr) == "last waits until later has succeeded\n"
            release()
            release()
            assert waiting.communicate(timeout=PATIENCE_S)[0] == "last: finished, 2 succeeded\n"
        assert waiting.returncode == 0


def test_who_waits_for_a_stage_hears_that_it_was_cancelled(client: Client) -> None:
    """It is forgotten then: "there is no batch" would be no answer."""
    with client.daemon.fifo() as release:
        client.submit("before", "FIFO")
        asked = ("submit", client.symbols("S4"), "--name", "dropped", *ASKED, "--after", "before", "--wait")
        with client.start(*asked) as shown:
            assert shown.stdout is not None
            assert [next(shown.stdout).strip() for _ in range(2)][1] == "dropped waits until before has succeeded"
            client("cancel", "dropped")
            _, err = shown.communicate(timeout=PATIENCE_S)
        assert (shown.returncode, err.splitlines()[-2:]) == (
            1,
            [
                "error: dropped was cancelled before it started",
                "hint: nothing of it was trained; `gpusched submit` accepts it again",
            ],
        )
        release()
        release()


def test_a_stage_that_cannot_start_is_held_and_one_that_is_cancelled_is_gone(client: Client) -> None:
    client.done("broken", "BAD")
    symbols = client.symbols("S3")
    out = client("submit", symbols, "--name", "hopeless", *ASKED, "--after", "broken", "--wait", code=1)
    assert (
        "Held: 2 windows of broken have failed; once that is mended, `gpusched release hopeless` has it looked at again"
        in out
    )
    with Terminal(client, "top") as top:
        top.until("2 windows of broken have failed")
        assert client("release", "hopeless") == "hopeless: it is looked at again\n"
        assert client("cancel", "hopeless") == "hopeless: it will not be started\n"
    assert "hopeless" not in client("status")
    client("submit", symbols, "--name", "anyway", *ASKED, "--after", "broken", "--if", "finished")
    assert finished(client.daemon, "anyway").counts == {"succeeded": 2}
