"""Reasons that are alike are counted together, and said word for word where they can be."""

from __future__ import annotations

from gpusched.client.drawing.summary import SHOWN_NOTES, notes_lines
from gpusched.client.views.reasons import Reasons, general_reason_of, of_plan
from gpusched.core.model import DataNote, DataNotes
from gpusched.core.planning import Plan
from tests.client.support import Onlooker
from tests.core.support import batch, failure, key, planned


def test_reasons_that_differ_in_numbers_and_symbols_are_one() -> None:
    reasons = Reasons()
    reasons.add("too few rows: 3 of 20", "A")
    reasons.add("no data: /data/B has no interval 1d", "B")
    reasons.add("too few rows: 5 of 20", "A")
    assert reasons.most_common(9) == [("too few rows: … of 20", 2), ("no data: /data/B has no interval 1d", 1)]
    assert len(reasons) == 2


def test_a_reason_that_names_its_window_is_one() -> None:
    """A message that an author makes of the label would be a group for each window."""
    labels = ("M&M_2022-01-01_to_2022-06-29", "AAPL_2022-06-30_to_2022-12-26", "mine", "X_2022-01-01_to_2022-06-29_a=1")
    assert {general_reason_of(f"the matrix of {label} is singular", label) for label in labels} == {
        "the matrix of … is singular"
    }
    reasons = Reasons()
    for label in labels[:2]:
        reasons.add(f"/logs/{label}.txt: {label}", label.partition("_")[0])
    assert reasons.most_common(9) == [("/logs/….txt: …", 2)]


def test_a_plan_says_what_would_help() -> None:
    windows = [planned("A", skip="no data"), planned("B", refusal="B.csv:1: no header"), planned("C")]
    made = Plan(windows=tuple(windows))
    assert of_plan(made.to_skip).most_common(9) == [("no data", 1)]
    assert of_plan(made.to_fail).most_common(9) == [("B.csv:1: no header", 1)]


def test_refusals_are_told_apart_from_failures() -> None:
    look = Onlooker()
    look.submit(batch(), [planned("A", refusal="A.csv:1: no header"), planned("B", refusal="B.csv:1: no header"), "C"])
    assert look.view.refusals().most_common(9) == [("….csv:1: no header", 2)]
    assert (look.view.unlaunched, look.view.refused, look.view.counts["failed"]) == (2, 2, 2)
    look.start(key("C"))
    look.end(key("C"), ending=failure("bad_data", "C.csv: is a directory"))
    assert (look.view.unlaunched, look.view.refused, look.view.counts["failed"]) == (2, 3, 3)
    assert look.view.trained == 1, "the others went through no slot"
    assert [window.label for window in look.view.failures] == [key("C").label]


def test_lines_about_the_data() -> None:
    volume, jump = DataNote("volume", "no volume, read as 0"), DataNote("jumps", "÷ 4: a split?")
    notes: DataNotes = dict.fromkeys("ABCDE", (volume,))
    notes["F"] = (volume, jump)
    assert notes_lines(notes) == ["A, B, C and 2 more: no volume, read as 0", "F: no volume, read as 0; ÷ 4: a split?"]
    evil: DataNotes = {"A": (DataNote("links", "\x1b[2J.csv is a broken link"),)}
    assert all(line.isprintable() for line in notes_lines(evil))
    many: DataNotes = {f"S{number}": (DataNote("gaps", f"{number} days missing"),) for number in range(100)}
    lines = notes_lines(many)
    assert len(lines) == SHOWN_NOTES + 1
    assert lines[-1] == "… and 80 more lines; --json has them all"
