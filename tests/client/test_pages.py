"""The pages and boxes of `gpusched top` that Textual lays out, compared with frames that a person has read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest
from rich.cells import cell_len
from textual.containers import VerticalScroll
from textual.screen import Screen

from gpusched.client.connection import NoDaemon
from gpusched.client.top import details as detail_pages
from gpusched.client.top.app import Top
from gpusched.client.top.boxes import Help, Question
from gpusched.client.top.details import DevicePage, WindowPage
from gpusched.client.top.page import Page
from gpusched.core.model import PlannedWindow, Reading, Slot, Window, WindowKey
from gpusched.core.states import Failed, Finished, Usage
from gpusched.protocol import AttemptLine, DeviceStatus, LogChunk, StoryLine, WindowDetail
from tests.client.scenes import HOST, pool, scene
from tests.client.support import console
from tests.client.test_screens import check
from tests.client.test_windows import line
from tests.core.support import DAY, failure, gpu, key

SIZES = pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])
TRACEBACK = "Traceback (most recent call last):\n  File \"/data/read.py\", line 31, in read\nBadData: 3 gaps in 'close'"
STORY = (("queued", "starting", "on slot 1"), ("starting", "running", "started"), ("running", "failed", "ended"))
LOG = b"reading 860 files\n[LightGBM] [Info] Number of positive: 61, number of negative: 84\n" + b"round\n" * 30


class Canned:
    """Answers as a daemon would that has one failed window and one device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def abort(self) -> None: ...

    def window(self, batch_id: str, label: str) -> WindowDetail:
        symbol = label.split("_")[0]
        attempts = [
            AttemptLine(
                attempt=number,
                slot=Slot(number, "GPU-0"),
                placed_at=1e9 + 10 * number,
                pid=4000 + number,
                started_at=1e9 + 10 * number,
                ended_at=1e9 + 10 * number + 4.2,
                ending="bad_data",
                message="3 gaps in 'close'",
                traceback=TRACEBACK,
                usage=Usage(cpu_seconds=3.5, peak_memory_bytes=300 << 20),
            )
            for number in (1, 2)
        ]
        told = [
            StoryLine(at=1e9 + number, old=old, new=new, attempt=1, reason=why)
            for number, (old, new, why) in enumerate(STORY)
        ]
        return WindowDetail(
            window=line(
                symbol, "failed", key=WindowKey(batch_id, label), failure=failure("bad_data", "3 gaps in 'close'")
            ),
            plan=PlannedWindow(window=Window(symbol, DAY, DAY), bars=182, usable_rows=175),
            state=Finished(attempts=2, outcome=Failed(failure=failure("bad_data", "3 gaps in 'close'"))),
            story=tuple(told),
            attempts=tuple(attempts),
        )

    def log(self, *_: object, **__: object) -> Iterator[LogChunk]:
        yield LogChunk(attempt=2, offset=0, data=LOG)

    def devices(self) -> tuple[DeviceStatus, ...]:
        reading = Reading(
            device_id="GPU-0",
            at=time.time() - 3 * 3600 - 7 * 60 - 30,
            memory_total_bytes=48 << 30,
            memory_free_bytes=36 << 30,
            utilisation=0.98,
            temperature_c=61.0,
            power_w=240.0,
        )
        (status,) = pool(gpu(0, capacity=4))
        device = msgspec.structs.replace(
            status.device, name="NVIDIA RTX PRO 6000 Blackwell", pci_bus_id="0000:01:00.0", memory_total_bytes=48 << 30
        )
        return (
            msgspec.structs.replace(
                status,
                device=device,
                health="draining",
                reason="by request of somebody who wants to have the card alone for the rest of the afternoon",
                reading=reading,
                reserved_bytes=6 << 30,
                allocations={1: key("SYM01", "newer"), 2: WindowKey("newer", "SYM02" * 20)},
            ),
        )


@pytest.fixture(autouse=True)
def _canned(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(path: object) -> None:
        raise NoDaemon(tried="nowhere")

    monkeypatch.setattr(detail_pages, "connect", lambda path: Canned())
    monkeypatch.setattr("gpusched.client.top.app.connect", nobody)
    monkeypatch.setattr(Top, "monotonic", scene().at)
    monkeypatch.setattr(Top, "clock", "14:02:11")
    monkeypatch.setattr("gpusched.client.top.app.look_at_host", lambda state_dir: HOST)


async def shown(screen: Screen[None] | Screen[bool], width: int, height: int, encoding: str = "utf-8") -> str:
    """The screen as it is on a terminal, in front of the first page."""
    top = Top(console(width, height, encoding=encoding), Path("s"))
    top.overview, top.state_dir, top.words = scene().overview, Path("/var/lib/gpusched"), "gpusched 1.0 at /run/s"
    async with top.run_test(size=(width, height)) as keys:
        await top.push_screen(screen)
        await top.workers.wait_for_complete()
        for page in top.screen_stack:
            if isinstance(page, Page):
                page.redraw()
        await keys.pause()
        strips = screen._compositor.render_strips()  # there is no other way to the text
        return "\n".join(strip.text.rstrip() for strip in strips)


@SIZES
async def test_a_window(width: int, height: int) -> None:
    label = key("SYM01").label
    check("window", width, await shown(WindowPage("newer", label), width, height))


@SIZES
async def test_a_device(width: int, height: int) -> None:
    check("device", width, await shown(DevicePage("GPU-0"), width, height))


@SIZES
async def test_help(width: int, height: int) -> None:
    check("help", width, await shown(Help(plain=False), width, height))


@SIZES
async def test_a_question(width: int, height: int) -> None:
    check("question", width, await shown(Question("Cancel newer?", plain=False), width, height))


@pytest.mark.parametrize(("width", "height"), [(80, 24), pytest.param(200, 50, marks=pytest.mark.thorough)])
async def test_all_of_them_in_ascii(width: int, height: int) -> None:
    boxes = (Help(plain=True), Question("Cancel “東京”?", plain=True))
    for screen in (WindowPage("newer", key("東京").label), DevicePage("GPU-0"), *boxes):
        drawn = await shown(screen, width, height, "ascii")
        assert drawn.isascii()
        assert max(cell_len(text) for text in drawn.split("\n")) <= width


async def test_help_scrolls_on_a_low_screen() -> None:
    top = Top(console(), Path("s"))
    async with top.run_test(size=(80, 12)) as keys:
        await keys.press("question_mark", "pagedown", "j", "down", "up")
        assert top.screen.query_one(VerticalScroll).scroll_y == 2


async def test_a_page_is_drawn_as_soon_as_it_is_there_and_not_before() -> None:
    top = Top(console(), Path("s"))
    async with top.run_test(size=(80, 24)) as keys:
        top.open(DevicePage("GPU-0"))
        top._draw()
        await top.workers.wait_for_complete()
        await keys.pause()
        top._draw()
        await keys.pause()
        assert any("GPU-0" in strip.text for strip in top.screen._compositor.render_strips())


async def test_a_frame_that_is_due_when_the_last_page_is_closed_is_left_out() -> None:
    top = Top(console(80, 24, encoding="utf-8"), Path("s"))
    async with top.run_test(size=(80, 24)):
        pass
    assert not top._pages()
    top.changed = True
    top._draw()
    assert top.changed  # it was not drawn


async def test_a_page_without_a_single_cell_is_not_drawn() -> None:
    top = Top(console(80, 24, encoding="utf-8"), Path("s"))
    async with top.run_test(size=(80, 24)) as keys:
        page = DevicePage("GPU-0")
        await top.push_screen(page)
        await top.workers.wait_for_complete()
        assert page._status
        page.canvas.styles.display = "none"
        await keys.pause()
        assert not page.canvas.size.area
        page.redraw()
        assert top._exception is None
