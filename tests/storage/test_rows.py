"""Nouns as rows and back."""

from __future__ import annotations

from aigw.consumer import Budget, Consumer, ConsumerKey, OnBudget, Terms
from aigw.storage.migrations import m001_initial, p001_initial
from aigw.storage.rows import CONSUMER_FIELDS, KEY_FIELDS, TABLES, consumer_from, consumer_row, key_from, quoted


def test_a_consumer_is_a_row_and_the_row_is_the_consumer() -> None:
    """Every field, terms and truths among them."""
    terms = Terms(models=("gpt-*",), rpm=0, budgets=(Budget(5, "tokens", "day"),), on_budget=OnBudget(0.8, "cheap"), hard=False)
    for consumer in (
        Consumer(id="a", name="b"),
        Consumer(id="a", name="b", group="g", tags="{}", terms=terms, metadata="m", lead=True, parent="p", disabled=True),
    ):
        row = consumer_row(consumer)
        assert len(row) == len(CONSUMER_FIELDS)
        assert {type(value) for value in row} <= {str, int}
        assert consumer_from(row) == consumer


def test_a_key() -> None:
    key = ConsumerKey(id="k", consumer_id="c", digest=b"\0", created=1.0, expires=None, revoked=2.0)
    assert key_from([getattr(key, name) for name in KEY_FIELDS]) == key


def test_every_table_is_moved_or_known_not_to_be() -> None:
    """A new table is noticed here: in both databases, with the same columns."""
    stays = {"schema_version", "change", "lease"}
    for statements in (m001_initial.STATEMENTS, p001_initial.STATEMENTS):
        made = {text.split("CREATE TABLE ")[1].split(" ")[0] for text in statements if "CREATE TABLE" in text}
        assert made - stays == set(TABLES)
    assert quoted(("a", "group")) == '"a", "group"'
