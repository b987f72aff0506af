"""The devices of nodes in `devices` and `nodes`: where a GPU is, and the windows that wait there."""

from __future__ import annotations

import json

import pytest

from gpusched.cli.commands.nodes import node_lines
from gpusched.cli.commands.queries import print_devices
from gpusched.core.model import Slot, WindowKey
from gpusched.protocol import DeviceStatus
from tests.core.support import gpu


def status(held: int, host: str = "n2") -> DeviceStatus:
    return DeviceStatus(
        device=gpu(0, 2, host=host),
        health="open",
        reason="",
        slots=tuple(Slot(index, "GPU-0") for index in range(8)),
        allocations={index: WindowKey("b", f"W{index}") for index in range(held)},
        reading=None,
        width=2,
    )


def test_a_gpu_is_listed_with_its_node_and_with_the_windows_that_are_ahead(capsys: pytest.CaptureFixture[str]) -> None:
    print_devices((status(4),), as_json=False)
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split("\t")[-1] == "node"
    assert line.split("\t")[-1] == "n2"
    assert "2/2 +2" in line


def test_here_nothing_is_said_of_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    print_devices((status(1, host=""),), as_json=False)
    heading, line = capsys.readouterr().out.splitlines()
    assert "node" not in heading
    assert "\t1/2\t" in line


def test_windows_that_are_ahead_use_no_slot(capsys: pytest.CaptureFixture[str]) -> None:
    print_devices((status(4),), as_json=True)
    (device,) = json.loads(capsys.readouterr().out)["devices"]
    assert (device["slots"], device["slots_used"], len(device["running"])) == (2, 2, 4)
    (node,) = node_lines((status(4),), ())
    assert (node.slots, node.slots_used) == (2, 2)
