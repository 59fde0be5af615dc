"""docs/errors.md against the closed list of codes."""

from __future__ import annotations

import json

import pytest

from aigw.errors import CODES, CallerError
from aigw.protocols import DIALECTS
from tests.docs.pages import ROOT, blocks, tables

PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
ROWS = {row[0].strip("`"): row for rows in tables(PAGE).values() for row in rows if row[0].strip("`") in CODES}
SOURCES = [
    path.read_text(encoding="utf-8") for path in (ROOT / "aigw").rglob("*.py") if path.name not in ("errors.py", "remedies.py")
]


def test_every_code_is_there() -> None:
    """All codes, none twice, none invented."""
    written = [
        row[0].strip("`")
        for rows in tables(PAGE).values()
        for row in rows
        if len(row) == 4  # code, status, when, what to do
    ]
    assert sorted(written) == sorted(CODES)


@pytest.mark.parametrize("code", CODES)
def test_each_code(code: str) -> None:
    """Its status is the code's, and it says what to do, unless no part of this version uses it: then it says that."""
    _, status, when, advice = ROWS[code]
    assert status == str(CODES[code].status)
    used = any(f'"{code}"' in source for source in SOURCES)
    assert (when == "Not used by this version.") is not used
    assert bool(advice) is used


@pytest.mark.parametrize(("dialect", "index"), [("openai_chat", 0), ("anthropic_messages", 1)])
def test_the_shapes_shown(dialect: str, index: int) -> None:
    """The examples have the fields that the dialect writes, no more and no less."""
    shown = json.loads(blocks(PAGE, "json")[index].text)
    real = json.loads(DIALECTS[dialect].render_error(CallerError("caller_model_not_found", "...", param="model"), "req_1"))
    assert _shape(shown) == _shape(real)
    assert shown["error"]["type"] == real["error"]["type"]


def _shape(value: object) -> object:
    return {key: _shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None
