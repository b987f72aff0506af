"""`report`: a batch as one HTML file, from the daemon, or from the output directory of a `run`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

from gpusched import files
from gpusched.analysis.comparison import compare
from gpusched.analysis.content import Report
from gpusched.analysis.page import page
from gpusched.analysis.scores import of_lines
from gpusched.cli.sources import of_batch
from gpusched.cli.usage import OneAtATime
from gpusched.client.drawing.listing import print_json
from gpusched.core.totals import worth_object
from gpusched.errors import DONE, InputError
from gpusched.metadata import read_metadata
from gpusched.protocol import WindowLine


class CannotWrite(InputError):
    problem = "{path} cannot be written: {why}"
    remedy = "name another file with -o"


def report(options: argparse.Namespace) -> int:
    """Write the report of a batch, or of a batch beside another one."""
    if options.output == "-" and options.json:
        raise OneAtATime(one="-o -", other="--json")
    content = _content(options, options.batch)
    path, comparison = Path(options.output or f"{content.batch.id}.html"), None
    if options.other is not None:
        other = _content(options, options.other)
        metrics = [options.metric] if options.metric else []
        comparison = compare(options.batch, options.other, of_lines(content.results), of_lines(other.results), metrics)
    text = page(content, comparison)
    if options.output == "-":
        sys.stdout.write(text)
        return DONE
    try:
        files.write_named(path, text.encode())
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror or error) from error
    if options.json:
        written = {"batch_id": content.batch.id, "report": str(path.absolute())}
        print_json(written | worth_object(content.batch.constants))
    else:
        print(path)  # noqa: T201
    return DONE


def _content(options: argparse.Namespace, name: str) -> Report:
    """The report of a batch of the daemon, or of a run."""
    with of_batch(options, name) as (source, batch_id):
        detail = source.batch(batch_id, notes=True)
        results = [*source.results(batch_id)]
        return Report(
            batch=detail.batch,
            spec=detail.spec,
            results=results,
            samples=source.history(batch_id),
            retried=[
                (line.key.label, attempt)
                for line in results
                if line.attempts > 1
                for attempt in source.window(batch_id, line.key.label).attempts[:-1]
            ],
            versions={"gpusched": source.version} | _versions(results),
            metric=options.metric,
            notes=detail.notes,
        )


def _versions(results: Iterable[WindowLine]) -> dict[str, str]:
    """The library versions of the first window whose metadata can be read."""
    for line in results:
        if line.result is not None:
            with contextlib.suppress(OSError):
                metadata = read_metadata(Path(line.result.artifacts_path))
                versions = metadata.details.get("versions") if metadata else None
                if isinstance(versions, dict):
                    return {str(name): str(version) for name, version in versions.items()}
    return {}
