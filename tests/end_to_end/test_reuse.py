"""Directories of runs: whose results they share, and who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpusched import outputs
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.end_to_end.terminal import Terminal

AAPL_2006 = ("--start", "2006-01-01", "--end", "2006-09-02")


def test_one_symbol_more_and_a_later_end_train_only_what_is_new(gpusched: Command) -> None:
    """Without -o. Other settings have a directory of their own."""
    symbols = gpusched.directory / "symbols.txt"
    symbols.write_text("AAPL\n")
    first = gpusched.json("run", symbols, *AAPL_2006)
    assert first["windows"]["succeeded"] == 2
    assert first["output_dir"] == str(gpusched.directory / "gpusched-runs" / first["batch_id"])
    symbols.write_text("AAPL\nIBM\n")
    more = gpusched.json("run", symbols, *AAPL_2006)
    assert (more["windows"]["succeeded"], more["windows"]["reused"]) == (2, 2)
    later = gpusched.json("run", symbols, *AAPL_2006[:3], "2007-01-02")
    assert (later["windows"]["succeeded"], later["windows"]["reused"]) == (2, 4)
    assert {more["output_dir"], later["output_dir"]} == {first["output_dir"]}
    assert len(index(Path(first["output_dir"]))) == 6
    other = gpusched.json("run", symbols, *AAPL_2006, "--horizon", "5")
    assert (other["windows"]["succeeded"], other["windows"]["reused"]) == (4, 0)
    lock = outputs.claim(Path(first["output_dir"]))
    _, refused = gpusched.said("run", symbols, *AAPL_2006, code=4)
    os.close(lock)
    assert f"the process {os.getpid()} trains a batch into {first['output_dir']}\nhint: wait until that" in refused


def test_a_program_that_is_edited_while_it_runs(gpusched: Command) -> None:
    """Each window edits it for those after it: what was trained before is told, and trained anew by the next run."""
    program = gpusched.directory / "train.py"
    program.write_text("""open(__file__, "a").write("#"); print('{"metrics": {}}')""")
    of = ("--symbols", "A,B,C", "--start", "2024-01-01", "--end", "2024-02-01", "-o", "out", "--workers", 1)
    told = gpusched("run", *of, "--", "python3", "train.py", "{symbol}")
    changed = "The code or the data of {} changed after the batch was planned. Run the same again to train those anew"
    assert changed.format("B_2024-01-01_to_2024-02-01") in told
    assert told.count("changed after") == 1
    program.write_text(program.read_text().rstrip("#") + "#")
    assert "Plan: 2 to train, 1 to reuse" in gpusched("run", *of, "--", "python3", "train.py", "{symbol}")


@pytest.mark.parametrize(
    ("umask", "directory", "file"),
    [pytest.param("022", 0o755, 0o644, marks=pytest.mark.thorough), ("007", 0o770, 0o660)],
)
def test_results_have_the_modes_that_the_umask_leaves(gpusched: Command, umask: str, directory: int, file: int) -> None:
    gpusched.prefix = ("sh", "-c", f'umask {umask} && exec "$@"', "sh")
    gpusched("run", "--symbols", "AAPL", "-o", "team/share", *AAPL_2006)
    share = gpusched.directory / "team" / "share"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (share.parent, share, *share.glob("[!.]*"))}
    modes |= {path: stat.S_IMODE(path.stat().st_mode) for path in share.glob("[!.]*/*")}
    assert modes == {path: directory if path.is_dir() else file for path in modes}
    assert len(modes) > 10
    assert stat.S_IMODE((share / ".gpusched").stat().st_mode) == 0o700


def test_results_of_other_parameters_are_replaced_when_somebody_says_so(gpusched: Command) -> None:
    gpusched("run", "--symbols", "AAPL", "-o", "out", *AAPL_2006)
    before = hashes(gpusched.directory / "out")
    other = ("run", "--symbols", "AAPL", "-o", "out", *AAPL_2006, "--horizon", "5")
    _, refused = gpusched.said(*other, code=4)
    said = f"2 results of other parameters in {gpusched.directory / 'out'} would be replaced"
    assert f"{said}\nhint: give this one another directory with -o, or `--replace` those" in refused
    for answer, code in (("n", 4), ("y", 0)):
        with Terminal(gpusched, *other) as terminal:
            terminal.until("Replace? [y/N]")
            assert hashes(gpusched.directory / "out") == before
            terminal.press(f"{answer}\n")
            terminal.rest()
            assert terminal.end() == code
    assert hashes(gpusched.directory / "out") != before
    again = gpusched.json("run", "--symbols", "AAPL", "-o", "out", *AAPL_2006, "--replace")
    assert again["windows"]["succeeded"] == 2
    assert hashes(gpusched.directory / "out") == before


@pytest.mark.thorough
def test_results_of_other_directories_are_copied(gpusched: Command) -> None:
    """With the record of their training; damaged results are trained again."""
    gpusched("run", "--symbols", "AAPL,IBM", "-o", "one", *AAPL_2006)
    trained = {line["window_label"]: line for line in index(gpusched.directory / "one")}
    damaged = sorted(trained)[0]
    (gpusched.directory / "one" / damaged / "labels.csv.gz").write_bytes(b"")
    (gpusched.directory / "more.txt").write_text("AAPL\nIBM\nMSFT\n")
    asked = ("run", "--reuse-from", "one", "more.txt", *AAPL_2006, "-o", "other")
    assert gpusched.json("plan", *asked[1:])["totals"]["reuse"] == 4
    ended = gpusched.json(*asked)
    assert (ended["windows"]["succeeded"], ended["windows"]["reused"]) == (3, 3)
    check_sound(gpusched.directory / "other", 6)
    for line in index(gpusched.directory / "other"):
        if line["outcome"] == "reused":
            first = trained[line["window_label"]]
            assert {name: line[name] for name in KEPT} == {name: first[name] for name in KEPT}
            assert line["artifacts_path"] == str(gpusched.directory / "other" / line["window_label"])
    results = gpusched.json("results", "./other")["results"]
    assert all(line["seconds"] > 0 and line["attempts"] == 1 for line in results)
    two = ("run", "--symbols", "AAPL,MSFT", *AAPL_2006)
    told = gpusched(*two, "-o", "third")
    assert f"The results of 4 windows are known in {gpusched.directory / 'other'}: `--reuse-from" in told
    known = gpusched.json(*two, "-o", "fourth", "--set", "run.reuse_known=true")
    assert known["windows"]["reused"] == 4
    _, refused = gpusched.said("run", "more.txt", "--reuse-from", "nowhere", *AAPL_2006, code=4)
    assert f"--reuse-from {gpusched.directory / 'nowhere'}: No such file or directory" in refused


#: the record of a training in a line of the index
KEPT = ("started_at", "seconds", "attempts", "slot", "device")
