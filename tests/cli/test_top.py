"""`gpusched top` on a terminal, as a user has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console
from textual.command import CommandPalette
from textual.geometry import Region
from textual.widgets import Static

from gpusched.client.connection import Connection, NoDaemon
from gpusched.client.link import HungUp
from gpusched.client.top import details
from gpusched.client.top.app import LOST, Top
from gpusched.client.top.boxes import Help, Question, Told
from gpusched.client.top.details import DevicePage, WindowPage
from gpusched.client.top.lists import Dashboard, WindowsPage
from gpusched.errors import GpuschedError
from gpusched.protocol import LogChunk
from tests.cli.clients import Client
from tests.end_to_end.terminal import LEFT, Terminal
from tests.server.support import Daemon, finished


def test_it_follows_a_batch_and_obeys_keys(client: Client) -> None:
    with client.daemon.fifo() as release, Terminal(client, "top") as terminal:
        terminal.until(" busy ")
        client.submit("watched", "FIFO", "FIFO2", "S0")
        terminal.until("watched")
        release()
        terminal.until("succeeded")
        terminal.press("h")
        terminal.until("windows held")
        terminal.press("h")
        terminal.until("windows released")
        terminal.press("c")
        terminal.until("Cancel watched? y/n")
        terminal.press("n")
        terminal.press("c")
        terminal.until("Cancel watched? y/n")
        terminal.press("y")
        terminal.until("cancelled")
        finished(client.daemon, "watched")
        terminal.press("q")
        terminal.until(LEFT)
        assert terminal.end() == 0
    assert client.json("status", "watched")["windows"]["cancelled"] >= 3


def test_windows_their_logs_and_devices(client: Client) -> None:
    client.done("pages", "S1", "S2", "BADPAGE")
    with Terminal(client, "top") as terminal:
        terminal.until("pages")
        terminal.press("f")
        terminal.until("words to look for")
        terminal.press("pages\r")
        terminal.until("only 'pages'")
        terminal.press("\r")
        terminal.until("of 6 windows")
        terminal.press("s")
        terminal.until("by status")
        terminal.press("/")
        terminal.until("words to look for")
        terminal.press("badpage\r")
        terminal.until("2 of 6 windows")
        terminal.press("\r")
        terminal.until("gpusched.workload.BadData: told to")
        terminal.press("r")
        terminal.until("again? y/n")
        terminal.press("y")
        terminal.until("1 window queued again")
        terminal.press("\x1b")
        terminal.until("2 of 6 windows")
        terminal.press("\x1b")  # ends the search
        terminal.until("6 of 6 windows")
        terminal.press("\x1b")
        terminal.until("find")
        terminal.press("\x1b[Z")  # the panel above: devices
        terminal.press("d")
        terminal.until("Place nothing more on cpu? y/n")
        terminal.press("y")
        terminal.until("cpu is draining")
        terminal.press("\r")
        terminal.until("Health   draining")
        terminal.press("d")
        terminal.until("cpu is open")
        terminal.press("q")
        assert terminal.end() == 0
    assert client.json("devices")["devices"][0]["health"] == "open"
    finished(client.daemon, "pages")


@pytest.mark.thorough
async def test_help_comes_and_goes(daemon: Daemon) -> None:
    top = Top(Console(), daemon.socket)
    async with top.run_test() as keys:
        for closing in ("question_mark", "escape", "enter", "space"):
            await keys.press("question_mark")
            assert isinstance(top.screen, Help)
            await keys.press(closing)
            assert isinstance(top.screen, Dashboard)


def test_it_says_that_the_daemon_has_gone_and_finds_it_again(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    with Daemon(tmp_path / "service") as daemon:
        client = Client(daemon, tmp_path / "client")
        with Terminal(client, "top") as terminal:
            terminal.until(" busy ")
            daemon.kill()
            terminal.until("The daemon has gone")
            daemon.start()
            client.submit("afterwards", "S0")
            terminal.until("afterwards")
            terminal.press("q")
            assert terminal.end() == 0


async def test_answers_go_with_the_next_key_and_a_lost_daemon_stays_lost(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        top = Top(Console(), daemon.socket)
        async with top.run_test() as keys:
            await top.workers.wait_for_complete()  # it is connected
            for key in ("tab", "enter", "escape", "j"):  # there is a device, and nothing else
                top.say("an answer")
                await keys.press(key)
                assert top.message == ""
            daemon.kill()
            await keys.pause()
            assert top.message == LOST
            await keys.press("j")
            assert top.message == LOST
            instant = top.monotonic
            await keys.press("k")
            assert top.monotonic == instant


async def test_a_page_that_cannot_be_asked_says_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again and again; of a daemon that has gone the last line tells, and no box."""
    far = tmp_path / ("a-long-way" * 10)
    gone, silent = HungUp(path=far), NoDaemon(tried=far)
    failures: list[GpuschedError] = [gone, silent, silent, silent]

    def refused(_: object) -> Connection:
        raise failures.pop(0)

    with Daemon(tmp_path) as daemon:
        top = Top(Console(), daemon.socket)
        async with top.run_test(size=(80, 24)) as keys:
            await top.workers.wait_for_complete()  # it is connected
            monkeypatch.setattr(details, "connect", refused)
            monkeypatch.setattr(DevicePage, "on_mount", lambda _: None)
            page = DevicePage("cpu")
            await top.push_screen(page)
            await asyncio.to_thread(page._ask)
            assert top.screen is page
            await asyncio.to_thread(page._ask)
            await asyncio.to_thread(page._ask)
            await keys.press("escape")
            assert top.screen is page
            daemon.kill()
            await keys.pause()
            await asyncio.to_thread(page._ask)
            assert (top.screen, top.message, failures) == (page, LOST, [])


async def test_what_cannot_be_done_is_said_at_once(client: Client) -> None:
    client.done("ended", "S1")
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(80, 24)) as keys:
        await top.workers.wait_for_complete()
        await top.push_screen(WindowPage("ended", "S1_2022-01-01_to_2022-01-10"))
        await top.workers.wait_for_complete()
        for page in ("a window", "its batch"):
            for key, said in {"c": "Nothing here can be cancelled", "r": "Nothing here can be queued again"}.items():
                await keys.press(key)
                assert (page, top.message) == (page, said)
            await keys.press("escape")
        await keys.press("shift+tab", "h")
        assert "act upon a batch or a window" in top.message


def test_the_log_of_a_window_is_followed_through_retries_and_restarts(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    with Daemon(tmp_path / "service") as daemon:
        client = Client(daemon, tmp_path / "client")
        with daemon.fifo(), Terminal(client, "top") as terminal:
            client.submit("again", "FIFO")
            terminal.until("again")
            terminal.press("\r")
            terminal.until("2 of 2 windows")
            terminal.press("\r")
            terminal.until("attempt at FIFO")
            terminal.press("c")
            terminal.until("y/n")
            terminal.press("y")
            terminal.until("The window has finished")
            terminal.press("r")
            terminal.until("again? y/n")
            terminal.press("y")
            terminal.until("Log of attempt 2")
            daemon.kill()
            terminal.until("The daemon has gone")
            daemon.start()
            terminal.until("Log of attempt 3")
            terminal.press("q")
            assert terminal.end() == 0


async def test_a_window_whose_log_has_ended_is_not_taken_for_a_running_one(client: Client) -> None:
    """The change of the window may be told later than the end of its log: `r` said that it could not be retried."""
    client.done("told", "S1")
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(80, 24)):
        await top.workers.wait_for_complete()  # it is connected
        page = WindowPage("told", "S1_2022-01-01_to_2022-01-10")
        await top.push_screen(page)
        await top.workers.wait_for_complete()  # the window has ended, and its story is told
        assert page.statuses() == {"succeeded"}
        page._status = "running"
        assert page.statuses() == set()


async def test_the_story_and_the_log_of_a_window_are_scrolled_by_pages(client: Client) -> None:
    client.done("scrolled", "BADSCROLL")
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(80, 24)) as keys:
        await top.workers.wait_for_complete()  # it is connected
        page = WindowPage("scrolled", "BADSCROLL_2022-01-01_to_2022-01-10")
        await top.push_screen(page)
        await top.workers.wait_for_complete()  # the window has ended, and its story is told
        log = page._log
        page._write(LogChunk(attempt=9, offset=0, data=b"line\n" * 100 + b"the needle\n" + b"line\n" * 100))
        page.redraw()
        await keys.press("pageup", "pageup")
        assert log._first == len(log) - log.room - 2 * (log.room - 1)
        await keys.press("slash", *"needle", "enter")
        assert "needle" in log.look(78, log.room)[1][0].text
        assert log.found == 1
        await keys.press("n", "N", "tab", "pagedown", "j")
        assert page._above == min(len(page._story), log.room)
        await keys.press("tab", "end")
        assert log.following
        await keys.press("F")
        assert log.found == 1


def shown(top: Top) -> type[object]:
    return type(top.screen)


@pytest.mark.thorough
async def test_the_palette_finds_actions_batches_and_devices(client: Client) -> None:
    client.done("paletted", "S1")
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(80, 24)) as keys:
        await top.workers.wait_for_complete()
        for opening, typed, opened in (("colon", "batch paletted", WindowsPage), ("ctrl+p", "device cpu", DevicePage)):
            await keys.press(opening)
            await keys.pause()
            assert shown(top) is CommandPalette
            kind, name = typed.split(" ")
            await keys.press(*kind, "space", *name)
            await top.workers.wait_for_complete()
            await keys.press("enter")
            await keys.pause()
            assert shown(top) is opened
            await keys.press("escape")
        await keys.press("colon", *"help")
        await top.workers.wait_for_complete()
        await keys.press("enter")
        await keys.pause()
        assert shown(top) is Help


async def test_the_mouse_chooses_and_opens_and_marks_are_cancelled_together(client: Client) -> None:
    with client.daemon.fifo() as release:
        client.submit("clicked", "FIFO", "S1", "S2")
        top = Top(Console(), client.daemon.socket)
        async with top.run_test(size=(80, 40)) as keys:
            await top.workers.wait_for_complete()
            dashboard = top.screen
            assert isinstance(dashboard, Dashboard)
            (spot,) = [spot for spot in dashboard.frame().spots(80, 40) if spot.key == "clicked"]
            await keys.click(dashboard.canvas, offset=(spot.x + 3, spot.y), times=2)
            await top.workers.wait_for_complete()
            await keys.pause()
            assert shown(top) is WindowsPage
            await keys.press("end", "space", "up", "up", "space", "c")
            await keys.pause()
            assert shown(top) is Question
            await keys.press("y")
            await top.workers.wait_for_complete()
            assert top.message == "2 windows cancelled"
        release()
        release()


async def test_an_answer_that_is_longer_than_its_line_gets_a_box(client: Client) -> None:
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(40, 24)) as keys:
        await top.workers.wait_for_complete()
        top.say("no daemon answers at /a/place/with/a/long/name")
        await keys.pause()
        assert shown(top) is Told
        (box,) = top.screen.query(Static)
        lines = [line.text.strip(" │╭─╮╰╯") for line in box.render_lines(Region(0, 0, *box.outer_size))]
        assert " ".join(filter(None, lines)) == "no daemon answers at /a/place/with/a/long/name"
        await keys.press("enter")
        assert shown(top) is Dashboard
        top.say("a short one")
        assert (shown(top), top.message) == (Dashboard, "a short one")


def test_one_snapshot_for_programs(client: Client) -> None:
    client.done("whole", "S0", "BAD")
    told = client.json("top")
    (batch,) = [batch for batch in told["batches"] if batch["id"] == "whole"]
    assert (batch["state"], batch["counts"]) == ("finished", {"succeeded": 2, "failed": 2})
    assert batch["submitted_at"].endswith("+00:00")
    assert {move["key"]["batch_id"] for move in told["failed"]} >= {"whole"}
    assert {"at", "active", "devices", "troubles"} <= set(told)


def test_one_frame_anywhere(client: Client) -> None:
    client.done("once", "S0", "BAD")
    shown = client("top", "--once")
    assert " load " in shown.splitlines()[0], "the machine"
    assert "once" in shown
    assert "2 failed" in shown
    failed, _, finished = shown.partition("─ failed ")[2].partition("─ finished ")
    assert sum("told to" in line for line in failed.splitlines()) == 1
    assert sum("auc 0.500" in line and "once" in line for line in finished.splitlines()) == 2
    assert "select" not in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LC_ALL": "", "LANG": "C"}, marks=pytest.mark.thorough),  # for which Python takes UTF-8
    ],
)
def test_a_terminal_that_knows_only_ascii(client: Client, env: dict[str, str]) -> None:
    client.done(f"plain{len(env)}", "S0", "BAD")
    with Terminal(client, "top", env=env) as terminal:
        seen = terminal.until("q quit")
        terminal.press("r")
        seen += terminal.until("again? y/n")
        terminal.press("n\r")
        seen += terminal.until("4 of 4 windows")
        terminal.press("\r")
        seen += terminal.until("attempt at")
        terminal.press("?")
        seen += terminal.until("up down or k j")
        assert seen.isascii()
        assert "\\u" not in seen
        terminal.press(" q")
        terminal.rest()  # a terminal whose buffer is full keeps the command from writing, and so from ending
        assert terminal.end() == 0


def test_without_a_terminal_it_says_what_to_do(client: Client) -> None:
    assert "--once" in client.error("top", code=2)


def test_a_terminal_that_cannot_move_its_cursor_is_none(client: Client) -> None:
    with Terminal(client, "top", env={"TERM": "dumb"}) as terminal:
        said = terminal.rest()
        assert "--once" in said
        assert "\x1b" not in said
        assert terminal.end() == 2


async def test_the_last_row_is_chosen_where_those_after_it_are_gone(client: Client) -> None:
    """After a retry of the last failures of a kind no row was chosen, and keys did nothing."""
    client.done("gone", "BADGONE", "S1")
    top = Top(Console(), client.daemon.socket)
    async with top.run_test(size=(80, 24)) as keys:
        await top.workers.wait_for_complete()
        page = WindowsPage("gone")
        await top.push_screen(page)
        await top.workers.wait_for_complete()
        await keys.press("tab")
        page._place = 3
        assert page.frame().chosen() == 0
        assert [label for _, label in page.targets() if label] == [
            "BADGONE_2022-01-01_to_2022-01-10",
            "BADGONE_2022-01-11_to_2022-01-20",
        ]
        await keys.press("enter")
        assert shown(top) is WindowPage
