"""`report`: a batch as one HTML file, from the daemon, or from the output directory of a `run`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path

from gpusched import __version__, artifacts, files
from gpusched.analysis.comparison import compare
from gpusched.analysis.content import Report
from gpusched.analysis.page import page
from gpusched.analysis.scores import of_lines
from gpusched.cli.commands.batches import load_config
from gpusched.cli.commands.queries import to_daemon
from gpusched.client.drawing.listing import print_json
from gpusched.config import Config, run_state_dir
from gpusched.errors import DONE, InputError
from gpusched.protocol import ResultLine


class NoRun(InputError):
    problem = "{path} holds no store of a run"
    remedy = "name the output directory of `gpusched run`, or a batch of the daemon: `gpusched status` lists them"


class CannotWrite(InputError):
    problem = "{path} cannot be written: {why}"
    remedy = "name another file with -o"


def report(options: argparse.Namespace) -> int:
    """Write the report of a batch, or of a batch beside another one."""
    content = _content(options, options.batch)
    path, comparison = Path(options.output or f"{content.batch.id}.html"), None
    if options.other is not None:
        other = _content(options, options.other)
        metrics = [options.metric] if options.metric else []
        comparison = compare(options.batch, options.other, of_lines(content.results), of_lines(other.results), metrics)
    text = page(content, comparison)
    try:
        files.write_whole(path, (text.encode(),))
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror or error) from error
    if options.json:
        print_json({"batch_id": content.batch.id, "report": str(path.absolute())})
    else:
        print(path)  # noqa: T201
    return DONE


def _content(options: argparse.Namespace, name: str) -> Report:
    directory = Path(name)
    if directory.is_dir():
        return _of_run(load_config(options).config, directory, options.metric)
    return _of_daemon(options, name)


def _of_daemon(options: argparse.Namespace, name: str) -> Report:
    with to_daemon(options) as daemon:
        detail = daemon.batch(name, notes=True)
        results = [*daemon.results(name)]
        return Report(
            batch=detail.batch,
            spec=detail.spec,
            results=results,
            samples=daemon.history(name),
            retried=[
                (line.key.label, attempt)
                for line in results
                if line.attempts > 1
                for attempt in daemon.window(name, line.key.label).attempts[:-1]
            ],
            versions={"gpusched": daemon.daemon.version} | _versions(results),
            metric=options.metric,
            notes=detail.notes,
        )


def _of_run(config: Config, directory: Path, metric: str | None) -> Report:
    """The report of a run. Raises NoRun, and StoreError: a run that is still at work has locked its store."""
    from gpusched.service import views
    from gpusched.store.store import Store

    database = run_state_dir(config, directory) / "state.db"
    if not database.is_file():
        raise NoRun(path=directory)
    with Store.open(database) as store:
        batches = store.batches()
        accepted = store.accepted(batches[-1].id) if batches else None
        if accepted is None:
            raise NoRun(path=directory)
        results = [*map(views.result_line, store.finished_windows(accepted.id))]
        return Report(
            batch=views.batch_status(batches[-1]),
            spec=accepted.spec,
            results=results,
            samples=store.history(accepted.id),
            retried=[
                (line.key.label, attempt)
                for line in results
                if line.attempts > 1
                for attempt in store.attempts(line.key)[:-1]
            ],
            versions={"gpusched": __version__} | _versions(results),
            metric=metric,
            notes=store.notes(accepted.id),
        )


def _versions(results: Iterable[ResultLine]) -> dict[str, str]:
    """The library versions of the first window whose metadata can be read."""
    for line in results:
        if line.artifacts_path is not None:
            with contextlib.suppress(OSError):
                metadata = artifacts.read_metadata(Path(line.artifacts_path))
                versions = metadata.details.get("versions") if metadata else None
                if isinstance(versions, dict):
                    return {str(name): str(version) for name, version in versions.items()}
    return {}
