"""Conversations that this gateway remembers: a caller names one in a header and sends what is new; what was said before goes
along.

    x-aigw-conversation: support-4711        {"messages": [{"role": "user", "content": "And in winter?"}]}

Each consumer has conversations of its own. The words of the system are those of the newest request that has any.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from aigw.canonical import Answer, Message, Part, Request, Role, Text, Thinking, ToolCall
from aigw.errors import CallerError, ConfigError, StoreError
from aigw.hooks import Host, Plugin, View
from aigw.plugins.keeping import Packed, packed, unpacked

_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")

LARGEST = 4 * 1024 * 1024
"""Bytes of a conversation that is kept; of a larger one its oldest turns are forgotten."""


WAITING = 1000
"""Conversations that wait for the store, in memory."""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`header` names the conversation. `days` that it is kept after its last turn, `most` messages of it go along."""

    header: str = "x-aigw-conversation"
    days: float = 30.0
    most: int = 100


class _Kept(msgspec.Struct, array_like=True, gc=False):
    role: Role
    parts: Packed
    name: str


Said = TypeVar("Said", Message, _Kept)

_write = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(list[_Kept]).decode


class History(Plugin):
    """Remembers conversations."""

    name = "history"
    phase = "prompt"
    reads = frozenset({"request", "answer"})
    fail = "closed"  # an answer that does not know what was said is worse than none
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        if not re.fullmatch(r"[A-Za-z0-9-]{1,60}", config.header):
            raise ConfigError("expected the name of a header", key=f"{key}.header")
        for name in ("days", "most"):
            if not getattr(config, name) > 0:
                raise ConfigError("expected a number above 0", key=f"{key}.{name}")
        self._unwritten: dict[str, bytes] = {}  # on their way into the store
        self._writing: set[asyncio.Task[None]] = set()

    def inherit(self, previous: Plugin) -> None:
        if isinstance(previous, History):
            self._unwritten = previous._unwritten  # noqa: SLF001

    async def shutdown(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing, timeout=5)

    async def request(self, view: View) -> Request | None:
        name = view.headers.get(self.config.header, "")
        if not name or not view.conversation:
            view.done()
            return None
        if not _NAME.fullmatch(name):
            raise CallerError(
                "caller_invalid_request",
                f"The header {self.config.header} must have 1 to 128 letters, digits and . _ : / @ -",
            )
        key = hashlib.sha256(f"{view.consumer_id}\0{name}".encode()).hexdigest()
        past = await self._past(key)
        request = view.request
        system, new = _parted(request.messages)
        said_before, before = _parted(past)
        messages = [*(system or said_before), *before, *new]
        try:  # now: plugins behind this one may change the parts
            view.state = (key, [_Kept(one.role, packed(one.parts), one.name) for one in messages])
        except (TypeError, ValueError, OverflowError, RecursionError):
            self.host.count("not_kept")
        return replace(request, messages=messages)

    async def _past(self, key: str) -> list[Message]:
        said = self._unwritten.get(key) or await self.host.kv.get(key)
        if said is None:
            self.host.count("begun")
            return []
        self.host.count("continued")
        try:
            return [Message(one.role, unpacked(one.parts), one.name) for one in _read(said)]
        except (msgspec.MsgspecError, KeyError):
            self.host.count("corrupt")
            return []

    def complete(self, view: View, answer: Answer | bytes) -> None:
        if view.state is None or isinstance(answer, bytes) or not answer.choices:
            return
        choice = answer.choices[0]
        parts: list[Part] = [part for part in choice.parts if isinstance(part, (Text, Thinking, ToolCall))]
        if choice.finish == "content_filter" or not parts:
            return
        key, messages = view.state
        said = self._said(messages, parts)
        if said is None:
            self.host.count("not_kept")
            return
        self._unwritten.pop(key, None)
        self._unwritten[key] = said
        while len(self._unwritten) > WAITING:  # the store is away for long
            del self._unwritten[next(iter(self._unwritten))]
        task = asyncio.get_running_loop().create_task(self._put(key, said))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _said(self, messages: Sequence[_Kept], answer: Sequence[Part]) -> bytes | None:
        """What is kept of a conversation: its newest turns, each from a question on."""
        try:
            system, turns = _parted([*messages, _Kept("assistant", packed(answer), "")])
            turns = _newest(turns, self.config.most)
            while turns:
                said = _write([*system, *turns])
                if len(said) <= LARGEST:
                    return said
                turns = _newest(turns, len(turns) - 1)
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass
        return None

    async def _put(self, key: str, said: bytes) -> None:
        try:
            await self.host.kv.put(key, said, self.config.days * 86400)
        except StoreError:
            self.host.count("store_failed")
            self.host.log.warning("a conversation was not kept: the store is away")
            return  # it stays in memory, for this process
        if self._unwritten.get(key) is said:
            del self._unwritten[key]


def _parted(messages: Sequence[Said]) -> tuple[list[Said], list[Said]]:
    """The system's words, and what was said."""
    system = [one for one in messages if one.role in ("system", "developer")]
    return system, [one for one in messages if one.role not in ("system", "developer")]


def _newest(messages: list[_Kept], most: int) -> list[_Kept]:
    """At most so many, from a user's question on: results of tools mean nothing without their calls."""
    if len(messages) <= most:
        return messages
    for number in range(len(messages) - most, len(messages)):
        one = messages[number]
        if one.role == "user" and not any(name == "ToolResult" for name, _ in one.parts):
            return messages[number:]
    return []
