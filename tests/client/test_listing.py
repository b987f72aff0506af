"""Listings as people see them on terminals of three widths, and as programs read them."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from gpusched.cli import sources
from gpusched.cli.commands import queries, results, settings
from gpusched.client.drawing.listing import Cell, print_json, print_listing
from gpusched.client.drawing.terminal import open_console
from gpusched.core.model import (
    DataNote,
    DataNotes,
    Device,
    PlannedWindow,
    Reading,
    Slot,
    Window,
    WindowKey,
    window_label,
)
from gpusched.core.states import Queued
from gpusched.protocol import (
    BatchDetail,
    BatchStatus,
    DeviceStatus,
    Pong,
    StoryLine,
    WindowDetail,
    WindowLine,
)
from tests.client.support import trained
from tests.client.test_screens import check
from tests.core.support import batch as make_batch

START, END = dt.date(2022, 1, 1), dt.date(2022, 6, 29)
CARDS = [f"GPU-{number}a2b3c4d-0000-1111-2222-333344445555" for number in range(2)]
SYMBOLS = ("AAPL", "BAJAJ-AUTO", "MSFT")


def batch(name: str, state: str, seconds: float, **counts: int) -> BatchStatus:
    return BatchStatus(
        id=name,
        output_dir=f"/srv/quant/runs/{name}",
        submitted_at=time.time() - seconds,
        state=state,  # type: ignore[arg-type]
        held_reason="3 windows failed alike" if state == "held" else None,
        finished_at=None,
        counts=counts,
    )


def window(number: int, status: str, reason: str | None = None, seconds: float | None = None) -> WindowLine:
    symbol = SYMBOLS[number]
    return WindowLine(
        key=WindowKey("nifty", window_label(symbol, START, END)),
        symbol=symbol,
        start=START,
        end=END,
        status=status,
        moved_at=5.0,
        usable_rows=90,
        attempts=number,
        slot=Slot(number, CARDS[number % 2]) if number else None,
        started_at=1.0 if seconds else None,
        ended_at=1.0 + seconds if seconds else None,
        why=reason,
    )


def result(number: int, status: str, reason: str | None = None) -> WindowLine:
    symbol = SYMBOLS[number]
    return WindowLine(
        key=WindowKey("nifty", window_label(symbol, START, END)),
        symbol=symbol,
        start=START,
        end=END,
        status=status,
        moved_at=1e9,
        usable_rows=90,
        attempts=1,
        seconds=10800.123 / (number + 1),
        slot=Slot(0, CARDS[0]),
        why=reason,
        result=None if reason else trained(),
    )


def device(number: int) -> DeviceStatus:
    return DeviceStatus(
        device=Device(
            id=CARDS[number],
            name="NVIDIA RTX 6000 Ada Generation",
            lightgbm_type="cuda",
            capacity=4,
            memory_total_bytes=48 << 30,
        ),
        health="open",
        reason="",
        slots=tuple(Slot(4 * number + slot, CARDS[number]) for slot in range(4)),
        width=4,
        allocations={0: WindowKey("nifty", window_label("AAPL", START, END))},
        reading=Reading(
            device_id=CARDS[number],
            at=1.0,
            memory_total_bytes=48 << 30,
            memory_free_bytes=20 << 30,
            utilisation=0.57,
            temperature_c=61.0,
            power_w=212.0,
        ),
        reserved_bytes=3 << 30,
        foreign_bytes=2 << 30,
    )


class Told:
    """The answers of a daemon, without one."""

    def batches(self) -> tuple[BatchStatus, ...]:
        return (
            batch("nifty-1a2b3c4d", "finished", 97_000, succeeded=240, failed=3, timed_out=1, skipped=8),
            batch("nifty-2b3c4d5e", "held", 7_500, succeeded=10, failed=3, queued=239),
        )

    def windows(self, name: str, status: str | None) -> tuple[WindowLine, ...]:
        return (
            window(0, "queued"),
            window(1, "failed", "raised: ValueError: the column 'close' has 3 gaps", 10800.123),
            window(2, "succeeded", None, 0.25),
        )

    def results(self, name: str) -> tuple[WindowLine, ...]:
        return (
            result(0, "succeeded"),
            result(1, "failed", "raised: ValueError: the column 'close' has 3 gaps"),
            result(2, "succeeded"),
        )

    def batch(self, name: str, *, notes: bool) -> BatchDetail:
        jumps, gaps = DataNote("jumps", "÷ 4 on 2023-04-10: a split?"), DataNote("gaps", "1 day missing")
        told: DataNotes = {"AAPL": (jumps,), "MSFT": (gaps,)} if notes else {}
        return BatchDetail(batch=self.batches()[0], spec=make_batch().spec, notes=told)

    def window(self, name: str, label: str) -> WindowDetail:
        return WindowDetail(
            window=window(0, "queued"),
            plan=PlannedWindow(window=Window("AAPL", START, END)),
            state=Queued(),
            story=(StoryLine(at=time.time() - 7_500, old="held", new="queued", attempt=1, reason="released"),),
            attempts=(),
        )

    state_dir = Path("/var/lib/gpusched")

    def devices(self) -> tuple[DeviceStatus, ...]:
        return device(0), device(1)

    def ping(self) -> Pong:
        return Pong(draining=False, active=0, unfinished=239, trouble=None)


OPTIONS = argparse.Namespace(
    batch=None,
    json=False,
    status=None,
    sort=None,
    reverse=False,
    by_symbol=False,
    metric=None,
    csv=False,
    parquet=None,
    by=None,
    best=None,
    per=None,
)
LISTINGS: dict[str, tuple[Callable[[argparse.Namespace], int], dict[str, object]]] = {
    "windows": (queries.windows, {"batch": "nifty"}),
    "devices": (queries.devices, {}),
    "results": (results.results, {"batch": "nifty"}),
    "results-by-symbol": (results.results, {"batch": "nifty", "by_symbol": True, "sort": "mean"}),
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The text of a listing: on a terminal of some width, or in a pipe."""

    @contextlib.contextmanager
    def told(options: argparse.Namespace) -> Iterator[Told]:
        yield Told()

    @contextlib.contextmanager
    def of_batch(options: argparse.Namespace, name: str) -> Iterator[tuple[Told, str]]:
        yield Told(), name

    monkeypatch.setattr(queries, "to_daemon", told)

    @contextlib.contextmanager
    def of_window(options: argparse.Namespace, name: str) -> Iterator[tuple[Told, str, str]]:
        batch, _, label = name.partition("/")
        yield Told(), batch, label

    monkeypatch.setattr(queries, "of_batch", of_batch)
    monkeypatch.setattr(queries, "of_window", of_window)
    monkeypatch.setattr(results, "of_batch", of_batch)
    monkeypatch.setattr(sources, "of_batch", of_batch)
    monkeypatch.setenv("TERM", "xterm-256color")

    def run(show: Callable[[], object], width: int | None = None, encoding: str = "utf-8") -> str:
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
        monkeypatch.setattr(out, "isatty", lambda: width is not None)
        monkeypatch.setenv("COLUMNS", str(width or 80))
        with contextlib.redirect_stdout(out):
            show()
        out.seek(0)
        return re.sub(r"\x1b\[[\d;]*m", "", out.read()).rstrip("\n")

    return run


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_on_a_terminal(name: str, width: int, shown: Callable[..., str]) -> None:
    command, asked = LISTINGS[name]
    check(f"listing-{name}", width, shown(lambda: command(argparse.Namespace(**(vars(OPTIONS) | asked))), width))


def test_a_configuration_says_its_path_once(
    shown: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[labels]\nhorizon = 5\n")
    monkeypatch.setenv("GPUSCHED_RUN_WORKERS", "2")
    asked = argparse.Namespace(config=file, flags=[], json=False)
    lines = shown(lambda: settings.show(asked), 80).splitlines()
    assert lines[0] == f"Configuration file: {file}"
    assert not any(str(file) in line for line in lines[1:])
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert rows["setting"] == ["setting", "from", "value"]
    assert rows["labels.horizon"] == ["labels.horizon", "line", "2", "5"]
    assert rows["run.workers"] == ["run.workers", "GPUSCHED_RUN_WORKERS", "2"]
    assert max(map(len, lines[1:])) <= 80
    assert not re.search("[─│┃━]", "".join(lines))
    piped = shown(lambda: settings.show(asked)).splitlines()
    assert f"labels.horizon\t5\t{file}:2" in piped


def test_a_story_is_dated_for_programs_and_told_for_people(shown: Callable[..., str]) -> None:
    asked = argparse.Namespace(window="nifty/AAPL_2022-01-01_to_2022-06-29", json=False)
    assert shown(lambda: queries.show(asked), 80).endswith("\n 2h05m ago  held → queued  released")
    assert re.search(r"\n\d{4}-\d\d-\d\dT[\d:.]+\+00:00  held → queued", shown(lambda: queries.show(asked)))
    asked.json = True
    assert json.loads(shown(lambda: queries.show(asked)))["story"][0]["at"].endswith("+00:00")


COLUMNS = ("window", "seconds", "nothing", "reason")
ROWS: tuple[tuple[Cell, ...], ...] = (
    ("AAPL_2022-01-01_to_2022-06-29", 10800.123, None, "→ the column has gaps"),
    ("MSFT_2022-01-01_to_2022-06-29", 0.25, None, ""),
)


def table(width: int | None, shown: Callable[..., str], **more: str) -> list[str]:
    return shown(lambda: print_listing(COLUMNS, ROWS, styles={}), width, **more).splitlines()


def test_the_label_of_a_sweeps_window_leaves_room_for_its_results(shown: Callable[..., str]) -> None:
    rows = [
        (
            f"AAPL_2022-01-01_to_2022-06-29_horizon={n},learning_rate=0.05,num_leaves=127",
            "succeeded",
            0.25,
            0.5 + n / 100,
        )
        for n in range(3)
    ]
    columns = ("window_label", "status", "seconds", "validation_auc")
    head, *lines = shown(lambda: print_listing(columns, rows, styles={}), 80).splitlines()
    assert head.split() == list(columns)
    assert [line.split()[1:] for line in lines] == [["succeeded", "0.25", auc] for auc in ("0.5", "0.51", "0.52")]
    assert all(re.match(r"AAPL_2022-01.*…\S*num_leaves=127  ", line) for line in lines), lines


def test_what_tells_rows_apart_is_whole_while_there_is_any_room(shown: Callable[..., str]) -> None:
    for width in range(29, 70):
        lines = table(width, shown)
        assert [line[:29].rstrip() for line in lines] == ["window", *(row[0] for row in ROWS)]
        assert max(map(cell_len, lines)) <= width
    narrow = table(20, shown)
    assert narrow[1:] == ["AAPL_2022-…022-06-29", "MSFT_2022-…022-06-29"]
    assert max(map(len, table(20, shown, encoding="ascii"))) <= 20


def test_a_column_without_room_for_a_word_is_left_out(shown: Callable[..., str]) -> None:
    assert table(51, shown)[0].split() == ["window", "seconds"]
    assert table(52, shown)[1] == "AAPL_2022-01-01_to_2022-06-29   10,800  → the colum…"
    assert table(53, shown, encoding="ascii")[1] == "AAPL_2022-01-01_to_2022-06-29   10,800  -> the col..."


def test_programs_get_all_columns_and_exact_numbers(shown: Callable[..., str]) -> None:
    assert table(None, shown)[:2] == [
        "window\tseconds\tnothing\treason",
        "AAPL_2022-01-01_to_2022-06-29\t10800.123\t\t→ the column has gaps",
    ]


@pytest.mark.parametrize(
    ("number", "programs", "people"),
    [
        (10800.123, "10800.123", "10,800"),
        (0.1 + 0.2, "0.3", "0.3"),
        (123456789.0, "123456789", "123,456,789"),
        (1e-9, "0", "1e-09"),
        (-1e-9, "0", "-1e-09"),
        (0.0, "0", "0"),
        (float("nan"), "nan", "nan"),
        (7, "7", "7"),
    ],
)
def test_numbers(number: Cell, programs: str, people: str, shown: Callable[..., str]) -> None:
    for width, text in ((None, programs), (80, people)):
        lines = shown(lambda: print_listing(["n"], [[number]], styles={}), width).splitlines()
        assert lines[1].strip() == text


def test_a_listing_without_rows_says_what_it_would_have(shown: Callable[..., str]) -> None:
    assert shown(lambda: print_listing(["window", "status"], [], styles={}), 80) == "window  status"


@pytest.mark.parametrize("columns", ["80", "0", "00"])
def test_lines_are_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """At a width of 0, which a container may set for unknown, nothing was printed."""
    monkeypatch.setenv("COLUMNS", columns)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        open_console().print(Text("word " * 40))
    assert out.getvalue().count("word") == 40
    assert out.getvalue().count("\n") == 1


def test_names_of_columns_are_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics of a workload of one's own are columns, and may be called anything."""
    print_listing(["window", "\x1b[31mau\tc\n"], [["a", 1]], styles={})
    assert capsys.readouterr().out == "window\t\N{REPLACEMENT CHARACTER}[31mau c \na\t1\n"


def test_a_number_that_a_user_has_named_is_no_instant(capsys: pytest.CaptureFixture[str]) -> None:
    """A metric `recall_at` of 0.8 was printed as 1970-01-01, and one of 1e12 was an internal error."""
    deep: dict[str, object] = {"at": 1e12}
    for _ in range(500):
        deep = {"deep": deep}
    theirs = ["metrics", "sample_counts", "phases", "parameters", "settings", "points", "values", "a", "b"]
    given = {name: {"recall_at": 0.8, "workload.stop_at": 1e12, "deep": deep} for name in theirs}
    print_json({"results": [{"finished_at": 0.5, "at": 1, **given}]})
    printed = json.loads(capsys.readouterr().out)["results"][0]
    assert printed.pop("finished_at") == "1970-01-01T00:00:00.500+00:00"
    assert printed.pop("at") == "1970-01-01T00:00:01.000+00:00"
    assert printed == given
