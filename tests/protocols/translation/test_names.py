"""Names that every provider takes: the same in each turn, never two alike."""

from __future__ import annotations

import re

from hypothesis import given, strategies as st

from aigw.canonical import Tool
from aigw.protocols.translation.names import renamed, short_id, spoken

GOOD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


@given(st.text())
def test_any_name_becomes_one_that_is_taken(name: str) -> None:
    assert GOOD.fullmatch(spoken(name))
    assert spoken(name) == spoken(spoken(name)) == spoken(name)


def test_good_names_stay_and_near_ones_stay_apart() -> None:
    assert spoken("get_weather-2") == "get_weather-2"
    assert len({spoken(name) for name in ("a.b", "a/b", "a b", "a_b", "x" * 65, "x" * 66, "1a", "天气")}) == 8


def test_only_the_callers_own_tools_are_renamed() -> None:
    assert renamed([Tool("f"), Tool("a.b"), Tool("web.search", server=True)]) == {spoken("a.b"): "a.b"}


@given(st.text(), st.sampled_from([9, 40, 64]))
def test_ids_are_short_and_clean(called: str, most: int) -> None:
    found = short_id(called, most)
    assert 0 < len(found) <= most
    assert re.fullmatch("[a-zA-Z0-9_-]+", found)
    assert short_id("call_1") == "call_1"
