"""Links lead somewhere, pages are in the maps, and decisions have their form."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import ROOT, anchors, links, pages, prose_of, text_of

ADR = ROOT / "docs" / "adr"
DECISIONS = sorted(ADR.glob("[0-9]*.md"))
STATUSES = ("accepted, built", "accepted, not built yet", "accepted; ", "replaced by ")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        if not (there.exists() and there.is_relative_to(ROOT)) or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_map() -> None:
    reached = set()
    todo = [ROOT / "docs" / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        todo += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if target[0] != "#"]
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()


def test_files_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`((?:broker|adapters|policies|accounting|web|tools|alembic)/[^` ]*)`", _prose("architecture"))
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def _prose(page: str) -> str:
    return prose_of(ROOT / "docs" / "explanation" / f"{page}.md")


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_fits_a_page_and_has_its_parts(page: Path) -> None:
    text = text_of(page)
    assert len(text.splitlines()) <= 70
    assert text.startswith(f"# {page.name[:4]}. ")
    assert _status(text).startswith(STATUSES)
    for part in ("## Context\n", "## Decision\n\n> ", "## Consequences\n", "## Rejected\n"):
        assert part in text


def test_the_list_of_decisions_is_theirs() -> None:
    rows = []
    for page in DECISIONS:
        text = text_of(page)
        title = text.splitlines()[0].removeprefix(f"# {page.name[:4]}. ")
        rows.append(f"| [{page.name[:4]}]({page.name}) | {title} | {_status(text)} |")
    assert [line for line in text_of(ADR / "README.md").splitlines() if line.startswith("| [")] == rows
    assert [page.name[:4] for page in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]


def _status(text: str) -> str:
    found = re.search(r"^Status: (.+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) < 80
    assert "    make demo " in text
    assert "    make test " in text
