"""The documentation as the tests read it: pages, their links, code blocks and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<words>.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?<![\w/.-])leeway(?P<arguments>(?: [A-Za-z0-9-]+)+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: `info` are the words after the fence."""

    page: Path
    info: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """For the test's name."""
        return f"{self.page.stem}:{self.text[:20]!r}"


def pages() -> list[Path]:
    """Every page of Markdown that a reader may land on."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text_of(page))


def blocks(kind: str) -> list[Block]:
    """Every fenced block of the docs that is marked as a `kind`."""
    found = [
        Block(page, tuple(match["info"].split()), match["text"])
        for page in pages()
        for match in _FENCE.finditer(text_of(page))
    ]
    return [block for block in found if kind in block.info[1:]]


def links(page: Path) -> Iterator[str]:
    """Targets of the page's links, without those to other hosts."""
    for match in _LINK.finditer(prose_of(page)):
        if "://" not in match["target"]:
            yield match["target"]


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`, as forges make it of headings."""
    words = [match["words"].lower() for match in _HEADING.finditer(prose_of(page))]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in words}


def first_cells(page: Path) -> set[str]:
    """The code words in the first cell of each table row: what the page documents."""
    rows = [line for line in text_of(page).splitlines() if line.startswith("| ")]
    return {word for row in rows for word in _CODE.findall(row.split(" | ")[0])}


def commands(page: Path) -> set[tuple[str, ...]]:
    """Words after `leeway` wherever the page has it as code: in a span, an indented line or a fenced block."""
    text = text_of(page)
    code = [
        *_CODE.findall(prose_of(page)),
        *(line.strip() for line in text.splitlines() if line.startswith("    ")),
        *(match["text"] for match in _FENCE.finditer(text)),
    ]
    # An argument of words may follow, as in `clone ... leeway`: only what begins the command counts.
    return {
        tuple(match["arguments"].split())
        for line in code
        for part in re.split(r"[\n;|]|&& |-c |\$\(", line)
        for match in [
            _COMMAND.match(part.strip().removeprefix(".venv/bin/").removeprefix("ExecStart=/srv/leeway/.venv/bin/"))
        ]
        if match is not None
    }
