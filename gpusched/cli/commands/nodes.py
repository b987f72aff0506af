"""The nodes of a cluster: `nodes`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import msgspec

from gpusched.cli.sources import to_daemon
from gpusched.client.drawing.listing import print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.errors import DONE
from gpusched.protocol import DeviceStatus, Trouble

#: from the best to the worst: a node is as well as its best device
_HEALTHS = ("open", "trying", "draining", "suspect", "quarantined", "silent", "gone")


class NodeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster."""

    #: empty: the daemon's machine, where there is no cluster
    node: str
    #: health of its best device, or "out": it is not in the pool
    health: str
    gpus: int
    slots: int
    slots_used: int
    #: name of its processors
    processor: str
    #: why it is not open
    reason: str


def nodes(options: argparse.Namespace) -> int:
    """Print the nodes whose devices are in the pool, and those that are not, with the reasons."""
    with to_daemon(options) as daemon:
        lines = sorted(node_lines(daemon.devices(), daemon.ping().troubles), key=lambda line: line.node)
    if options.json:
        print_json({"nodes": lines})
        return DONE
    rows = [
        (
            line.node or "this machine",
            line.health,
            line.gpus,
            f"{line.slots_used}/{line.slots}",
            line.processor,
            line.reason,
        )
        for line in lines
    ]
    print_listing(("node", "health", "gpus", "slots", "processor", "reason"), rows, styles=STYLES)
    return DONE


def node_lines(devices: Iterable[DeviceStatus], troubles: Iterable[Trouble]) -> Iterator[NodeLine]:
    by_node: dict[str, list[DeviceStatus]] = {}
    for status in devices:
        by_node.setdefault(status.device.host, []).append(status)
    for node, own in by_node.items():
        best = min(own, key=lambda status: _HEALTHS.index(status.health))
        yield NodeLine(
            node=node,
            health=best.health,
            gpus=sum(status.device.kind != "host" for status in own),
            slots=sum(status.width for status in own),
            slots_used=sum(status.busy for status in own),
            processor=next((status.device.name for status in own if status.device.kind == "host"), ""),
            reason=best.reason,
        )
    for trouble in troubles:
        if trouble.kind == "node" and trouble.about and trouble.about not in by_node:
            yield NodeLine(
                node=trouble.about, health="out", gpus=0, slots=0, slots_used=0, processor="", reason=trouble.text
            )
