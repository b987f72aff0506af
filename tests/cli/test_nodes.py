"""The lines of `nodes`."""

from __future__ import annotations

from gpusched.cli.commands.nodes import NodeLine, node_lines
from gpusched.core.model import Device, Health, Slot, WindowKey
from gpusched.protocol import DeviceStatus, Trouble


def status(device_id: str, host: str, health: Health, *, taken: int = 0) -> DeviceStatus:
    gpu = device_id.startswith("GPU")
    device = Device(
        id=device_id,
        name="a card" if gpu else "a processor",
        kind="nvidia" if gpu else "host",
        host=host,
        lightgbm_type="cpu",
        capacity=2,
    )
    slots = (Slot(0, device_id), Slot(1, device_id))
    return DeviceStatus(
        device=device,
        health=health,
        reason="" if health == "open" else f"it is {health}",
        slots=slots,
        allocations={slot.index: WindowKey("b", f"w{slot.index}") for slot in slots[:taken]},
        reading=None,
        width=2,
    )


def test_a_node_is_as_well_as_its_best_device() -> None:
    devices = [
        status("GPU-1", "n1", "quarantined"),
        status("cpu@n1", "n1", "open", taken=1),
        status("cpu@n2", "n2", "silent", taken=2),
    ]
    out = Trouble(kind="node", about="n3", text="the node n3 is refused: it is full", since=0.0)
    cluster = Trouble(kind="node", about="", text="the cluster is lost", since=0.0)
    assert list(node_lines(devices, [out, cluster])) == [
        NodeLine(node="n1", health="open", gpus=1, slots=4, slots_used=1, processor="a processor", reason=""),
        NodeLine(
            node="n2", health="silent", gpus=0, slots=2, slots_used=2, processor="a processor", reason="it is silent"
        ),
        NodeLine(node="n3", health="out", gpus=0, slots=0, slots_used=0, processor="", reason=out.text),
    ]
