"""Text of others on a terminal: a log, and CSV, neither of which is a listing."""

from __future__ import annotations

import pytest

from gpusched.cli.commands import queries, results

ESCAPE, SHOWN = "\x1b[31mred\r\x07\u202e", "\N{REPLACEMENT CHARACTER}[31mred" + "\N{REPLACEMENT CHARACTER}" * 3


def test_a_log_in_pieces_that_cut_a_character() -> None:
    text = f"{ESCAPE}\n\t早安 ✓\n"
    written = text.encode()
    for cut in range(len(written)):
        shown = queries._for_terminal()
        assert (shown(written[:cut]) + shown(written[cut:])).decode() == text.replace(ESCAPE, SHOWN)


@pytest.mark.parametrize(("terminal", "name", "end"), [(True, SHOWN, "\n"), (False, ESCAPE, "\r\n")])
def test_csv(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool, name: str, end: str
) -> None:
    monkeypatch.setattr(results, "on_terminal", lambda: terminal)
    results._write_csv([{"a": 1, ESCAPE: "two\nlines"}], ["a", ESCAPE])
    assert capsys.readouterr().out.replace('"', "") == f"a,{name}{end}1,two\nlines{end}"
