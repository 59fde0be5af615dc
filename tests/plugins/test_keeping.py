"""Parts as bytes, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from aigw.canonical import Foreign, Media, Refusal, Text, Thinking, ToolCall, ToolResult
from aigw.plugins.keeping import packed, unpacked

texts = st.text(max_size=20)
simple = st.one_of(
    st.builds(Text, texts, signature=texts),
    st.builds(Media, st.just("image"), data=texts, type=texts),
    st.builds(Foreign, texts, texts, st.dictionaries(texts, st.none() | st.booleans() | texts)),
)
parts = st.one_of(
    simple,
    st.builds(Thinking, texts, texts, texts, texts, texts),
    st.builds(ToolCall, texts, texts, texts, st.booleans()),
    st.builds(Refusal, texts),
    st.builds(ToolResult, texts, st.lists(simple, max_size=2), texts, st.booleans(), st.booleans()),
)


@given(st.lists(parts, max_size=5))
def test_there_and_back(said: list[Any]) -> None:
    raw = msgspec.msgpack.encode(packed(said))
    assert unpacked(msgspec.msgpack.decode(raw, type=list[tuple[str, msgspec.Raw]])) == said


def test_what_is_no_part() -> None:
    with pytest.raises(KeyError):
        unpacked([("Path", msgspec.Raw(b"\x80"))])
    with pytest.raises(msgspec.MsgspecError):
        unpacked([("Text", msgspec.Raw(b"\x80"))])
    with pytest.raises((TypeError, OverflowError)):
        packed([Foreign("x", "y", {"n": 2**70})])
