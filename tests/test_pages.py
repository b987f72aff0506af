"""The pages for users: every link leads somewhere, and every command that they show is one."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpusched.cli.parser import parse

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "examples/**/*.md") for path in REPOSITORY.glob(pattern) if path.is_file()
)
per_page = pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(REPOSITORY).as_posix() for path in PAGES])


def anchors(page: Path) -> set[str]:
    """The fragments by which a page's headings can be linked to, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@per_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@per_page
def test_commands_can_be_typed_as_they_stand(page: Path) -> None:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["gpusched"]:
            parse([word for word in words[1:] if word != "&"])


@per_page
def test_benchmarks_that_are_named_are_there(page: Path) -> None:
    for name in set(re.findall(r"python -m (benchmarks\.\w+)", page.read_text())):
        assert find_spec(name) is not None, name
