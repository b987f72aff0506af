"""The report on a narrow screen, and of a batch that was over at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpusched.analysis.comparison import compare
from gpusched.analysis.page import page
from gpusched.analysis.scores import of_lines
from tests.analysis.reports import line, report
from tests.analysis.test_report import browse, figures, needs_browser

RESULTS = [line(number) for number in range(8)]
#: says how many lines the highest row of the first table has, and where histogram, ranking and importances begin
FRAME = """<iframe src="report.html" style="width: 400px; height: 900px; border: 0"></iframe><script>
const frame = document.querySelector("iframe")
frame.addEventListener("load", () => {
  const page = frame.contentDocument
  const rows = [...page.querySelector(".scroll table").rows].slice(1)
  const told = [Math.max(...rows.map(row => row.offsetHeight))]
  for (const part of page.querySelector(".worth").children) told.push(part.offsetTop)
  const note = document.createElement("pre")
  note.textContent = told.join(" ")
  document.body.append(note)
})</script>"""


@needs_browser
@pytest.mark.thorough
def test_numbers_stay_on_one_line_and_the_ranking_stands_behind_its_histogram(tmp_path: Path) -> None:
    """Digits stood below each other, and the ranking below the heading of the importances."""
    both = compare("a", "b", of_lines(RESULTS), of_lines(RESULTS))
    (tmp_path / "report.html").write_text(page(report(RESULTS), both))
    (tmp_path / "frame.html").write_text(FRAME)
    shown = browse(tmp_path / "frame.html", "--allow-file-access-from-files", "--window-size=500,1000")
    (told,) = re.findall(r"<pre>(.*?)</pre>", shown)
    highest, *tops = map(int, told.split())
    assert highest < 2 * 19
    assert tops == sorted(tops)


def test_a_batch_that_no_device_was_read_for_has_a_timeline_of_its_windows_alone() -> None:
    """Axes of use and memory stood there without a line."""
    (bars, layout), *_ = figures(page(report(RESULTS, read=())))
    assert {trace["type"] for trace in bars} == {"bar"}
    assert [note["text"] for note in layout["annotations"]] == ["windows by slot"]
    (_, layout), *_ = figures(page(report(RESULTS)))
    assert [note["text"] for note in layout["annotations"]] == ["windows by slot", "use, %", "memory, GiB"]
