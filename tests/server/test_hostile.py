"""Hostile, broken and slow callers against a real server process: the table of `hostile_table.py`, a test for each row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.hostile_table import CASES, ELSEWHERE, Case, World, play, world_at_war


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_at_war() as world:
        yield world


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(world: World, case: Case) -> None:
    """It comes out as the table says; afterwards good callers are served, nothing is leaked, no secret was said."""
    found, _ = play(world, case)
    assert found == case.expected


def test_no_case_is_forgotten() -> None:
    """All of the list's cases about callers are here, or named with the place where they are."""
    assert {int(case.number) for case in CASES} | {int(number) for number in ELSEWHERE} == set(range(1, 60))
