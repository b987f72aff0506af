"""Terms: the limits, workers and priority of a batch, which may change while it runs. They are not its identity."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from gpusched.core.model import BatchSpec, Limits

#: values of terms by name; terms that are not named stay as they are
Terms = Mapping[str, Any]
NO_TERMS: Terms = MappingProxyType({})

#: terms that are fields of the specification itself, besides those of its limits
_IN_SPEC = ("workers", "priority")
NAMES = (*Limits.__struct_fields__, *_IN_SPEC)


def terms_of(spec: BatchSpec) -> dict[str, Any]:
    """All terms of a specification, by name."""
    return msgspec.structs.asdict(spec.limits) | {name: getattr(spec, name) for name in _IN_SPEC}


def with_terms(spec: BatchSpec, terms: Terms) -> BatchSpec:
    """The same batch on other terms. Raises ValueError for an unknown term or an impossible value."""
    if unknown := sorted(terms.keys() - set(NAMES)):
        raise ValueError(f"there is no term {unknown[0]!r} of a batch")
    changed = terms_of(spec) | dict(terms)
    limits = msgspec.convert({name: changed[name] for name in Limits.__struct_fields__}, Limits)
    beside = {name: msgspec.convert(changed[name], int) for name in _IN_SPEC}
    return msgspec.structs.replace(spec, limits=limits, **beside)


def differences(old: BatchSpec, new: BatchSpec) -> tuple[str, ...]:
    """The differences between two specifications' terms, for people: `timeout_s 3600 → 60`."""
    before, after = terms_of(old), terms_of(new)
    return tuple(f"{name} {before[name]:.12g} → {after[name]:.12g}" for name in NAMES if before[name] != after[name])
