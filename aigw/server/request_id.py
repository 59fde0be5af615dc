"""Names for requests: in every answer, log line, error and record."""

from __future__ import annotations

import secrets
from itertools import count

_BOOT = secrets.token_hex(6)
_numbers = count(1)


def new_id() -> str:
    """A request id: unique across processes by its first half, in order within one by its second."""
    return f"req_{_BOOT}{next(_numbers):08x}"
