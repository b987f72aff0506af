"""`forget`: remove finished batches from the daemon's records, with their logs, and their results on request."""

from __future__ import annotations

import argparse
import re

import msgspec

from gpusched.cli.commands.control import refuse_settings
from gpusched.cli.sources import about, to_daemon
from gpusched.client.drawing.listing import print_json
from gpusched.core.wording import counted
from gpusched.errors import DONE, UsageError
from gpusched.protocol import Forgotten, summed

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class BadAge(UsageError):
    problem = "--older-than {text!r} is not an age"
    remedy = "write a number and a unit: 30d, 12h, 90m, 2w"


class ForgetNothing(UsageError):
    problem = "forget needs either batches or --older-than"
    remedy = "`gpusched forget BATCH` or `gpusched forget --older-than 30d`; `gpusched status` lists the batches"


def forget(options: argparse.Namespace) -> int:
    """Forget batches by name, or by age."""
    refuse_settings(options)
    if bool(options.batches) == (options.older_than is not None):
        raise ForgetNothing
    older_than_s = None if options.older_than is None else age(options.older_than)
    with about(options, *options.batches), to_daemon(options) as daemon:
        if older_than_s is not None:
            forgotten = daemon.forget(older_than_s=older_than_s, results=options.results)
        else:
            forgotten = summed([daemon.forget(batch_id, results=options.results) for batch_id in options.batches])
    _tell(forgotten, options)
    return DONE


def age(text: str) -> float:
    """The seconds of an age such as `30d`. Raises BadAge."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhdw])", text.strip())
    if match is None:
        raise BadAge(text=text)
    return float(match[1]) * _SECONDS[match[2]]


def _tell(forgotten: Forgotten, options: argparse.Namespace) -> None:
    if options.json:
        print_json(msgspec.structs.asdict(forgotten))
        return
    print(_sentence(forgotten, results=options.results))  # noqa: T201
    for path in forgotten.kept:
        print(f"  left: {path} (it is not provably a result of that batch and nothing else)")  # noqa: T201


def _sentence(forgotten: Forgotten, *, results: bool) -> str:
    if not forgotten.batches:
        return "No batch finished that long ago"
    names = ", ".join(forgotten.batches[:3])
    if len(forgotten.batches) > 3:
        names = f"{len(forgotten.batches)} batches"
    records = f"{names}: {counted(forgotten.windows, 'window')} forgotten, with their logs"
    return f"{records}; {counted(forgotten.results, 'result')} removed" if results else f"{records}; the results stay"
