"""docs/providers.md shows the catalog as it is."""

from __future__ import annotations

from aigw.cli import provider_keys
from aigw.providers import catalog
from tests.docs.pages import spans
from tests.docs.providers_table import PAGE, with_table

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_is_the_catalog() -> None:
    """Made again, it is the same: python -m tests.docs.providers_table"""
    assert with_table(TEXT) == TEXT
    assert TEXT.count("\n| `") == len(catalog.ids()) + 1


def test_every_verdict_is_explained() -> None:
    """Whoever reads a verdict in the terminal or in --json finds it here."""
    words = set(spans(TEXT))
    for code, (english, _) in provider_keys.WORDS.items():
        assert code in words
        assert english in TEXT
