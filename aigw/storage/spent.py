"""What records were charged to budgets, by holder and quarter of an hour: the ledger's rows.

The same code sums records for every store, so no two can disagree about what a budget has used.
"""

from __future__ import annotations

from collections.abc import Iterable

from aigw.exchange import Record

QUARTER = 900
"""Seconds of one row. The days of every time zone there is begin at a multiple of it."""

EXACT_FOR = 100 * 86400
"""Seconds for which quarters are kept apart; older ones become one row per holder, of quarter 0. The longest window of a
budget that begins anew is a month, and `total` begins at 0."""

MERGED_AT_ONCE = 200
"""Holders whose old quarters are put together in one go: bounded work between two batches of records."""

SHADOW = "shadow"
"""The arm of exchanges that no consumer asked for: copies. They are on nobody's account."""


def charges(records: Iterable[Record]) -> dict[tuple[str, int], tuple[int, int]]:
    """Nano-USD and tokens (input and output) by holder - a consumer's id; "g:" and a group's name - and quarter of an hour
    since the epoch. Records that cost nobody anything are left out. Raises TypeError for a count that is no integer."""
    sums: dict[tuple[str, str, int], list[int]] = {}
    for record in records:
        charged, tokens = record.charged, record.input + record.output
        if (charged or tokens) and record.arm != SHADOW:
            key = record.consumer_id, record.group, int(record.at // QUARTER)
            sum_ = sums.get(key)
            if sum_ is None:
                sums[key] = [charged, tokens]
            else:
                sum_[0] += charged
                sum_[1] += tokens
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for (consumer, group, quarter), (usd, tokens) in sums.items():
        if type(usd) is not int or type(tokens) is not int:
            raise TypeError("a record holds a charge that is no integer")
        for holder in (consumer, group and f"g:{group}"):
            if holder:
                before = found.get((holder, quarter), (0, 0))
                found[holder, quarter] = before[0] + usd, before[1] + tokens
    return found
