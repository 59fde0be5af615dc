"""Makes any record fit to be kept: one odd value from a provider must not hold up all the records behind it.

Only used when a record was refused as it is, so the usual record pays nothing for it.
"""

from __future__ import annotations

import math
import time

import msgspec

from aigw.exchange import Record

LARGEST = 10**15
"""No honest count, duration or price of one exchange is larger (10**15 nano-dollars are a million dollars), and a thousand of
them still fit the 64 bits of a database's integer."""

_FIELDS = msgspec.structs.fields(Record)


def storable(record: Record) -> Record:
    """A copy of *record* whose integers fit 64 bits, whose texts are UTF-8 and whose types are those declared."""
    values: dict[str, object] = {}
    for field in _FIELDS:
        value = getattr(record, field.name)
        if field.type is str:
            text = value if isinstance(value, str) else "" if value is None else str(value)
            values[field.name] = text.encode("utf-8", "replace").decode("utf-8")
        elif field.type is float:
            values[field.name] = float(value) if isinstance(value, (int, float)) and math.isfinite(value) else time.time()
        elif field.type is bool:
            values[field.name] = bool(value)
        else:
            values[field.name] = _integer(value, None if field.default is None else 0)
    return Record(**values)  # type: ignore[arg-type]  # each value was just made of its field's type


def _integer(value: object, otherwise: int | None) -> int | None:
    if isinstance(value, float) and math.isinf(value):
        return LARGEST if value > 0 else -LARGEST
    if isinstance(value, (int, float)) and not math.isnan(value):
        return max(-LARGEST, min(LARGEST, int(value)))
    return otherwise
