"""Updates: the records and reports that followers receive, and which batch each is about."""

from __future__ import annotations

from gpusched.core.events import (
    BatchAccepted,
    DeviceChanged,
    DeviceTuned,
    ProgressReported,
    Update,
    WindowMoved,
    WindowsAdded,
)


def batch_of(update: Update) -> str | None:
    """The id of the batch that an update is about; None: it is about a device."""
    match update:
        case WindowMoved(key=key) | ProgressReported(key=key):
            return key.batch_id
        case DeviceChanged() | DeviceTuned():
            return None
        case BatchAccepted(batch=batch) | WindowsAdded(batch=batch):
            return batch.id
        case _:
            return update.batch_id
