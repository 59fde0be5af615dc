"""A record as a line of JSON, the form in which it is kept; and any record made fit for it: one odd value from a provider must
not hold up all the records behind it.

`storable` is only used when a record was refused as it is, so the usual record pays nothing for it.
"""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec

from aigw.exchange import Record

LARGEST = 10**15
"""No honest count, duration or price of one exchange is larger (10**15 nano-dollars are a million dollars), and a thousand of
them still fit the 64 bits of a database's integer."""

_FIELDS = msgspec.structs.fields(Record)

write_line = msgspec.json.Encoder().encode
"""The line of a record, a JSON array without a line end. Raises ArithmeticError, TypeError or ValueError for one that has to be
made storable first."""

decode_line = msgspec.json.Decoder(Record).decode
"""The record of a line. Raises msgspec.DecodeError for what is no record."""


def read_line(line: bytes) -> Record:
    """The record of a line that was kept, also when a value in it is not of its field's type: then it is made fit. Raises
    msgspec.DecodeError for what is no JSON array."""
    try:
        return decode_line(line)
    except msgspec.ValidationError:
        values = msgspec.json.decode(line, type=list[Any])
        return storable(Record(**{field.name: value for field, value in zip(_FIELDS, values, strict=False)}))


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
