"""The expected ends of windows."""

from __future__ import annotations

from gpusched.core.ends import TIDY, Ends


def test_the_first_end_is_that_of_a_window_that_has_not_left() -> None:
    ends = Ends()
    early, late = ends.add(1.0), ends.add(2.0)
    again = ends.add(1.0)
    found = [ends.first]
    for left in (early, again, late):
        ends.remove(left)
        found.append(ends.first)
    assert found == [1.0, 1.0, 2.0, None]


def test_ends_that_nobody_asked_for_do_not_pile_up() -> None:
    ends = Ends()
    last = ends.add(1e9)
    for at in range(10 * TIDY):
        ends.remove(ends.add(float(at)))
    assert len(ends) <= TIDY + 1
    assert ends.first == 1e9
    ends.validate([last])
