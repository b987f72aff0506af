"""A window's story as `show` and `top` tell it."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len

from gpusched.client.drawing.details import BAR, device_details, importance_details, window_details
from gpusched.client.drawing.device_page import DeviceFrame
from gpusched.client.drawing.text import ASCII, FANCY, device_name
from gpusched.client.importances import FILE, look_at_importances
from gpusched.core.model import ForeignProcess, PlannedWindow, Reading, Slot, Window, WindowResult
from gpusched.core.samples import Recent
from gpusched.core.states import Finished, Queued, Succeeded, Usage
from gpusched.protocol import AttemptLine, StoryLine, WindowDetail
from tests.client.scenes import pool
from tests.client.support import drawn
from tests.client.test_screens import HOSTILE
from tests.client.test_windows import line
from tests.core.support import gpu, key

NOW = 1e9


def test_a_device_its_slots_and_how_old_its_reading_is() -> None:
    (status,) = pool(gpu(0, capacity=4))
    status = msgspec.structs.replace(
        status,
        width=3,
        allocations={1: key("A")},
        reading=Reading(device_id="GPU-0", at=NOW - 12.0, utilisation=0.98, temperature_c=61.0),
    )
    told = list(device_details(status, NOW))
    assert "Reading  98 %, 61 C, 12s ago" in told
    stranger = ForeignProcess(pid=4711, user="bob", command="python train.py", memory_bytes=2 << 30)
    assert status.reading is not None
    reading = msgspec.structs.replace(
        status.reading,
        power_w=240.0,
        power_limit_w=300.0,
        fan=0.4,
        foreign=(stranger, ForeignProcess(pid=1, memory_bytes=0)),
    )
    device = msgspec.structs.replace(status.device, driver="580.95.05", modes="persistence off, compute mode default")
    more = list(device_details(msgspec.structs.replace(status, reading=reading, device=device), NOW))
    assert "Driver   580.95.05, persistence off, compute mode default" in more
    assert "Reading  98 %, 61 C, 240 of 300 W, fan 40 %, 12s ago" in more
    assert "Foreign  4711 of bob, 2048 MiB: python train.py" in more
    assert "Foreign  1 of somebody, 0 MiB: gone" in more
    assert any(line.startswith("Slots    3: 1 held, 2 free, ") for line in told)
    assert told[-3:] == [f"Slot     1: {key('A')}", "Slot     0: free", "Slot     2: free"], "one is not in use"


def test_features_by_their_gain(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("feature,gain,split\n" + "".join(f"f{n},{n},1\n" for n in range(11)))
    shares = look_at_importances(tmp_path)
    assert next(iter(shares.items())) == ("f10", 10 / 55)
    assert shares["f0"] == 0
    told = list(importance_details(shares, ASCII))
    assert told[0] == f"Gain     f10   18%  {'#' * BAR}"
    assert told[4] == f"         f6    11%  {'#' * 14}"
    assert told[-1] == "         2 more features  5%"
    assert list(importance_details({}, ASCII)) == []


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", "feature,gain\nx,much\n", "feature,gain\nx,nan\ny,-1\nz,inf\n", "feature,gain\nx\n", "\0", '"'],
)
def test_a_file_that_is_no_list_of_features(tmp_path: Path, content: str) -> None:
    assert look_at_importances(tmp_path) == {}
    (tmp_path / FILE).write_text(content)
    assert look_at_importances(tmp_path) == {}
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)  # it is not waited for
    assert look_at_importances(tmp_path) == {}


def test_names_of_features_are_harmless() -> None:
    assert all(line.isprintable() for line in importance_details({HOSTILE: 0.5, "x" * 99: 0.5}, FANCY))


DAY = dt.date(2022, 1, 1)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (Usage(0.5, 300 << 20), "0.50 s of CPU, 300 MiB at most"),
        (Usage(0.5, 300 << 20, 2 << 30), "0.50 s of CPU, 300 MiB at most, 2048 MiB of the GPU's"),
        (Usage(0.5, 300 << 20, 2 << 30, 0.25), "0.50 s of CPU, 300 MiB at most, 2048 MiB of the GPU's, 0.25 s of GPU"),
    ],
)
def test_what_an_attempt_cost(usage: Usage, told: str) -> None:
    attempt = AttemptLine(
        attempt=1,
        slot=Slot(0, "GPU-1"),
        placed_at=1.0,
        pid=7,
        started_at=1.0,
        ended_at=2.0,
        ending="result",
        message=None,
        traceback=None,
        usage=usage,
    )
    detail = WindowDetail(
        window=line("A"),
        plan=PlannedWindow(window=Window("A", DAY, DAY)),
        state=Queued(),
        story=(),
        attempts=(attempt,),
    )
    assert f"         {told}" in list(window_details(detail, Path("logs")))


def test_what_a_window_gave() -> None:
    result = WindowResult(
        artifacts_path="/srv/out/A",
        metrics={
            "gain": 2,
            "train": {"f1": None, "auc": 0.97},
            "validation": {"accuracy": 0.54, "auc": 0.5321, "at": {"10": {"lift": 2.5}}},
        },
        sample_counts={},
        fingerprint=None,
        device_type="cuda",
        device="GPU-1",
        phases={"load": 0.0021, "boosting": 0.25},
        seconds=0.3,
    )
    detail = WindowDetail(
        window=line("A", "succeeded"),
        plan=PlannedWindow(window=Window("A", DAY, DAY), bars=100, usable_rows=90),
        state=Finished(attempts=1, outcome=Succeeded(result=result)),
        story=(StoryLine(at=7.0, old="running", new="succeeded", attempt=1, reason="done"),),
        attempts=(),
    )
    assert list(window_details(detail, Path("logs"), lambda at: f"{at:g}s ago"))[3:] == [
        "Trained  as cuda: load 0.002 s, boosting 0.250 s",
        "Metrics  gain 2",
        "Metrics  train: auc 0.970, f1 –",
        "Metrics  validation: auc 0.532, accuracy 0.540, at.10.lift 2.500",
        "Output   /srv/out/A",
        "    7s ago  running → succeeded  done",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 3), (5, 1)])
def test_the_page_of_a_device_never_exceeds_the_screen(width: int, height: int, encoding: str) -> None:
    (status,) = pool(gpu(0, capacity=4))
    status = msgspec.structs.replace(status, reason=HOSTILE, health="quarantined")
    recent = Recent()
    for second in range(700):
        recent.add(Reading(device_id="GPU-0", at=NOW + second, utilisation=second % 100 / 100, temperature_c=61.0))
    for known in (status, None):
        frame = DeviceFrame(status=known, samples=recent.of("GPU-0"), now=NOW, above=3)
        shown = drawn(frame, width, height, encoding=encoding).split("\n")
        assert len(shown) <= max(height, 2)
        assert all(cell_len(line) <= width and line.isprintable() for line in shown)
        assert encoding == "utf-8" or "".join(shown).isascii()


def test_ten_minutes_of_a_device_have_their_least_mean_and_greatest_values() -> None:
    (status,) = pool(gpu(0))
    recent = Recent()
    for second in range(0, 600, 2):
        recent.add(Reading(device_id="GPU-0", at=NOW + second, utilisation=second / 600, power_w=100.0 + second))
    shown = drawn(DeviceFrame(status=status, samples=recent.of("GPU-0"), now=NOW), 80, 24)
    assert "     0    50   100 %│" in shown
    assert "   100   399   698 W│" in shown, "without a limit the greatest value is the height"
    assert " mem " not in shown, "it was not told"
    assert " temp " not in shown


def test_a_device_of_a_node_is_named_with_it() -> None:
    assert device_name("GPU-1a2b3c4d-5e6f", "n2") == "n2:GPU-1a2b3c4d"
    assert device_name("cpu@n2", "n2") == "cpu@n2"
    assert device_name("GPU-1a2b3c4d-5e6f") == "GPU-1a2b3c4d"
