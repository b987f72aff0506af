"""`gpusched run --top`: the supervisor of a run, watched and acted upon from its terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.end_to_end.support import Command
from tests.end_to_end.terminal import LEFT, Terminal
from tests.waiting import PATIENCE_S

RUN = (
    *("run", "symbols.txt", "-o", "out", "--name", "here", "--workers", "2", "--top"),
    *("--start", "2006-01-01", "--end", "2006-02-09", "--window-days", "10"),
    *("--set", "run.workload=tests.server.workloads:window"),
)


class Fifo:
    """Lets windows of FIFO… symbols go on."""

    def __init__(self, command: Command) -> None:
        path = command.directory / "data" / "fifo"
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR)

    def release(self, windows: int) -> None:
        os.write(self._descriptor, b"." * windows)


@pytest.fixture
def fifo(gpusched: Command) -> Iterator[Fifo]:
    (gpusched.directory / "symbols.txt").write_text("FIFO\n")  # four windows
    made = Fifo(gpusched)
    yield made
    os.close(made._descriptor)


def test_what_is_held_is_waited_for_and_the_end_of_the_batch_is_the_end(gpusched: Command, fifo: Fifo) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        terminal.press("h")
        terminal.until("2 windows held")
        fifo.release(2)
        terminal.until("0/2 busy")
        terminal.press("h")
        terminal.until("2 windows released")
        fifo.release(2)
        terminal.until(LEFT)
        assert "4  succeeded" in terminal.rest()
        assert terminal.end() == 0


def test_a_long_path_of_temporary_files_ends_no_run(gpusched: Command, fifo: Fifo) -> None:
    """The path of its socket was longer than sockets may have, and the run failed while its windows trained."""
    place = gpusched.directory / ("long" * 25)
    place.mkdir()
    with Terminal(gpusched, *RUN, env={"TMPDIR": str(place)}) as terminal:
        terminal.until("2/2 busy")
        fifo.release(4)
        terminal.until(LEFT)
        assert "4  succeeded" in terminal.rest()
        assert terminal.end() == 0
    assert not list(place.iterdir())


@pytest.mark.thorough
def test_one_who_leaves_sees_the_run_as_ever(gpusched: Command, fifo: Fifo) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        terminal.press("q")
        terminal.until(LEFT)
        terminal.until("2 running")
        fifo.release(4)
        assert "4  succeeded" in terminal.rest()
        assert terminal.end() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("whole", [True, False])
def test_nobody_is_waited_for_who_could_release_what_is_held(gpusched: Command, fifo: Fifo, whole: bool) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        if whole:
            terminal.press("h")
            terminal.until("2 windows held")
        else:  # each of the two that wait
            terminal.press("\r")
            terminal.until("4 of 4 windows")
            terminal.press("jjh")
            terminal.until("1 window held")
            terminal.press("j")
            terminal.until("v status")  # the keys, where the answer was
            terminal.press("h")
            terminal.until("1 window held")
        fifo.release(2)
        terminal.press("q")
        terminal.until(LEFT)
        rest = terminal.rest()
        assert "2  succeeded" in rest
        assert ("Held: by request" if whole else "held by request") in rest
        assert terminal.end() == 1


@pytest.mark.thorough
def test_a_cancelled_window_does_not_keep_it(gpusched: Command, fifo: Fifo) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        terminal.press("c")
        terminal.until("Cancel here? y/n")
        terminal.press("y")
        terminal.until(LEFT)
        assert "4  cancelled" in terminal.rest()
        assert terminal.end() == 0


def test_a_signal_drains_and_gives_the_terminal_back(gpusched: Command, fifo: Fifo) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        terminal.process.send_signal(signal.SIGTERM)
        seen = terminal.until("Draining")
        fifo.release(2)
        seen += terminal.rest()
        assert "2  succeeded" in seen[seen.index(LEFT) :]
        assert terminal.end() == 130


@pytest.mark.thorough
def test_a_ctrl_z_stops_it_and_it_comes_back_whole(gpusched: Command, fifo: Fifo) -> None:
    with Terminal(gpusched, *RUN) as terminal:
        terminal.until("2/2 busy")
        terminal.press("\x1a")
        terminal.until(LEFT)
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until("2/2 busy")
        terminal.press("q")
        terminal.until(LEFT)
        terminal.until("2 running")
        # From here on a Ctrl-Z is a run's, not Textual's, which would take the screen again. There is no shell here
        # that would wake it up, so the kernel does not stop it either.
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.process.send_signal(signal.SIGCONT)
        fifo.release(4)
        rest = terminal.rest()
        assert "4  succeeded" in rest
        assert "\x1b[?1049h" not in rest
        assert terminal.end() == 0


@pytest.mark.parametrize("ignored", [pytest.param(True, marks=pytest.mark.thorough), False])
def test_a_terminal_that_is_gone_ends_the_screen_and_not_the_run(gpusched: Command, fifo: Fifo, ignored: bool) -> None:
    """With SIGHUP ignored, as by nohup, the run goes on; otherwise the first one drains it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        terminal = Terminal(gpusched, *RUN)
    finally:
        signal.signal(signal.SIGHUP, before)
    with terminal:
        terminal.until("2/2 busy")
        terminal.process.send_signal(signal.SIGHUP)
        if not ignored:  # else windows could end, and others start, before it has seen the signal
            terminal.until("Draining")
        terminal.hang_up()
        terminal.process.send_signal(signal.SIGHUP)
        fifo.release(4)
        assert terminal.end() == (0 if ignored else 130)
    trained = list((gpusched.directory / "out").glob("FIFO*/model.txt"))
    assert len(trained) == (4 if ignored else 2)


def test_without_a_terminal_it_says_what_to_do(gpusched: Command, fifo: Fifo) -> None:
    with gpusched.start(*RUN) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "--top needs a terminal" in err
