"""The daemon's log: one line per event on stderr, with the levels that journald reads.

A line is a sentence and `key=value` pairs. It never contains settings of a batch or environment variables.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from gpusched.core.events import (
    BatchAccepted,
    BatchAltered,
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    ChangeMade,
    DeviceChanged,
    DeviceTuned,
    WindowMoved,
)
from gpusched.core.model import WindowKey
from gpusched.core.states import Active, Failed, Failure, Finished, Lost, TimedOut
from gpusched.core.statuses import name_of
from gpusched.engines.condition import TroubleChanged
from gpusched.streams import Outbox
from gpusched.supervisor.followers import News, Noted

#: characters of a message in a log line
MESSAGE_CHARS = 300
#: lines that wait for a reader who pauses; beyond them, the oldest are dropped
WAITING_LINES = 10_000

log = logging.getLogger("gpusched")


class _Formatter(logging.Formatter):
    """Puts `<level>` before every line, tracebacks included, if journald reads them; else the time before a record."""

    #: syslog's numbers of the levels
    _LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def __init__(self, *, journald: bool) -> None:
        super().__init__("%(message)s" if journald else "%(asctime)s %(levelname)s %(message)s")
        self._journald = journald

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line: the name of a member's directory must not look like another record, or write to a terminal."""
        if not record.message.isprintable():
            record.message = "".join(map(_visible, record.message))
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._journald:
            return text
        number = next((number for level, number in self._LEVELS if record.levelno >= level), 7)
        return "\n".join(f"<{number}>{line}" for line in text.splitlines())


class _Handler(logging.StreamHandler[TextIO]):
    """Writes without waiting for a reader who pauses (`gpusched daemon 2>&1 | less`)."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._outbox = Outbox(WAITING_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outbox.put(self.stream, self.format(record))
        except Exception:  # as in the standard library: a log must never make its program fail
            self.handleError(record)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def start_logging() -> None:
    """Write the logs of gpusched and asyncio to stderr."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter(journald=_stderr_is_journal()))
    for name in ("gpusched", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("gpusched").setLevel(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.raiseExceptions = False  # a failed write must not be reported on stderr, the stream that failed


def _stderr_is_journal() -> bool:
    """Whether stderr is the file that JOURNAL_STREAM names: it may have been redirected since the start."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class Journal:
    """Logs what happens to batches, windows and devices, troubles, and notes for people."""

    def __init__(self) -> None:
        #: time at which the current launch of a window was placed
        self._placed_at: dict[WindowKey, float] = {}

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved():
                self._moved(news)
            case BatchAccepted(batch=batch):
                log.info("batch accepted batch=%s windows=%d output=%s", batch.id, len(news.windows), batch.output_dir)
                if news.counts.get("failed"):
                    self._refused(news)
            case BatchFinished():
                log.info("batch finished batch=%s", news.batch_id)
            case BatchHeld():
                log.warning("batch held batch=%s reason=%r", news.batch_id, news.reason[:MESSAGE_CHARS])
            case BatchReleased():
                log.info("batch released batch=%s", news.batch_id)
            case ChangeMade(batch_id=batch_id, change=change):
                which = batch_id if change.label is None else WindowKey(batch_id, change.label)
                log.info("asked to %s which=%s windows=%d", change.verb, which, change.windows)
            case BatchAltered(batch=batch, changes=changes):
                log.info("batch altered batch=%s changes=%r", batch.id, "; ".join(changes))
            case BatchReopened():
                log.info("batch reopened batch=%s", news.batch_id)
            case DeviceChanged():
                level = logging.WARNING if news.health == "quarantined" else logging.INFO
                log.log(
                    level,
                    "device %s device=%s reason=%r",
                    news.health,
                    news.device_id,
                    news.reason[:MESSAGE_CHARS],
                )
            case DeviceTuned():
                log.info("slots device=%s slots=%d reason=%r", news.device_id, news.slots, news.reason)
            case TroubleChanged(trouble=trouble, present=True):
                log.error("trouble kind=%s text=%r", trouble.kind, trouble.text[:MESSAGE_CHARS])
            case TroubleChanged(trouble=trouble):
                log.info("trouble is over kind=%s text=%r", trouble.kind, trouble.text[:MESSAGE_CHARS])
            case Noted(text=text):
                log.warning("%s", text)

    def _refused(self, accepted: BatchAccepted) -> None:
        """Log the windows that failed without a launch, in one line."""
        refused = [planned for planned, _ in accepted.windows if planned.refusal is not None]
        if refused:
            first = (refused[0].refusal or "")[:MESSAGE_CHARS]
            log.warning("data refused batch=%s windows=%d first=%r", accepted.batch.id, len(refused), first)

    def _moved(self, moved: WindowMoved) -> None:
        old, new = moved.old, moved.new
        if isinstance(new, Active):
            self._placed_at.setdefault(moved.key, moved.at)
            return
        began = self._placed_at.pop(moved.key, moved.at)
        if isinstance(new, Finished) and not isinstance(old, Active):
            return  # by a request, which is logged as a whole when it is complete
        if isinstance(new, Finished):
            bad = isinstance(new.outcome, Failed | Lost | TimedOut)
            level, word = logging.WARNING if bad else logging.INFO, name_of(new.outcome)
        elif isinstance(old, Active):
            level, word = logging.WARNING, "requeued"
        else:
            return
        where = f" slot={old.slot.index} device={old.slot.device_id}" if isinstance(old, Active) else ""
        failure = moved.ending
        if isinstance(old, Finished) and isinstance(new, Finished) and isinstance(new.outcome, Lost):
            failure = new.outcome.failure
        why = ""
        if isinstance(failure, Failure):
            why = f" kind={failure.kind} message={failure.message[:MESSAGE_CHARS]!r}"
        attempt = old.attempt if isinstance(old, Active) else 0
        log.log(
            level,
            "window %s window=%s attempt=%d seconds=%.3f%s%s",
            *(word, moved.key, attempt, moved.at - began, where, why),
        )
