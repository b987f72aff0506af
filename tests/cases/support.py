"""One case: a directory with data, a symbols file and a command, and gpusched's answer to them.

The command is parsed and surveyed in this process, which takes milliseconds; other tests cover the process boundary.
Nothing is trained; other tests check that the survey and the training agree about data.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import anyio
import msgspec

from gpusched.cli.commands.batches import ask
from gpusched.cli.parser import parse
from gpusched.core.planning import Plan, action, reason_of_plan
from gpusched.errors import GpuschedError
from gpusched.supervisor.survey import Findings, pieces_of
from gpusched.worker.messages import SurveyJob
from gpusched.worker.survey import run_survey


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a command."""

    #: of the first window of each symbol: `train`, `skip`, `fail`; or only `refused`, for a command that was refused
    actions: tuple[str, ...]
    #: the numbers of bars of these windows
    bars: tuple[int, ...] = ()
    #: all text for the user: notes, reasons, remedies
    said: str


def look(case: Path, cache_dir: Path) -> Seen:
    """Run the command of a case, up to the plan. The current directory must be that of the case."""
    arguments = shlex.split((case / "command.txt").read_text())[1:]
    try:
        asked = ask(parse(arguments))
    except GpuschedError as error:
        return Seen(actions=("refused",), said=str(error))
    spec, pieces = asked.spec, tuple(anyio.run(pieces_of, asked.spec, 1))
    findings = Findings()
    for piece in pieces:
        findings.ask(piece)
    job = SurveyJob(
        workload=spec.workload,
        data_root=spec.data_root,
        cache_dir=str(cache_dir),
        settings={"": spec.settings},
        symbols=pieces,
        output_dir=str(asked.output_dir),
        device_types=("cpu",),
    )
    run_survey(job, findings.take)
    assert not findings.missing()
    return _seen(findings.plan(), asked.notes)


def _seen(plan: Plan, notes: tuple[str, ...]) -> Seen:
    first = {planned.window.symbol: planned for planned in reversed(plan.windows)}
    windows = [first[symbol] for symbol in dict.fromkeys(planned.window.symbol for planned in plan.windows)]
    lines = [*notes]
    lines += [f"{symbol}: {note.text}" for symbol, found in plan.notes.items() for note in found]
    lines += [f"{reason_of_plan(planned)}; {planned.remedy}" for planned in windows]
    return Seen(
        actions=tuple(action(planned) for planned in windows),
        bars=tuple(planned.bars for planned in windows),
        said="\n".join(lines),
    )
