"""Every point where someone may speak, in the order an exchange meets them.

Today there is one: `recorded`, at the very end, for those who only listen (metrics, the log). Plugins that edit, answer or
refuse a request get their points here.
"""

from __future__ import annotations

from typing import Protocol

from aigw.exchange import Record


class Listener(Protocol):
    """Hears of each exchange once, after its record was journalled. Must not block; what it raises is counted."""

    def recorded(self, record: Record) -> None: ...
