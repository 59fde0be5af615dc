"""Recorded streams of tests/wire: what hosts really send, with what must be read in it.

`<dialect>/<case>.sse` is the stream, byte for byte; `<case>.json` beside it says `usage` (the counts that are not nought; null
when none is told), `model`, `finish_reason`, and which event (counted from 0) is kept back when only we asked for usage
(`hidden_event`) and which one is an error (`error_event`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from aigw.exchange import Usage

WIRE = Path(__file__).parent / "wire"


class Recording(NamedTuple):
    dialect: str
    name: str
    stream: bytes
    usage: Usage | None
    model: str
    finish_reason: str
    hidden_event: int | None
    error_event: int | None

    @property
    def events(self) -> list[bytes]:
        return re.findall(rb".+?(?:\r\n\r\n|\n\n|$)", self.stream, re.DOTALL)

    def shown(self, *, hide_usage: bool) -> bytes:
        """What the caller must get of it."""
        events = self.events[: self.error_event]
        if hide_usage and self.hidden_event is not None:
            del events[self.hidden_event]
        return b"".join(events)


def _read(path: Path) -> Recording:
    told = json.loads(path.with_suffix(".json").read_text())
    told["usage"] = None if told["usage"] is None else Usage(**told["usage"])
    return Recording(path.parent.name, path.stem, path.read_bytes(), **told)


RECORDINGS = [_read(path) for path in sorted(WIRE.glob("*/*.sse"))]
