from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from aigw.exchange import Record
from aigw.storage.storable import LARGEST, storable

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
