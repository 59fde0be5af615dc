"""Parts of messages and answers as bytes, for plugins that keep them: what is written here can be read by later versions, or is
refused, but never read as something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigw import canonical
from aigw.canonical import Part, ToolResult

_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (canonical.Text, canonical.Media, canonical.Thinking, canonical.ToolCall, canonical.Refusal, canonical.Foreign)
}

Packed = list[tuple[str, msgspec.Raw]]
"""Each part: the name of its kind, and itself in MessagePack."""


class _Result(msgspec.Struct, array_like=True, gc=False):
    id: str
    parts: Packed
    name: str
    is_error: bool
    custom: bool


_pack = msgspec.msgpack.Encoder().encode
_readers = {name: msgspec.msgpack.Decoder(kind) for name, kind in _KINDS.items()}
_read_result = msgspec.msgpack.Decoder(_Result).decode


def packed(parts: Sequence[Part]) -> Packed:
    """Raises TypeError, ValueError or OverflowError for what cannot be kept."""
    found: Packed = []
    for part in parts:
        if isinstance(part, ToolResult):
            result = _Result(part.id, packed(part.parts), part.name, part.is_error, part.custom)
            found.append(("ToolResult", msgspec.Raw(_pack(result))))
        else:
            found.append((type(part).__name__, msgspec.Raw(_pack(part))))
    return found


def unpacked(parts: Packed) -> list[Any]:
    """What `packed` made. Raises MsgspecError, KeyError for what it did not."""
    found: list[Any] = []
    for name, said in parts:
        if name == "ToolResult":
            one = _read_result(said)
            found.append(ToolResult(one.id, unpacked(one.parts), one.name, one.is_error, one.custom))
        else:
            found.append(_readers[name].decode(said))
    return found
