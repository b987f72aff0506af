"""The ledger of a memory that windows share, a GPU's or the host's: promised bytes, used bytes, and room for more.

A window that has just started has not allocated yet. So its expected need is promised to it, and the promise stays
reserved until readings show that the window uses the memory. Free memory by the last reading, less these reservations,
is the room for the next window.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: larger needs are cut to this share of the memory, since otherwise the window could never be placed
LARGEST_SHARE = 0.9
#: the least GPU memory for a process: CUDA's context alone takes some hundred MiB
LEAST_DEVICE_BYTES = 256 << 20
#: the least host memory for a window's process, beyond the part that it shares with its launcher
LEAST_HOST_BYTES = 32 << 20


class Need(msgspec.Struct, frozen=True, gc=False):
    """The part of a memory that a window needs; 0 bytes: not known."""

    memory_bytes: int = 0
    #: no other window may use the memory at the same time
    alone: bool = False


NOTHING = Need()


class Memory:
    """The ledger of one memory. Its users are windows, identified by the indexes of their slots.

    `lasting`: memory used by other programs stays used. A need is then cut to the part that they leave; otherwise to
    the whole memory, and the window waits until the other programs have gone.
    """

    def __init__(self, least_bytes: int, *, lasting: bool = False) -> None:
        self._least_bytes = least_bytes
        self._lasting = lasting
        self.promised: dict[int, Need] = {}
        self._seen: dict[int, int] = {}
        self._peaks: dict[int, int] = {}
        #: promised to windows but not in use by the last reading; in use by windows, by the last reading
        self.reserved_bytes = self.seen_bytes = 0
        self._total_bytes: int | None = None
        self._free_bytes: int | None = None
        #: free memory if none of our windows were there, by the last reading that allows the sum; None: none did
        self._empty_bytes: int | None = None

    def promise(self, index: int, need: Need) -> None:
        """Set memory aside for the window in slot `index`."""
        self.promised[index] = need
        self.reserved_bytes += need.memory_bytes

    def move(self, index: int, to: int) -> None:
        """Note that the window in slot `index`, whose process no reading knows yet, is in slot `to` now."""
        self.promised[to] = self.promised.pop(index)

    def release(self, index: int) -> Need:
        """Forget the window in slot `index`, which has gone, and count its memory as free; return its promise."""
        if self._free_bytes is not None:
            self._free_bytes += self._seen.get(index, 0)
        self._see(index, 0)
        del self._seen[index]
        self._peaks.pop(index, None)
        need = self.promised.pop(index)
        self.reserved_bytes -= need.memory_bytes
        return need

    def observe(self, total_bytes: int | None, free_bytes: int | None, used: Mapping[int, int] | None) -> None:
        """Take in a reading. `used`: bytes by slot index of our running windows; None: not known by process."""
        self._total_bytes, self._free_bytes = total_bytes, free_bytes
        if used is not None or not self.promised:
            self._empty_bytes = free_bytes
        if not used:
            return
        for index, bytes_ in used.items():
            # A window that uses nothing now keeps its promise, since it may still allocate.
            if bytes_ != self._seen.get(index):
                self._see(index, bytes_)
            if bytes_ > self._peaks.get(index, 0):
                self._peaks[index] = bytes_
        if self._empty_bytes is not None:
            self._empty_bytes += sum(used.values())

    def forget_reading(self) -> None:
        """Drop the last reading, which is too old to veto a placement."""
        self._total_bytes = self._free_bytes = self._empty_bytes = None
        for index in self._seen:
            self._see(index, 0)

    def _see(self, index: int, bytes_: int) -> None:
        old, promised = self._seen.get(index, 0), self.promised[index].memory_bytes
        self.reserved_bytes += max(0, promised - bytes_) - max(0, promised - old)
        self.seen_bytes += bytes_ - old
        self._seen[index] = bytes_

    def peak_bytes(self, index: int) -> int | None:
        """The highest reading of the window in slot `index`; None if no reading showed any use."""
        return self._peaks.get(index) or None

    def free_bytes(self) -> int | None:
        """Free memory net of reservations; None if no reading tells."""
        return None if self._free_bytes is None else self._free_bytes - self.reserved_bytes

    def room_for(self, need: Need) -> bool:
        """Whether a window with this need fits now."""
        if self.promised and (need.alone or self._is_taken_alone):
            return False
        return self._is_enough(self.free_bytes(), need.memory_bytes)

    def lack(self, need: Need) -> str:
        """Why there is no room for a window with this need, in words for people."""
        if self._is_taken_alone:
            return "a window there needs all of it"
        if need.alone and self.promised:
            return "the window needs all of it, and others are there"
        free = max(0, self.free_bytes() or 0)
        return f"{free / 2**20:.0f} MiB free, {self._needed(need.memory_bytes) / 2**20:.0f} MiB needed"

    @property
    def _is_taken_alone(self) -> bool:
        return len(self.promised) == 1 and next(iter(self.promised.values())).alone

    def room_when_empty(self, need: Need) -> bool:
        """Whether a window with this need would fit if all our windows had left."""
        return self._is_enough(self._empty_bytes, need.memory_bytes)

    def _is_enough(self, free: int | None, memory_bytes: int) -> bool:
        return free is None or free >= self._needed(memory_bytes)

    def _needed(self, memory_bytes: int) -> int:
        """The free memory that a window with this need waits for."""
        most = self._empty_bytes if self._lasting else self._total_bytes
        needed = memory_bytes if most is None else min(memory_bytes, int(most * LARGEST_SHARE))
        return max(needed, self._least_bytes)

    def validate(self) -> None:
        """Raise AssertionError unless the sums are right, and a window that is to be alone is alone."""
        owed = sum(max(0, need.memory_bytes - self._seen.get(i, 0)) for i, need in self.promised.items())
        assert (self.reserved_bytes, self.seen_bytes) == (owed, sum(self._seen.values()))
        assert self._seen.keys() <= self.promised.keys()
        assert len(self.promised) <= 1 or not any(need.alone for need in self.promised.values())
