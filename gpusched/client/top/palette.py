"""The command palette: everything that keys do, and every batch and device, found by a few letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from gpusched.client.top.desk import Desk
from gpusched.client.top.details import DevicePage
from gpusched.client.top.lists import WindowsPage

#: name, explanation, action of the page
_ACTIONS = (
    ("Open", "the chosen row", "open"),
    ("Cancel", "the marked rows or the chosen one; asks first", "change('cancel')"),
    ("Retry", "what failed or was cancelled of them; asks first", "change('retry')"),
    ("Hold or release", "the marked rows or the chosen one", "change('hold')"),
    ("Mark", "the chosen row, so that keys act upon all that are marked", "mark"),
    ("Drain or open the device", "drain asks first", "drain"),
    ("Find", "only lines with some words", "look_for"),
    ("Sort", "in another order", "sort"),
    ("Metric", "show another one", "metric"),
    ("Status", "only windows in another state", "status"),
    ("Follow", "a log to its end, or stop there", "follow"),
    ("Help", "all keys", "app.help"),
    ("Quit", "everything goes on", "app.leave"),
)


class Commands(Provider):
    """Actions of the page below the palette, and pages to go to."""

    async def discover(self) -> Hits:
        for name, help_, action in _ACTIONS:
            yield DiscoveryHit(name, partial(self.screen.run_action, action), help=help_)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, help_, command in self._everything():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), command, help=help_)

    def _everything(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        for name, help_, action in _ACTIONS:
            yield name, help_, partial(self.screen.run_action, action)
        desk = cast("Desk", self.app)
        for batch_id in desk.overview.batches:
            yield f"Batch {batch_id}", "its windows", partial(_open, desk, WindowsPage, batch_id)
        for device_id in desk.overview.devices:
            yield f"Device {device_id}", "its readings", partial(_open, desk, DevicePage, device_id)


def _open(desk: Desk, page: type[WindowsPage | DevicePage], name: str) -> None:
    """Made only when it is chosen."""
    desk.open(page(name))
