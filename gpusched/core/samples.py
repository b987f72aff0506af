"""Histories of readings in bounded space: over a batch's duration, and of the last minutes. Pure.

Of a batch, each device has at most `MOST` samples. When that is reached, neighbours are merged, so that each sample
covers twice the time: a batch of seconds keeps every reading, one of days some hundred means. The store keeps the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from gpusched.core.model import Reading

Number = TypeVar("Number", int, float)

#: samples of one device at most
MOST = 512
#: seconds that a sample covers at first: the time between two readings
FINEST_S = 1.0
#: seconds that a sample of the last minutes covers, and the number of samples of a device: ten minutes
RECENT_S, RECENT = 2.0, 300
#: samples of the last minutes of all devices together, at most: with many devices, each has less
RECENT_OF_ALL = 20_000


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of a device from `at` on for `seconds`, summed up. Values that no reading has are None, never zero."""

    device_id: str
    #: wall clock
    at: float
    seconds: float
    readings: int
    #: mean, 0..1
    utilisation: float | None
    #: maximum
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    #: mean
    power_w: float | None
    #: maximum
    temperature_c: float | None


class History:
    """The samples of one batch, by device."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in samples:
            self._samples.setdefault(sample.device_id, []).append(sample)

    def add(self, reading: Reading) -> None:
        """Add a reading; the readings of a device must come in the order of time."""
        samples = self._samples.setdefault(reading.device_id, [])
        new = _sample(reading)
        if samples and new.at < samples[-1].at + samples[-1].seconds:
            samples[-1] = _merged(samples[-1], new, samples[-1].seconds)
            return
        if len(samples) >= MOST:
            samples[:] = _halved(samples)
        width = max((sample.seconds for sample in samples), default=FINEST_S)
        samples.append(msgspec.structs.replace(new, seconds=width))

    def samples(self) -> list[Sample]:
        """All samples, by device, in the order of time."""
        return [sample for samples in self._samples.values() for sample in samples]


class Recent:
    """The samples of the last minutes, by device."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples: dict[str, deque[Sample]] = {}
        for sample in samples:
            self.of(sample.device_id).append(sample)

    def of(self, device_id: str) -> deque[Sample]:
        """The samples of a device, the latest at the end."""
        samples = self._samples.get(device_id)
        if samples is None:
            samples = self._samples[device_id] = deque(maxlen=RECENT)
        return samples

    def add(self, reading: Reading) -> None:
        """Add a reading; the readings of a device must come in the order of time."""
        samples = self.of(reading.device_id)
        new = _sample(reading)
        if samples and new.at // RECENT_S <= samples[-1].at // RECENT_S:
            samples[-1] = _merged(samples[-1], new, RECENT_S)
            return
        while len(samples) >= max(1, RECENT_OF_ALL // len(self._samples)):
            samples.popleft()
        samples.append(msgspec.structs.replace(new, seconds=RECENT_S))

    def samples(self) -> list[Sample]:
        """All samples, by device, in the order of time."""
        return [sample for samples in self._samples.values() for sample in samples]


def _sample(reading: Reading) -> Sample:
    return Sample(
        device_id=reading.device_id,
        at=reading.at,
        seconds=FINEST_S,
        readings=1,
        utilisation=reading.utilisation,
        memory_used_bytes=reading.memory_used_bytes,
        memory_total_bytes=reading.memory_total_bytes,
        power_w=reading.power_w,
        temperature_c=reading.temperature_c,
    )


def _halved(samples: list[Sample]) -> list[Sample]:
    """Merge neighbours, so that each sample covers twice the time; a sample without a neighbour in it stays alone."""
    width = 2 * max(sample.seconds for sample in samples)
    halved: list[Sample] = []
    for sample in samples:
        if halved and sample.at < halved[-1].at + width:
            halved[-1] = _merged(halved[-1], sample, width)
        else:
            halved.append(msgspec.structs.replace(sample, seconds=width))
    return halved


def _merged(one: Sample, other: Sample, seconds: float) -> Sample:
    return Sample(
        device_id=one.device_id,
        at=one.at,
        seconds=seconds,
        readings=one.readings + other.readings,
        utilisation=_mean(one.utilisation, one.readings, other.utilisation, other.readings),
        memory_used_bytes=_most(one.memory_used_bytes, other.memory_used_bytes),
        memory_total_bytes=_most(one.memory_total_bytes, other.memory_total_bytes),
        power_w=_mean(one.power_w, one.readings, other.power_w, other.readings),
        temperature_c=_most(one.temperature_c, other.temperature_c),
    )


def _mean(one: float | None, count: int, other: float | None, others: int) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return (one * count + other * others) / (count + others)


def _most(one: Number | None, other: Number | None) -> Number | None:
    return max([value for value in (one, other) if value is not None], default=None)
