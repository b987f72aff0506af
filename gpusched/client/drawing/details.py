"""All that is known of one window, and of one device, as lines of text: for `gpusched show` and for `gpusched top`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.cells import cell_len

from gpusched.client.drawing.listing import iso
from gpusched.client.drawing.logs import WROTE_NOTHING, written_log
from gpusched.client.drawing.plain import clean
from gpusched.client.drawing.text import Glyphs, duration, key_metrics
from gpusched.core.model import Reading, Slot, WindowResult
from gpusched.core.statuses import result_of
from gpusched.core.totals import flat
from gpusched.core.wording import counted
from gpusched.protocol import AttemptLine, DeviceStatus, WindowDetail

#: features that are shown, and the cells of the longest bar
SHOWN_FEATURES, BAR = 8, 24


def window_details(detail: WindowDetail, logs_dir: Path, when: Callable[[float], str] = iso) -> Iterator[str]:
    """A window's state, data, result, attempts and story.

    `logs_dir` has the logs of its batch, `when` says instants.
    """
    window, plan = detail.window, detail.plan
    yield f"Window   {clean(str(window.key))}"
    yield f"Status   {window.status}" + (f": {clean(window.reason)}" if window.reason else "")
    if detail.choice is not None and detail.choice.reason:
        yield f"Device   {detail.choice.device}: {clean(detail.choice.reason)}"
    if detail.parameters:
        yield f"Point    {clean(', '.join(f'{key} = {value}' for key, value in detail.parameters.items()))}"
    if plan.bars or plan.skip_reason or plan.refusal:  # not those of a workload that looks at no data
        yield f"Data     {plan.bars} bars, {plan.usable_rows} usable rows"
    if plan.doubt:
        yield f"         {clean(plan.doubt)}"
    for note in detail.notes:
        yield f"         {clean(note.text)}"
    if plan.remedy and window.status in ("skipped", "failed"):
        yield f"Remedy   {clean(plan.remedy)}"
    if (result := result_of(detail.state)) is not None:
        yield from _result(result)
    for attempt in detail.attempts:
        yield from _attempt(attempt, written_log(logs_dir, window.key.label, attempt.attempt, attempt.slot.node))
    for step in detail.story:
        yield f"{when(step.at):>10}  {step.old} → {step.new}  {clean(step.reason)}"


def importance_details(importances: Mapping[str, float], draw: Glyphs) -> Iterator[str]:
    """The features that a model gained most by, with their shares of the gain as bars: as long as the largest."""
    shares = [(name, share) for name, share in importances.items() if share]
    shown = shares[:SHOWN_FEATURES]
    cells = max((cell_len(draw.clean(name)) for name, _ in shown), default=0)
    for number, (name, share) in enumerate(shown):
        bar = draw.filled * max(1, round(BAR * share / shown[0][1]))
        yield f"{'Gain' if number == 0 else '':<9}{draw.crop(draw.clean(name), min(cells, 30))}  {share:>4.0%}  {bar}"
    if len(shares) > len(shown):
        rest = sum(share for _, share in shares[SHOWN_FEATURES:])
        yield f"{'':<9}{len(shares) - len(shown)} more features  {rest:.0%}"


def health(status: DeviceStatus, now: float) -> str:
    """A device's health, for people; with the seconds that its trial takes already."""
    return f"trying ({max(0.0, now - status.since_at):.0f} s)" if status.health == "trying" else status.health


def _result(result: WindowResult) -> Iterator[str]:
    phases = ", ".join(f"{clean(name)} {seconds:.3f} s" for name, seconds in result.phases.items())
    yield f"Trained  as {result.device_type}" + (f": {phases}" if phases else "")
    parts = {name: part for name, part in result.metrics.items() if isinstance(part, dict)}
    rest = {name: number for name, number in result.metrics.items() if name not in parts}
    for name, part in [("", rest), *parts.items()]:
        deep = dict(flat(part))
        if numbers := ", ".join(f"{clean(metric)} {number}" for metric, number in key_metrics(deep, len(deep))):
            yield f"Metrics  {clean(name)}{': ' if name else ''}{numbers}"
    yield f"Output   {clean(result.artifacts_path)}"


def _attempt(attempt: AttemptLine, log: Path | None) -> Iterator[str]:
    end, usage = attempt.ended_at, attempt.usage
    took = f", {duration(end - attempt.placed_at)}" if end is not None else ""
    ending = f", {attempt.ending}" if attempt.ending else ""
    yield f"Attempt  {attempt.attempt} {clean(_place(attempt.slot))}{took}{ending}"
    if usage is not None and usage.peak_memory_bytes:
        memory = f", {_mib(usage.device_memory_bytes)} of the GPU's" if usage.device_memory_bytes is not None else ""
        busy = f", {usage.device_seconds:.2f} s of GPU" if usage.device_seconds is not None else ""
        yield f"         {usage.cpu_seconds:.2f} s of CPU, {_mib(usage.peak_memory_bytes)} at most{memory}{busy}"
    if attempt.message:
        yield f"         {clean(attempt.message)}"
    yield f"         log: {clean(str(log))}" if log is not None else f"         it {WROTE_NOTHING}"
    for line in (attempt.traceback or "").splitlines():
        yield f"         | {clean(line)}"


def _place(slot: Slot) -> str:
    """The slot of an attempt, and its device."""
    where = "ahead" if slot.waits else f"on slot {slot.index}"
    node = slot.node if slot.node and not slot.device_id.endswith(f"@{slot.node}") else ""
    return f"{where} ({slot.device_id}{f' on node {node}' if node else ''})"


def device_details(status: DeviceStatus, now: float) -> Iterator[str]:
    """A device's health, slots and memory, and the windows on it, at the Unix time `now`."""
    device, reading = status.device, status.reading
    where = f" at {clean(device.pci_bus_id)}" if device.pci_bus_id else ""
    yield f"Device   {clean(device.id)}" + (f" on node {clean(device.host)}" if device.host else "")
    yield f"Name     {clean(device.name)}{where}, LightGBM's device type is {device.lightgbm_type}"
    if driver := ", ".join(filter(None, (device.driver, device.modes))):
        yield f"Driver   {clean(driver)}"
    yield f"Health   {health(status, now)}" + (f": {clean(status.reason)}" if status.reason else "")
    idle = [slot.index for slot in status.slots if slot.index not in status.allocations]
    free = idle[: max(0, status.width - len(status.allocations))]
    most = f" of {len(status.slots)}, tuned while windows run" if device.tuned_from else ""
    ahead = f" {status.ahead} more windows wait for one," if status.ahead else ""
    threads = counted(device.threads, "thread")
    yield f"Slots    {status.width}{most}: {status.busy} held, {len(free)} free,{ahead} {threads} each"
    if device.cpus:
        yield f"Cores    {', '.join(map(str, device.cpus))}"
    if device.memory_total_bytes is not None:
        room = reading.memory_free_bytes if reading else None
        yield (
            f"Memory   {_mib(device.memory_total_bytes)}: {_mib(room)} free, {_mib(status.reserved_bytes)} promised to"
            f" windows, {_mib(status.foreign_bytes)} of other processes"
        )
    if reading is not None:
        yield from _reading(reading, now)
    for index, key in sorted(status.allocations.items()):
        yield f"Slot     {index}: {clean(str(key))}"
    for index in free:
        yield f"Slot     {index}: free"


def _reading(reading: Reading, now: float) -> Iterator[str]:
    use = f"{100 * reading.utilisation:.0f} %" if reading.utilisation is not None else "not reported"
    hot = f", {reading.temperature_c:.0f} C" if reading.temperature_c is not None else ""
    limit = f" of {reading.power_limit_w:.0f}" if reading.power_limit_w is not None else ""
    watt = f", {reading.power_w:.0f}{limit} W" if reading.power_w is not None else ""
    fan = f", fan {100 * reading.fan:.0f} %" if reading.fan is not None else ""
    yield f"Reading  {use}{hot}{watt}{fan}, {duration(now - reading.at)} ago"
    for process in reading.foreign:
        who = clean(process.user) or "somebody"
        yield f"Foreign  {process.pid} of {who}, {_mib(process.memory_bytes)}: {clean(process.command) or 'gone'}"


def _mib(count: int | None) -> str:
    return "an unknown part" if count is None else f"{count / 2**20:.0f} MiB"
