"""The ledger's sums, before any store has them."""

from __future__ import annotations

import pytest

from aigw.exchange import Record
from aigw.storage.spent import QUARTER, charges

AT = QUARTER * 2_000_000.0


def test_a_consumer_and_its_group_are_charged_by_the_quarter() -> None:
    """Both get all of it; the next quarter is another row."""
    records = [
        Record(id="1", at=AT, consumer_id="c", group="g", charged=5, input=2, output=1),
        Record(id="2", at=AT + QUARTER - 0.001, consumer_id="d", group="g", charged=7),
        Record(id="3", at=AT + QUARTER, consumer_id="c", charged=1, output=4),
    ]
    assert charges(records) == {
        ("c", 2_000_000): (5, 3),
        ("d", 2_000_000): (7, 0),
        ("g:g", 2_000_000): (12, 3),
        ("c", 2_000_001): (1, 4),
    }


def test_nobody_pays_for_nothing_for_strangers_or_for_shadows() -> None:
    """No row for a refusal, for a caller without a name, or for a copy that nobody asked for."""
    records = [
        Record(id="1", at=AT, consumer_id="c"),
        Record(id="2", at=AT, input=5),
        Record(id="3", at=AT, consumer_id="c", input=5, arm="shadow"),
    ]
    assert charges(records) == {}


def test_a_charge_that_is_no_integer_is_refused() -> None:
    """Before it can spoil a sum."""
    with pytest.raises(TypeError, match="no integer"):
        charges([Record(id="1", at=AT, consumer_id="c", charged=0.5)])  # type: ignore[arg-type]
