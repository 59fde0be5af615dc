"""The pages people read, taken apart: blocks of code, headings, tables, links, words set as code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench/README.md"])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language ("" for none) and what is in it."""

    language: str
    text: str


class Heading(NamedTuple):
    level: int
    title: str


def blocks(text: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order; with *language*, those alone."""
    found = [Block(match[1], match[2]) for match in _BLOCK.finditer(text)]
    return found if language is None else [block for block in found if block.language == language]


def prose(text: str) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", text)


def headings(text: str) -> list[Heading]:
    return [Heading(len(match[1]), match[2]) for match in re.finditer(r"^(#+) (.*)$", prose(text), re.MULTILINE)]


def anchors(text: str) -> set[str]:
    """What a link to a heading says behind its #: lower case, punctuation left out, dashes for spaces (GitHub's rule)."""
    return {re.sub(r"[^\w\- ]", "", heading.title.lower()).replace(" ", "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def spans(text: str) -> list[str]:
    """Words set as code in running text and tables."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def tables(text: str) -> dict[str, list[list[str]]]:
    """Heading -> the rows of the tables below it, cells stripped, without head and rule."""
    found: dict[str, list[list[str]]] = {}
    title, rows = "", 0
    for line in prose(text).splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        if not line.startswith("|"):
            rows = 0
            continue
        rows += 1
        if rows > 2:
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(title, []).append([cell.strip() for cell in cells])
    return found
