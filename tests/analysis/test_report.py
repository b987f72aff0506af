"""The report: one file with everything in it, and nothing in it that a browser would obey."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.analysis.comparison import compare
from gpusched.analysis.content import Report
from gpusched.analysis.evidence import calibration, gather, roc
from gpusched.analysis.page import page
from gpusched.analysis.scores import NoMetric, of_lines
from gpusched.client.views.batch import BatchView
from gpusched.core.events import WindowMoved
from gpusched.core.model import DataNote, Slot, WindowKey
from gpusched.core.states import Finished, Queued, Starting, TimedOut
from gpusched.protocol import AttemptLine
from tests.analysis.reports import EVIL, RESULTS, line, many, report, with_result
from tests.waiting import PATIENCE_S


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
TELLS_AXIS = """<script>document.addEventListener("drawn", () => {
  const figure = document.querySelector(".js-plotly-plot"), bars = figure.querySelectorAll(".bars .point path")
  const left = [...bars].map(bar => bar.getBoundingClientRect().left).slice(0, 6).filter((_, i) => i % 2 == 0)
  const told = document.createElement("pre")
  told.textContent = [figure._fullLayout.xaxis.type, ...left].join(" ")
  document.body.append(told)
})</script>"""


def test_has_all_of_its_parts_in_one_file() -> None:
    text = page(report(RESULTS))
    seen = Seen(text)
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "validation_auc of all windows, and by symbol",
        "validation_auc by symbol and window",
        "validation_auc over time",
        "Windows",
        "Timeline",
        "Seconds by phase",
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
    harmless = Seen(page(report([*RESULTS, line(8, "failed", "why", symbol="S9")])))
    evil = Seen(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)], batch_id="mine")))
    assert evil.elements == harmless.elements
    assert not [name for name in evil.attributes if name.startswith("on")]


def test_a_workload_without_metrics_has_its_windows() -> None:
    bare = [with_result(one, metrics={}, artifacts_path="not absolute") for one in RESULTS[:3]]
    text = page(report(bare))
    assert re.findall("<h2>(.*?)</h2>", text)[:2] == ["Windows", "Timeline"]
    assert '"links":{}' in text


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


def test_a_timeline_is_that_of_the_launches_or_else_of_the_trainings_that_are_reused() -> None:
    reused = [line(number, "reused") for number in range(2)]
    traces, _ = figures(page(report(reused)))[0]
    assert [trace["y"] for trace in traces if trace["type"] == "bar"] == [["0 GPU-1", "1 GPU-1"]]
    traces, _ = figures(page(report([*reused, line(100)])))[0]
    bars = [trace["base"] for trace in traces if trace["type"] == "bar"]
    assert bars == [["1970-01-01 00:18:20.000000"]], "trainings of another day would squeeze it"


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
        msgspec.structs.replace(line(number), slot=Slot(0, "GPU-1"), started_at=1000 + end - 0.5, ended_at=1000 + end)
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
    assert (
        "2failedbars of … differ — of the first: bars of GOOG13 differGOOG13_2022-01-01_to_2022-01-10, GOOG17" in text
    )
    assert "bars of GOOG17" not in text


def test_another_metric() -> None:
    scored = [with_result(one, metrics={"loss": 3.0 + one.moved_at}) for one in RESULTS[:6]]
    text = page(report([*scored, *RESULTS[6:]], metric="loss"))
    assert "<h2>loss by symbol" in text
    assert "median loss of 6 windows" in text
    assert "of them above" not in text, "chance gives no loss"
    with pytest.raises(NoMetric, match="no metric 'validation_f1'"):
        page(report(RESULTS, metric="validation_f1"))


# -- the quant's part --------------------------------------------------------------------------------------------------


def test_the_first_screen_says_what_the_models_are_worth() -> None:
    assert "predict a constant" not in Seen(page(report(RESULTS))).words.partition("by symbol and window")[0]
    made = report([*(with_result(one, constant=n < 2) for n, one in enumerate(RESULTS[:6])), *RESULTS[6:]])
    batch = msgspec.structs.replace(made.batch, constants=2)
    words = Seen(page(msgspec.structs.replace(made, batch=batch))).words
    assert "0.250median validation_auc of 6 windows · 95 % interval" in words
    assert "0%of them above 0.5" in words
    assert "2of 6 models predict a constant: too few rows for num_leaves 7?" in words
    assert "6 succeeded1 skipped1 failed" in words
    assert "0.5 is what guessing has: blue windows are better, orange ones worse; grey: 2 models" in words


def test_the_heat_map_tells_apart_why_there_is_no_number() -> None:
    constant = with_result(line(4), constant=True)
    undefined = with_result(line(5), metrics={"validation": {"auc": None}})
    late = with_result(line(10), metrics={"validation": {"auc": 0.9}})
    text = page(report([line(0), *RESULTS[6:], constant, undefined, late]))
    table = text[text.index("<table class=heat>") :]
    cells = re.findall(r"<td( class=\w+)?(?: title=\"(.*?)\")?>(.*?)</td>", table[: table.index("</table>")])
    by_class = {name.partition("=")[2]: (title, shown) for name, title, shown in cells}
    assert by_class["b7"] == ("", ".00")
    assert by_class["a7"] == ("", ".90")
    assert by_class["flat"] == ("", ".40")
    assert by_class["none"] == ("", "–")
    assert by_class["skip"][1] == "skipped"
    assert by_class["fail"] == ("raised: ValueError: no", "failed")
    assert by_class[""] == ("", "")


def test_windows_that_grow_are_told_apart_by_their_last_days() -> None:
    first = line(0)
    grown = [
        msgspec.structs.replace(
            with_result(first, metrics={"validation": {"auc": 0.5 + days / 1000}}),
            key=WindowKey("mine", f"grown-{days}"),
            end=first.end + dt.timedelta(days),
        )
        for days in (0, 30, 60)
    ]
    text = page(report(grown))
    table = text[text.index("<table class=heat>") :]
    assert re.findall(r"<td class=\w+>(.*?)</td>", table[: table.index("</table>")]) == [".50", ".53", ".56"]


@pytest.mark.parametrize(
    ("metric", "ranked"),
    [
        ("auc", "3130.70000.7000 to 0.7000100%0730.50000.5000 to 0.50000%0-0.2000-0.2000 to -0.2000"),
        ("rmse", "730.50000.5000 to 0.500003130.70000.7000 to 0.70000+0.2000+0.2000 to +0.2000"),
    ],
)
def test_points_of_a_sweep_are_ranked(metric: str, ranked: str) -> None:
    swept = [
        msgspec.structs.replace(
            with_result(line(number), metrics={"validation": {metric: value}}),
            key=WindowKey("mine", f"{line(number).key.label}_num_leaves={point}"),
            point=f"num_leaves={point}",
        )
        for number in range(3)
        for point, value in ((7, 0.5), (31, 0.7))
    ]
    made = report(swept)
    spec = msgspec.structs.replace(
        made.spec, points={f"num_leaves={leaves}": {"lightgbm.num_leaves": leaves} for leaves in (7, 31)}
    )
    words = Seen(page(msgspec.structs.replace(made, spec=spec))).words
    assert "Points of the sweeplightgbm.num_leaveswindowsmedian validation_" in words
    assert ranked in words


def test_what_the_files_of_results_tell(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        rows = "".join(f"2024,validation,{int(row > 4)},{row / 10}\n" for row in range(10)) + "2024,,,0.5\n"
        table = gzip.compress(f"ts,split,label,probability\n2024,train,1,0.1\n{rows}".encode())
        (tmp_path / str(number) / "predictions.csv.gz").write_bytes(table if number else table[:40])
        (tmp_path / str(number) / "feature_importance.csv").write_text("feature,gain,split\nrsi,3,1\nsma,1,1\n")
    lines = [with_result(line(n), artifacts_path=str(tmp_path / str(n))) for n in range(4)]
    found = gather(lines)
    assert (found.read, found.windows, len(found.labels)) == (2, 4, 20)
    assert found.importances == {"rsi": [0.75] * 3, "sma": [0.25] * 3}
    assert [(bin.predicted, bin.observed, bin.rows) for bin in calibration(found)][::9] == [(0, 0, 2), (0.9, 1, 2)]
    assert roc(found)[:2] == [(0.0, 0.0), (0.0, 0.2)]
    assert roc(found)[-1] == (1.0, 1.0)
    words = Seen(page(report(lines))).words
    assert "20 validation rows of 2 of 4 windows" in words
    assert "over 3 models" in words


def test_two_batches_are_side_by_side() -> None:
    better = [with_result(one, metrics={"validation": {"auc": 0.9}}) for one in RESULTS[1:6]]
    text = page(report(RESULTS), compare("mine", "other", of_lines(RESULTS), of_lines(better)))
    words = Seen(text).words
    assert "mine and other side by side" in words
    assert "validation_auc0.30000.9000+0.6000" in words
    assert "5 windows in both; 1 only in A" in words


@pytest.mark.thorough
def test_5000_windows_fit_in_5_megabytes() -> None:
    text = page(many(5000))
    assert len(text.encode()) < 5_000_000
    assert "The 30 best and the 30 worst; 626 between" in text


# -- in a browser ------------------------------------------------------------------------------------------------------


needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


def browse(path: Path, *options: str) -> str:
    """The elements of a page after its scripts have run."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    done = subprocess.run(
        [
            "chromium",
            *quiet,
            f"--user-data-dir={path.parent / 'user'}",
            "--virtual-time-budget=15000",
            *options,
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


@pytest.mark.thorough
@needs_browser
def test_a_browser_draws_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)])) + TELLS_AXIS)
    shown = browse(path)
    assert shown.count('class="main-svg"') >= 4, "each figure was drawn"
    (told,) = re.findall(r"<pre>(.*?)</pre>", shown)
    # The axis as the browser took it, and a bar's place on it: of as many pixels as it is late.
    kind, first, second, third = told.split()
    assert kind == "date"
    assert 0 < float(first) < float(second) < float(third)
    assert float(third) - float(second) == pytest.approx(float(second) - float(first), abs=1)
    assert "onerror" not in Seen(shown).attributes


#: shows a report in a frame of a width; says how wide its content is, how many rows its table has, how many once it is
#: searched, the best of its first metric once it is sorted, and how many figures were drawn
FRAME = """<iframe src="report.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe><script>
const frame = document.querySelector("iframe")
frame.addEventListener("load", () => frame.contentDocument.addEventListener("drawn", () => {
  const page = frame.contentDocument, input = page.querySelector("#windows input")
  const rows = () => page.querySelectorAll("#windows tbody tr")
  const told = [page.documentElement.scrollWidth, rows().length]
  input.value = "s1 failed"
  input.dispatchEvent(new Event("input"))
  told.push(rows().length)
  input.value = ""
  input.dispatchEvent(new Event("input"))
  page.querySelectorAll("#windows th")[4].click()
  told.push(rows()[0].children[4].textContent)
  told.push(page.querySelectorAll(".main-svg").length)
  const note = document.createElement("pre")
  note.textContent = told.join(" ")
  document.body.append(note)
}))</script>"""


@needs_browser
@pytest.mark.thorough
@pytest.mark.parametrize("width", [1200, 400])
def test_a_page_fits_its_window_and_its_table_is_searched_and_sorted(width: int, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(report([*RESULTS, line(10, "failed", "why")])))
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    shown = browse(tmp_path / "frame.html", "--allow-file-access-from-files", "--window-size=1300,1000")
    (told,) = re.findall(r"<pre>(.*?)</pre>", shown)
    wide, rows, found, best, drawn = told.split()
    assert int(wide) <= width
    assert (int(rows), int(found), best) == (9, 1, "0.5000")
    assert int(drawn) >= 4
