"""The report: one file with everything in it, and nothing in it that a browser would obey."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpusched.client.report import Report, page
from gpusched.core.history import Sample
from gpusched.core.model import BatchSpec, WindowKey, window_label
from gpusched.protocol import BatchStatus, ResultLine

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


def report(results: list[ResultLine], *, metric: str | None = None, batch_id: str = "mine") -> Report:
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
            for second in range(5)
        ],
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


def test_what_comes_from_a_batch_is_text_only() -> None:
    harmless = Seen(page(report([*RESULTS, line(8, "failed", "why")])))
    evil = Seen(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)], batch_id="mine")))
    assert evil.elements == harmless.elements
    assert not [name for name in evil.attributes if name.startswith("on")]


def test_a_batch_without_results_or_readings_has_a_report() -> None:
    empty = report([])
    text = page(Report(batch=empty.batch, spec=empty.spec, results=[], samples=[], versions={}))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Configuration"]


def test_another_metric() -> None:
    assert "<h2>validation_f1 by symbol" in page(report(RESULTS, metric="validation_f1"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(report([*RESULTS, line(8, "failed", EVIL, symbol=EVIL)])))
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
    assert "onerror" not in Seen(done.stdout).attributes
