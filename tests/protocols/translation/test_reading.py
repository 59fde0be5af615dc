"""Members of a caller's object: of the type they must have, or a complaint that names the path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aigw.errors import CallerError
from aigw.protocols.translation.reading import Members, data_uri, decode_object


def test_what_is_taken_is_gone_and_the_rest_is_left() -> None:
    said = {"t": "a", "n": 1.5, "w": 3.0, "f": True, "o": {}, "l": [1], "s": "x", "null": None, "left": 0}
    asked = Members(said)
    assert (asked.text("t"), asked.number("n"), asked.whole("w"), asked.flag("f")) == ("a", 1.5, 3, True)
    assert (asked.table("o"), asked.listed("l"), asked.strings("s")) == ({}, [1], ["x"])
    assert (asked.text("no"), asked.number("null"), asked.listed("no"), asked.table("no")) == ("", None, [], None)
    assert asked.left() == {"left": 0}
    assert "t" in said, "the caller's object is not touched"


@pytest.mark.parametrize(
    ("take", "value"),
    [
        (Members.text, 1),
        (Members.number, "1"),
        (Members.number, True),
        (Members.number, 10**400),
        (Members.whole, 1.5),
        (Members.flag, 1),
        (Members.table, []),
        (Members.listed, {}),
        (Members.strings, [1]),
        (Members.needed, None),
    ],
)
def test_the_wrong_type_is_named_by_its_path(take: Callable[[Members, str], Any], value: Any) -> None:
    with pytest.raises(CallerError) as refused:
        take(Members({"x": value}, "tools[2]"), "x")
    assert refused.value.param == "tools[2].x"
    assert "tools[2].x" in refused.value.message


def test_an_object_is_needed() -> None:
    with pytest.raises(CallerError, match=r"`messages\[0\]` must be an object, not a string"):
        Members("x", "messages[0]")
    for body in (b"[]", b"", b"nope", b'{"a":NaN}', b'{"a":' * 10_000):
        with pytest.raises(CallerError) as refused:
            decode_object(body)
        assert refused.value.code == "caller_invalid_json"


def test_a_number_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(CallerError, match=r"out of range|not valid"):
        decode_object(b'{"a":1e999}')


def test_half_a_surrogate_pair_is_mended() -> None:
    assert decode_object(b'{"a":"x\\ud83dy"}') == {"a": "x?y"}


def test_data_uris() -> None:
    assert data_uri("data:image/PNG;base64,AAAA") == ("image/png", "AAAA")
    assert data_uri("data:text/plain;charset=utf-8,a%20b") == ("text/plain", "YSBi")
    assert data_uri("https://x/data:,") is None
