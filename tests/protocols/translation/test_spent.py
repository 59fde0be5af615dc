"""Answers tell the counts that the record has."""

from __future__ import annotations

from aigw.canonical import Spent
from aigw.exchange import Usage
from aigw.protocols.translation.spent import spent_of


def test_every_count_keeps_its_name() -> None:
    counts = {name: number for number, name in enumerate(Spent.__struct_fields__, 1)}
    assert spent_of(Usage(**counts, service_tier="flex")) == Spent(**counts)
