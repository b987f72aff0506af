"""Points of a sweep: their names, grids of them, and random samples of grids. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from gpusched.core.model import Parameters

#: points of a sweep: the settings at each are checked before it starts
MOST_POINTS = 10_000
#: characters of the name of a point that spells its parameters out
LONGEST_NAME = 60

_WORD = re.compile(r"[A-Za-z0-9._+-]+")
#: parameters that are varied together: a point has one element of each axis
Axis = Sequence[Parameters]


def point_name(parameters: Parameters) -> str:
    """A name that is safe in a file's name, and depends on nothing but the point: `horizon=5,num_leaves=31`.

    It is a digest where the parameters spelt out are too long, have other characters, or would be ambiguous.
    """
    words = {key: (key.rpartition(".")[2], _text(value)) for key, value in sorted(parameters.items())}
    name = ",".join("=".join(pair) for pair in words.values())
    plain = all(_WORD.fullmatch(word) for pair in words.values() for word in pair)
    distinct = len({short for short, _ in words.values()}) == len(words)
    if plain and distinct and len(name) <= LONGEST_NAME:
        return name
    return hashlib.sha256(msgspec.json.encode(parameters, order="deterministic")).hexdigest()[:12]


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def points_problem(points: Mapping[str, Parameters]) -> str | None:
    """The reason why these cannot be the points of a sweep, by name; None if they can."""
    if len(points) > MOST_POINTS:
        return f"a sweep has {MOST_POINTS:,} points at most"
    wrong = next((name for name, parameters in points.items() if point_name(parameters) != name), None)
    return None if wrong is None else f"{wrong[:200]!r} is not the name of the point with these parameters"


def size(axes: Sequence[Axis]) -> int:
    """The number of combinations in a grid."""
    return math.prod(map(len, axes))


def points(axes: Sequence[Axis]) -> dict[str, Parameters]:
    """All points of a grid by name: every combination of one element of each axis, the last axis varying fastest."""
    return _named(_point(axes, number) for number in range(size(axes)))


def sample(axes: Sequence[Axis], wanted: int, seed: int) -> dict[str, Parameters]:
    """`wanted` points of a grid, or all if it has no more, drawn by `seed`; more points of one seed include the fewer.

    The draw is by digests, not by a generator of random numbers, so it is the same in every version of Python.
    """
    total = size(axes)
    if wanted >= total:
        return points(axes)
    return _named(_point(axes, number) for number in islice(_draw(total, seed), wanted))


def _draw(total: int, seed: int) -> Iterator[int]:
    """Different numbers below `total`, in an order that `seed` determines."""
    seen, number = set[int](), 0
    while True:
        digest = hashlib.sha256(b"%d:%d" % (seed, number)).digest()
        drawn, number = int.from_bytes(digest, "big") % total, number + 1
        if drawn not in seen:
            seen.add(drawn)
            yield drawn


def _point(axes: Sequence[Axis], number: int) -> Parameters:
    """The combination with this number, the last axis varying fastest."""
    chosen: list[Parameters] = []
    for axis in reversed(axes):
        number, place = divmod(number, len(axis))
        chosen.append(axis[place])
    return {key: value for parameters in reversed(chosen) for key, value in parameters.items()}


def _named(combinations: Iterator[Parameters]) -> dict[str, Parameters]:
    return {point_name(parameters): parameters for parameters in combinations}
