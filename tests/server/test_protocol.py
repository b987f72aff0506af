"""Frames: each survives encoding and decoding, those of an older version are understood, other bytes are refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.core.events import (
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    DeviceChanged,
    DeviceTuned,
    ProgressReported,
    WindowMoved,
)
from gpusched.core.model import BatchSpec, Device, PlannedWindow, Reading, Slot, Window, WindowKey, WindowResult
from gpusched.core.reasons import DeviceReason, Explanation, Hindrance
from gpusched.core.samples import Sample
from gpusched.core.states import Failed, Failure, Finished, Queued, Running, Skipped, Usage
from gpusched.protocol import (
    PROTOCOL,
    AttemptLine,
    BadFrame,
    BatchAnnounced,
    BatchDetail,
    Batches,
    BatchStatus,
    Change,
    Changed,
    ChangeDevice,
    DeviceReported,
    Devices,
    DeviceStatus,
    End,
    Explained,
    ExplainWindow,
    Forget,
    Forgotten,
    GetBatch,
    GetHistory,
    GetResults,
    GetWindow,
    Hello,
    History,
    ListBatches,
    ListDevices,
    ListWindows,
    LogChunk,
    Ping,
    Pong,
    Problem,
    ReadLog,
    Reply,
    Request,
    Snapshot,
    StoryLine,
    Submit,
    Submitted,
    Subscribe,
    Surveyed,
    Welcome,
    WindowDetail,
    WindowLine,
    WindowPage,
    decode_hello,
    decode_reply,
    decode_request,
    encode,
)

FRAMES = {protocol: Path(__file__).with_name(f"frames_{protocol}.jsonl") for protocol in (1, 2)}

DAY = dt.date(2022, 1, 1)
KEY = WindowKey("batch-1", "M&M_2022-01-01_to_2022-06-29")
SPEC = BatchSpec(
    symbols=("M&M", "TCS"),
    start=DAY,
    end=DAY,
    window_days=180,
    data_root="/data",
    workload="gpusched.teacher:train_window",
    settings={"training": {"rounds": 500}, "label": [0.02, None, True]},
)
STATUS = BatchStatus(
    id="batch-1",
    output_dir="/out/batch-1",
    submitted_at=1.5,
    state="held",
    held_reason="by request",
    finished_at=None,
    counts={"queued": 3, "failed": 1},
)
SLOT = Slot(1, "GPU-1")
LINE = WindowLine(
    key=KEY,
    symbol="M&M",
    start=DAY,
    end=DAY,
    status="running",
    moved_at=2.5,
    usable_rows=90,
    attempts=2,
    slot=SLOT,
    pid=77,
    started_at=2.5,
)
RESULT = msgspec.structs.replace(
    LINE,
    status="succeeded",
    moved_at=3.5,
    ended_at=3.5,
    result=WindowResult(
        artifacts_path="/out/batch-1/x",
        metrics={"auc": 0.5, "f1": None},
        sample_counts={"train": 8},
        fingerprint="ff",
        device_type="gpu",
        device="GPU-1",
        phases={"load": 0.25},
        seconds=1.0,
    ),
    placed_at=2.25,
    seconds=1.0,
    usage=Usage(cpu_seconds=0.5, peak_memory_bytes=9),
)
REFUSED = WindowLine(
    key=KEY,
    symbol="M&M",
    start=DAY,
    end=DAY,
    status="failed",
    moved_at=3.5,
    usable_rows=90,
    attempts=0,
    failure=Failure(kind="bad_data", message="3 gaps"),
    remedy="mend them",
)
DEVICE = DeviceStatus(
    device=Device(id="GPU-1", name="A card", lightgbm_type="gpu", capacity=2, cpus=(0, 1), memory_total_bytes=1 << 35),
    health="draining",
    reason="drained by request",
    slots=(Slot(0, "GPU-1"), SLOT),
    allocations={1: KEY},
    reading=Reading(device_id="GPU-1", at=2.0, utilisation=0.5, process_memory_bytes={77: 1 << 30}),
)
FAILED = Finished(attempts=2, outcome=Failed(failure=Failure(kind="raised", message="no", traceback="line 1\nline 2")))
PROGRESS = ProgressReported(key=KEY, attempt=2, phase="train", round=3, rounds=500)

SAMPLE = Sample(
    device_id="GPU-1",
    at=1.5,
    seconds=2.0,
    readings=2,
    utilisation=0.5,
    memory_used_bytes=1 << 30,
    memory_total_bytes=8 << 30,
    power_w=None,
    temperature_c=60.0,
)

REQUESTS: list[Request] = [
    Submit(spec=SPEC, source="symbols", name="n", output_dir="/out"),
    Submit(spec=SPEC, source="symbols"),
    ListBatches(),
    GetBatch(batch_id="batch-1"),
    ListWindows(batch_id="batch-1", status="failed"),
    GetWindow(batch_id="batch-1", label=KEY.label),
    ReadLog(batch_id="batch-1", label=KEY.label, attempt=2, offset=99, follow=True),
    GetResults(batch_id="batch-1"),
    Change(verb="retry", batch_id="batch-1", label=KEY.label),
    Change(verb="cancel", batch_id="batch-1"),
    ListDevices(),
    ChangeDevice(verb="drain", device="GPU-1"),
    Subscribe(batch_id="batch-1"),
    Ping(),
    GetHistory(batch_id="batch-1"),
    GetHistory(),
    Forget(batch_id="batch-1", results=True),
    Forget(older_than_s=86400.0),
    ExplainWindow(batch_id="batch-1", label=KEY.label),
]
WELCOME = Welcome(protocol=1, version="0.1.0", pid=1, started_at=1.5, state_dir="/state")
PROBLEM = Problem(problem="no", remedy="do", exit_code=4)
REPLIES: list[Reply] = [
    WELCOME,
    PROBLEM,
    End(),
    Surveyed(done=1, total=2),
    Submitted(batch=STATUS, how="again"),
    Batches(batches=(STATUS,)),
    BatchDetail(batch=STATUS, spec=SPEC),
    WindowPage(windows=(LINE, RESULT, REFUSED)),
    WindowDetail(
        window=LINE,
        plan=PlannedWindow(window=Window("M&M", DAY, DAY), bars=100, usable_rows=90, fingerprint="ff"),
        state=FAILED,
        story=(StoryLine(at=1.0, old="queued", new="starting", attempt=1, reason="on slot 1"),),
        attempts=(
            AttemptLine(
                attempt=1,
                slot=SLOT,
                placed_at=1.0,
                pid=None,
                started_at=None,
                ended_at=2.0,
                ending="raised",
                message="no",
                traceback="line",
                usage=Usage(cpu_seconds=0.5, peak_memory_bytes=9),
            ),
        ),
    ),
    LogChunk(attempt=1, offset=3, data=b"\x00\xff\n"),
    Changed(batch=STATUS, windows=3),
    Devices(devices=(DEVICE,)),
    Pong(draining=True, active=1, unfinished=2, trouble="full"),
    Snapshot(at=1.0, batches=(STATUS,), active=(LINE,), progress=(PROGRESS,), devices=(DEVICE,)),
    WindowMoved(
        key=KEY,
        old=Running(attempt=2, slot=SLOT, pid=77, started_at=2.5),
        new=FAILED,
        reason="no",
        at=3.0,
        ending=Failure(kind="raised", message="no"),
        usage=Usage(),
    ),
    WindowMoved(
        key=KEY, old=Queued(), new=Finished(attempts=0, outcome=Skipped(reason="short")), reason="cancelled", at=3.0
    ),
    DeviceChanged(device_id="GPU-1", health="quarantined", reason="XID 79", at=4.0),
    DeviceReported(reading=Reading(device_id="GPU-1", at=2.0)),
    PROGRESS,
    BatchAnnounced(batch=STATUS),
    BatchHeld(batch_id="batch-1", reason="the last 10 windows failed", at=5.0),
    BatchReleased(batch_id="batch-1", at=6.0),
    BatchReopened(batch_id="batch-1", at=7.0),
    BatchFinished(batch_id="batch-1", at=8.0),
    History(samples=(SAMPLE,)),
    Forgotten(batches=("batch-1",), windows=3, results=2, kept=("/out/AAPL_2022-01-01_to_2022-06-29",)),
    DeviceTuned(device_id="GPU-1", slots=3, reason="3 slots: to see what that does", at=8.0),
    Explained(
        key=KEY,
        explanation=Explanation(
            status="queued",
            summary="waits for attempt 1",
            hindrances=(Hindrance("workers", "its batch runs 2 at a time"),),
            devices=(DeviceReason("GPU-1", "its slot is taken"), DeviceReason("cpu", None)),
        ),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_requests_survive_the_socket(request_: Request) -> None:
    line = encode(request_)
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=lambda r: type(r).__name__)
def test_replies_survive_the_socket(reply: Reply) -> None:
    line = encode(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


def understood(protocol: int, *names: str) -> list[object]:
    """The messages of a file of frames that was written by a protocol: all, or those with these tags."""
    decoders = {"hello": decode_hello, "request": decode_request, "reply": decode_reply}
    parted = [line.partition(b" ") for line in FRAMES[protocol].read_bytes().splitlines()]
    kept = tuple(f'{{"type":"{name}",'.encode() for name in names) or b""
    return [decoders[kind.decode()](frame) for kind, _, frame in parted if frame.startswith(kept)]


def test_frames_of_this_protocol_are_understood() -> None:
    """`frames_2.jsonl` must never be written anew once 0.2.0 is released: add a file for another protocol."""
    assert understood(PROTOCOL) == [Hello(protocol=2, version="0.2.0"), *REQUESTS, *REPLIES]


def test_sides_of_different_protocols_understand_the_frames_that_tell_them_so() -> None:
    """`frames_1.jsonl` was written by 0.1.0."""
    assert understood(1, "hello", "welcome", "error") == [Hello(protocol=1, version="0.1.0"), WELCOME, PROBLEM]


def test_fields_of_newer_versions_are_ignored() -> None:
    assert decode_request(b'{"type":"get_batch","batch_id":"b","since":3}') == GetBatch(batch_id="b")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b'{"type":"ping"',
        b'{"type":"victory"}',
        b'{"type":"get_batch"}',
        b'{"type":"get_batch","batch_id":3}',
        b'{"type":"get_batch","batch_id":"\xff"}',
        b'{"type":"get_batch","batch_id":"\\ud800"}',
        b'{"type":"ping","x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
        b'{"type":"submit","source":"s","spec":' + b'{"settings":' * 100_000,
    ],
    ids=lambda line: repr(line[:40]),
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_request(line)


@given(st.binary())
def test_any_bytes_are_a_message_or_refused(line: bytes) -> None:
    for decode in (decode_hello, decode_request, decode_reply):
        try:
            decode(line)
        except BadFrame:
            continue


def test_every_message_has_an_example() -> None:
    examples = {type(message) for message in (*REQUESTS, *REPLIES)}
    assert examples == {*get_args(Request), *get_args(Reply)}
