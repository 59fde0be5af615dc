from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from aigw.exchange import Record
from aigw.storage.storable import LARGEST, decode_line, read_line, storable, write_line

RECORD = Record(id="r", at=1.5, took=3, stream=True, cost=None, first_token=7)


def test_a_good_record_is_left_as_it_is() -> None:
    """Equal, field by field, unknown costs included."""
    assert storable(RECORD) == RECORD


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("consumer", "a\ud83db", "a?b"),
        ("consumer", None, ""),
        ("tags", {"a": 1}, "{'a': 1}"),
        ("input", 2**64, LARGEST),
        ("input", -(2**64), -LARGEST),
        ("input", 2.7, 2),
        ("input", math.nan, 0),
        ("input", math.inf, LARGEST),
        ("input", "many", 0),
        ("cost", math.nan, None),
        ("stream", 1, True),
    ],
)
def test_what_does_not_fit_is_made_to(field: str, value: Any, expected: Any) -> None:
    """One field changes, the others stay."""
    fitted = storable(msgspec.structs.replace(RECORD, **{field: value}))
    assert fitted == msgspec.structs.replace(RECORD, **{field: expected})
    msgspec.json.decode(msgspec.json.encode(fitted), type=Record)


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, None])
def test_a_time_that_is_none_becomes_now(at: Any) -> None:
    """Such a record would be in no hour at all."""
    assert storable(msgspec.structs.replace(RECORD, at=at)).at > 1_700_000_000


def test_a_line_is_read_back() -> None:
    """As it was written, and whichever version wrote it."""
    assert read_line(write_line(RECORD)) == decode_line(write_line(RECORD)) == RECORD
    assert b"\n" not in write_line(msgspec.structs.replace(RECORD, tags="a\nb"))
    assert read_line(b'["r",1.5]') == Record(id="r", at=1.5)


def test_a_line_with_an_odd_value_is_read_back_too() -> None:
    """It was kept, so it can be seen: the odd value is made to fit, its neighbours are as they were."""
    line = write_line(msgspec.structs.replace(RECORD, finish_reason=None, bytes_in=2.5))
    assert read_line(line) == msgspec.structs.replace(RECORD, finish_reason="", bytes_in=2)


@pytest.mark.parametrize("line", [b"", b"nonsense", b"\x00\x00", b'["half'])
def test_what_is_no_line_is_said(line: bytes) -> None:
    """Damage is not made up for."""
    with pytest.raises(msgspec.DecodeError):
        read_line(line)
