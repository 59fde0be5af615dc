"""Coze's bots (`/v3/chat`), for providers only. A bot's answer is always asked for as a stream: else Coze wants to be polled.

The model is the bot's id ("bot-7350..." or the bare digits), else the setting `bot_id` says which. Facts: the Coze developer
guides, and the `cozepy` SDK's events, as of 2026.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import Answer, Event, Losses, Message, Request, SpentSoFar, ThinkingDelta
from aigw.errors import CallerError
from aigw.exchange import Usage
from aigw.protocols import framing
from aigw.protocols.dialect import Told
from aigw.protocols.framing import EventReader
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import EventParser, lose_all_but, refuse_tools, words
from aigw.protocols.translation.spent import spent_of

DIALECT = "coze"
SAID = frozenset({"user", "metadata"})
_WHO = "A Coze bot"
_NOBODY = "aigw"
_OWN_EXTRAS = ("custom_variables", "conversation_id")

_encode = msgspec.json.encode


class Coze:
    """Implements `Shape`."""

    name = "coze"
    dialect = DIALECT
    content_type = b"text/event-stream"
    streams = True

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        refuse_tools(request, losses, _WHO)
        messages = [_said(message, losses) for message in request.messages]
        body: dict[str, Any] = {
            "bot_id": _bot(toward),
            "user_id": request.user or toward.settings.get("user_id") or _NOBODY,
            "stream": True,
            "auto_save_history": False,
            "additional_messages": [message for message in messages if message["content"]],
        }
        if request.metadata:
            body["meta_data"] = request.metadata
        variables = request.extras.get("custom_variables")
        if isinstance(variables, dict):
            body["custom_variables"] = variables
        if "conversation_id" in request.extras:
            losses.add("conversation_id")  # it stands in the query there; the history is sent instead
        lose_all_but(request, losses, SAID, taken=_OWN_EXTRAS)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        raise ValueError("a stream was asked for")  # what comes instead is an error, and read as one before

    def parser(self) -> CozeParser:
        return CozeParser()


class _Named(EventReader):
    """Events with their names: name, a line feed, data."""

    __slots__ = ()

    @staticmethod
    def read(event: bytes) -> bytes:
        name = b""
        for line in event.splitlines():
            if line.startswith(b"event:"):
                name = line[6:].strip()
        data = framing.data(event)
        return name + b"\n" + data if data else b""


class _Event(msgspec.Struct, gc=False):
    id: str | None = None
    type: str | None = None
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    content_type: str | None = None
    created_at: Any = None
    usage: Any = None
    last_error: Any = None
    code: Any = None
    msg: Any = None


_event = msgspec.json.Decoder(_Event).decode


class CozeParser(EventParser):
    """Implements `StreamParser`. Messages that are no answers (the bot's own tool calls, suggestions) are not the caller's."""

    def __init__(self) -> None:
        super().__init__(_Named())

    def look(self, data: bytes, events: list[Event]) -> None:
        name, _, text = data.partition(b"\n")
        try:
            event = _event(text)
        except (ValueError, RecursionError):
            return
        if name == b"error" or (not name and event.code not in (None, 0)):
            self.failed = _encode({"code": event.code, "msg": str(event.msg or "")})
        elif name == b"conversation.chat.failed":
            error = event.last_error if isinstance(event.last_error, dict) else {}
            self.failed = _encode({"code": error.get("code", -1), "msg": str(error.get("msg") or "the bot failed")})
        elif name == b"conversation.chat.requires_action":
            self.failed = _encode({"code": -1, "msg": "the bot calls a tool of its client's, which the gateway cannot answer"})
        elif name == b"conversation.chat.created":
            created = event.created_at
            self.starts(events, id=event.id or "", created=created if isinstance(created, int) else 0)
        elif name == b"conversation.message.delta" and event.type in (None, "answer"):
            self.starts(events)
            if event.reasoning_content:
                self.begun = True
                events.append(ThinkingDelta(event.reasoning_content, origin=DIALECT))
            self.says(event.content or "", events)
        elif name == b"conversation.chat.completed":
            self.starts(events)
            usage = self.told.usage = usage_of(event.usage)
            self.finish("stop", events)
            if usage is not None:
                events.append(SpentSoFar(spent_of(usage)))
            self.done = True


def usage_of(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get(name) for name in ("input_count", "output_count")]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        return None
    return Usage(input=counts[0] or 0, output=counts[1] or 0)


def _said(message: Message, losses: Losses) -> dict[str, str]:
    """Coze knows users and assistants: a system message is told as a user's."""
    role = "assistant" if message.role == "assistant" else "user"
    return {"role": role, "content": words(message, losses, _WHO), "content_type": "text"}


def _bot(toward: Toward) -> str:
    name = toward.model.removeprefix("bot-")
    if toward.model.startswith("bot-") or name.isdigit():
        return name
    bot = toward.settings.get("bot_id", "")
    if not bot:
        raise CallerError("caller_unsupported", "Which bot? Name it as the model: bot- and its id.", param="model")
    return bot
