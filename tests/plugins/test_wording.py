"""Variables in texts."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aigw.plugins.wording import filled, is_known, variables


def test_places() -> None:
    assert variables("{{a}} {{ b }} {{a}} {c} {{}} {{1}} {{header.x-y}}") == ["a", "b", "header.x-y"]
    assert filled("Hi {{ a }}, {{b}}", {"a": "Ann", "b": "{{a}}"}) == "Hi Ann, {{a}}", "put in once"
    with pytest.raises(KeyError):
        filled("{{a}}", {})
    assert is_known("consumer")
    assert is_known("tag.team")
    assert not is_known("secret")


@given(st.text(), st.text())
def test_values_are_texts(text: str, value: str) -> None:
    """Whatever stands in them: backslashes, braces, patterns of regular expressions."""
    assert filled(f"a{{{{x}}}}b{text.replace('{', '')}", {"x": value}) == f"a{value}b{text.replace('{', '')}"
