"""The report: one file with everything in it, and nothing in it that a browser would obey."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.client.report import Report, page
from gpusched.client.views.batch import BatchView
from gpusched.core.events import WindowMoved
from gpusched.core.model import BatchSpec, DataNote, Slot, WindowKey, window_label
from gpusched.core.samples import Sample
from gpusched.core.states import Finished, Queued, Starting, TimedOut
from gpusched.protocol import AttemptLine, BatchStatus, ResultLine

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
START = dt.date(2022, 1, 1)


def line(number: int, status: str = "succeeded", reason: str | None = None, symbol: str = "") -> ResultLine:
    symbol, start = symbol or f"S{number % 3}", START + dt.timedelta(10 * (number // 3))
    end, trained = start + dt.timedelta(9), status == "succeeded"
    return ResultLine(
        key=WindowKey("mine", window_label(symbol, start, end)),
        symbol=symbol,
        start=start,
        end=end,
        status=status,
        finished_at=1001.0 + number,
        attempts=1,
        seconds=0.5,
        device="GPU-1",
        slot=number % 2,
        artifacts_path=None,
        metrics={"validation": {"auc": number / 10, "f1": None}} if trained else None,
        sample_counts=None,
        started_at=1000.0 + number,
        ended_at=1000.5 + number,
        phases={"load": 0.1, "boosting": 0.3} if trained else None,
        reason=reason,
    )


def report(
    results: list[ResultLine],
    *,
    metric: str | None = None,
    batch_id: str = "mine",
    read: Iterable[int] = range(5),
    retried: Sequence[tuple[str, AttemptLine]] = (),
) -> Report:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return Report(
        batch=BatchStatus(
            id=batch_id,
            output_dir="/out",
            submitted_at=999.0,
            state="finished",
            held_reason=None,
            finished_at=1020.0,
            counts=counts,
        ),
        spec=BatchSpec(
            symbols=("S0", "M&M"),
            start=START,
            end=START,
            window_days=10,
            data_root="/data",
            workload="w:f",
            settings={"lightgbm": {"num_leaves": 7}},
        ),
        results=results,
        samples=[
            Sample(
                device_id="GPU-1",
                at=1000.0 + second,
                seconds=1.0,
                readings=1,
                utilisation=0.5,
                memory_used_bytes=2**30,
                memory_total_bytes=2**33,
                power_w=None,
                temperature_c=None,
            )
            for second in read
        ],
        retried=retried,
        versions={"gpusched": "0.1.0", "lightgbm": "4.6.0"},
        metric=metric,
    )


class Seen(HTMLParser):
    """The elements, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] != ["script"]:
            self.words += data


#: says on which kind of axis the browser has drawn the timeline, and where the bars of slot 0 begin
TELLS_AXIS = """<script>addEventListener("load", () => {
  const figure = document.querySelector(".js-plotly-plot"), bars = figure.querySelectorAll(".bars .point path")
  const left = [...bars].map(bar => bar.getBoundingClientRect().left).slice(0, 6).filter((_, i) => i % 2 == 0)
  const told = document.createElement("pre")
  told.textContent = [figure._fullLayout.xaxis.type, ...left].join(" ")
  document.body.append(told)
})</script>"""

RESULTS = [
    *(line(number) for number in range(6)),
    line(6, "failed", "raised: ValueError: no"),
    line(7, "skipped", "too few rows: 3 of the 20 that are needed"),
]


def test_has_all_of_its_parts_in_one_file() -> None:
    text = page(report(RESULTS))
    seen = Seen(text)
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Timeline",
        "Seconds by phase",
        "validation_auc by symbol and window",
        "Remaining time: what was said, and what it was",
        "Failures and skips",
        "Configuration",
    ]
    assert "6 succeeded · 1 failed" not in text  # numbers are set in bold
    for words in ("raised: ValueError: no", "num_leaves", "4.6.0", "2: S0, M&M"):
        assert words in seen.words
    assert not {"src", "href"} & seen.attributes, "it needs nothing else"


def test_what_is_known_of_the_data_is_in_it() -> None:
    made = report(RESULTS)
    text = page(msgspec.structs.replace(made, notes={"M&M": (DataNote("jumps", "÷ 4 on 2023-04-10: a <split>?"),)}))
    seen = Seen(text)
    assert "About the data" in re.findall("<h2>(.*?)</h2>", text)
    assert "÷ 4 on 2023-04-10: a <split>?" in seen.words
    many = {f"S{number}": (DataNote("gaps", "1 day missing"),) for number in range(70)}
    assert "and 20 more symbols" in Seen(page(msgspec.structs.replace(made, notes=many))).words


def test_what_comes_from_a_batch_is_text_only() -> None:
    harmless = Seen(page(report([*RESULTS, line(8, "failed", "why")])))
    evil = Seen(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)], batch_id="mine")))
    assert evil.elements == harmless.elements
    assert not [name for name in evil.attributes if name.startswith("on")]


def test_a_batch_without_results_or_readings_has_a_report() -> None:
    empty = report([])
    text = page(Report(batch=empty.batch, spec=empty.spec, results=[], samples=[], versions={}))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Configuration"]


def figures(text: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """The traces and the layout of each figure."""
    found, decode = [], json.JSONDecoder().raw_decode
    for call in re.finditer(r"Plotly\.newPlot\(\s*\"[^\"]*\",\s*", text):
        traces, end = decode(text, call.end())
        start = re.compile(r"\s*,\s*").match(text, end)
        assert start
        found.append((traces, decode(text, start.end())[0]))
    return found


def test_a_timeline_is_one_of_dates_with_slots_in_order() -> None:
    late = [line(number) for number in (5, 2, 1, 4)]  # of slot 1 first
    traces, layout = figures(page(report(late)))[0]
    assert {layout[axis]["type"] for axis in ("xaxis", "xaxis2", "xaxis3")} == {"date"}
    assert layout["yaxis"]["categoryarray"] == ["0 GPU-1", "1 GPU-1"]
    assert traces[0]["y"] == ["1 GPU-1", "0 GPU-1", "1 GPU-1", "0 GPU-1"]
    assert traces[0]["base"][0] == "1970-01-01 00:16:45.000000"
    assert traces[0]["x"] == [500.0] * 4, "milliseconds"


def test_a_line_is_broken_where_nothing_was_read() -> None:
    traces, _ = figures(page(report(RESULTS, read=(0, 1, 4, 8, 9))))[0]
    lines = [trace for trace in traces if trace["type"] == "scatter"]
    assert [trace["y"] for trace in lines] == [[50, 50, 50, None, 50, 50], [1, 1, 1, None, 1, 1]]
    assert lines[0]["x"][3] is None


def test_attempts_that_failed_before_are_in_their_slots() -> None:
    failed = AttemptLine(
        attempt=1,
        slot=Slot(7, "GPU-2"),
        placed_at=1000.0,
        pid=1,
        started_at=None,
        ended_at=1000.25,
        ending="killed",
        message="killed by <b>signal 9</b>" + "!" * 1000,
        traceback=None,
        usage=None,
    )
    traces, layout = figures(page(report(RESULTS, retried=[("S0_2022", failed)])))[0]
    (bar,) = [trace for trace in traces if trace["name"] == "retried"]
    assert (bar["y"], bar["x"]) == (["7 GPU-2"], [250.0])
    assert bar["hovertext"][0].startswith("0.2s, S0_2022<br>killed by &lt;b&gt;signal 9")
    assert len(bar["hovertext"][0]) < 400
    assert layout["yaxis"]["categoryarray"][-1] == "7 GPU-2"


def test_what_was_said_is_what_live_screens_said() -> None:
    """A batch that takes half the time for each window from its middle on: by the rate of the last ends alone."""
    ends = [number * (1.0 if number < 100 else 0.5) + (0 if number < 100 else 50) for number in range(1, 201)]
    results = [
        msgspec.structs.replace(line(number), slot=0, started_at=1000 + end - 0.5, ended_at=1000 + end)
        for number, end in enumerate(ends)
    ]
    was, said = (trace for traces, _ in figures(page(report(results))) for trace in traces if "said" in names(traces))
    view = BatchView()
    view.total = len(results)
    live = []
    for result in results:
        assert result.started_at
        assert result.ended_at
        slot = Starting(attempt=1, slot=Slot(0, "GPU-1"))
        over = Finished(attempts=1, outcome=TimedOut(seconds=0.5))
        for old, new, at in ((Queued(), slot, result.started_at), (slot, over, result.ended_at)):
            view.apply(WindowMoved(key=result.key, old=old, new=new, reason="", at=at), at)
        live.append(view.eta_s(result.ended_at))
    assert said["y"] == pytest.approx(live[:-1])
    assert was["y"] == pytest.approx([ends[-1] - end for end in ends[:-1]])


def names(traces: list[dict[str, Any]]) -> list[str]:
    return [trace.get("name", "") for trace in traces]


def test_a_reason_that_names_the_symbol_is_one_row() -> None:
    text = Seen(
        page(report([line(n, "failed", f"bars of {s} differ", symbol=s) for n, s in enumerate(("GOOG13", "GOOG17"))]))
    ).words
    assert "2failedbars of … differ" in text
    assert "bars of GOOG" not in text


def test_another_metric() -> None:
    assert "<h2>validation_f1 by symbol" in page(report(RESULTS, metric="validation_f1"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)])) + TELLS_AXIS)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    done = subprocess.run(
        [
            "chromium",
            *options,
            f"--user-data-dir={tmp_path / 'user'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count('class="main-svg"') >= 4, "each figure was drawn"
    (told,) = re.findall(r"<pre>(.*?)</pre>", done.stdout)
    # The axis as the browser took it, and a bar's place on it: of as many pixels as it is late.
    kind, first, second, third = told.split()
    assert kind == "date"
    assert 0 < float(first) < float(second) < float(third)
    assert float(third) - float(second) == pytest.approx(float(second) - float(first), abs=1)
    assert "onerror" not in Seen(done.stdout).attributes
