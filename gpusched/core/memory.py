"""A memory that windows share, a GPU's or the host's: what is promised of it, what is seen used, and who fits.

A window that has just started has not allocated yet, so what it is expected to need is promised to it, and owed until
it is seen to use it. A reading tells what is free; less what is owed, that is the room for the next window.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: a need larger than this share of the memory is cut to it, or the window could never be placed
LARGEST_SHARE = 0.9
#: no process can even open a GPU with less: CUDA's context alone takes some hundred MiB
LEAST_DEVICE_BYTES = 256 << 20
#: the least that a window process takes of the host beyond what it shares with its launcher
LEAST_HOST_BYTES = 32 << 20


class Need(msgspec.Struct, frozen=True):
    """What a window needs of a memory; 0 bytes: nothing is known."""

    memory_bytes: int = 0
    #: no other window may use the memory meanwhile
    alone: bool = False


NOTHING = Need()


class Memory:
    """The ledger of one memory. Its users are windows, by the indexes of their slots.

    `lasting`: what others use of it stays used. A need is then cut to what they leave; otherwise to what the memory
    has in all, and the window waits until they have gone.
    """

    def __init__(self, least_bytes: int, *, lasting: bool = False) -> None:
        self._least_bytes = least_bytes
        self._lasting = lasting
        self.promised: dict[int, Need] = {}
        self._seen: dict[int, int] = {}
        self._peaks: dict[int, int] = {}
        #: promised to windows that have not been seen to use it yet, and seen to be used by windows
        self.reserved_bytes = self.seen_bytes = 0
        self._total_bytes: int | None = None
        self._free_bytes: int | None = None
        #: what was free without our windows when that was last known, None: it never was
        self._empty_bytes: int | None = None

    def promise(self, index: int, need: Need) -> None:
        """Set aside what the window in slot `index` needs."""
        self.promised[index] = need
        self.reserved_bytes += need.memory_bytes

    def release(self, index: int) -> Need:
        """Forget the window in slot `index`, which has gone; what was promised to it. What it used is free."""
        if self._free_bytes is not None:
            self._free_bytes += self._seen.get(index, 0)
        self._see(index, 0)
        del self._seen[index]
        self._peaks.pop(index, None)
        need = self.promised.pop(index)
        self.reserved_bytes -= need.memory_bytes
        return need

    def observe(self, total_bytes: int | None, free_bytes: int | None, used: Mapping[int, int] | None) -> None:
        """Take in a reading. `used`: by our windows that run, None where it does not tell whose the memory is."""
        self._total_bytes, self._free_bytes = total_bytes, free_bytes
        if used is not None or not self.promised:
            self._empty_bytes = free_bytes
        for index, bytes_ in (used or {}).items():
            # One that uses nothing now may still want what it was promised.
            self._see(index, bytes_)
            self._peaks[index] = max(bytes_, self._peaks.get(index, 0))
            if self._empty_bytes is not None:
                self._empty_bytes += bytes_

    def forget_reading(self) -> None:
        """What was read is too old: it vetoes nothing any more."""
        self._total_bytes = self._free_bytes = self._empty_bytes = None
        for index in self._seen:
            self._see(index, 0)

    def _see(self, index: int, bytes_: int) -> None:
        old, promised = self._seen.get(index, 0), self.promised[index].memory_bytes
        self.reserved_bytes += max(0, promised - bytes_) - max(0, promised - old)
        self.seen_bytes += bytes_ - old
        self._seen[index] = bytes_

    def peak_bytes(self, index: int) -> int | None:
        """The most that the window in slot `index` was seen to use, None if it was not seen to use any."""
        return self._peaks.get(index) or None

    def free_bytes(self) -> int | None:
        """What is free net of reservations, None where that is not told."""
        return None if self._free_bytes is None else self._free_bytes - self.reserved_bytes

    def room_for(self, need: Need) -> bool:
        """Whether a window fits now."""
        if self.promised and (need.alone or self._is_taken_alone):
            return False
        return self._is_enough(self.free_bytes(), need.memory_bytes)

    @property
    def _is_taken_alone(self) -> bool:
        return len(self.promised) == 1 and next(iter(self.promised.values())).alone

    def room_when_empty(self, need: Need) -> bool:
        """Whether a window would fit if ours were gone."""
        return self._is_enough(self._empty_bytes, need.memory_bytes)

    def least(self, memory_bytes: int) -> int:
        """What to promise to a window that is expected to need so much."""
        return max(memory_bytes, self._least_bytes)

    def _is_enough(self, free: int | None, memory_bytes: int) -> bool:
        if free is None:
            return True
        most = self._empty_bytes if self._lasting else self._total_bytes
        needed = memory_bytes if most is None else min(memory_bytes, int(most * LARGEST_SHARE))
        return free >= max(needed, self._least_bytes)

    def validate(self) -> None:
        """Raise AssertionError unless the sums are right, and who is to be alone is."""
        owed = sum(max(0, need.memory_bytes - self._seen.get(i, 0)) for i, need in self.promised.items())
        assert (self.reserved_bytes, self.seen_bytes) == (owed, sum(self._seen.values()))
        assert self._seen.keys() <= self.promised.keys()
        assert len(self.promised) <= 1 or not any(need.alone for need in self.promised.values())
