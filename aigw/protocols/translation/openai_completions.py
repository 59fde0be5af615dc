"""OpenAI's older text completions: for callers of them in front of providers that only chat, and for servers that have nothing
else. A prompt is a user's message; an answer is its text alone: thoughts have no place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from aigw.canonical import (
    Answer,
    Choice,
    Event,
    Finished,
    Losses,
    Message,
    Refusal,
    RefusalDelta,
    Request,
    Spent,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
)
from aigw.protocols.dialect import Told
from aigw.protocols.translation.contract import Reply, Toward
from aigw.protocols.translation.openai_chat import answer as chat
from aigw.protocols.translation.openai_chat.request import DIALECT, sampling, shared
from aigw.protocols.translation.openai_chat.stream import ChatParser
from aigw.protocols.translation.openai_chat.upstream import Writing
from aigw.protocols.translation.reading import Members, decode_object, invalid, unsupported

_encode = msgspec.json.encode

_SAID = frozenset(
    """model prompt stream stream_options max_tokens max_completion_tokens temperature top_p top_k stop n seed presence_penalty
    frequency_penalty logprobs top_logprobs logit_bias user messages""".split()  # noqa: SIM905 - reads better
)
"""Of what a chat request would say, that which a completion can."""


class OpenAICompletions:
    """Implements `Translator`."""

    name = "completions"
    dialect = DIALECT
    spelling: ClassVar[dict[str, str]] = {"top_logprobs": "logprobs", "include_usage": "stream_options"}
    content_type = b"text/event-stream"
    streams = True

    def parse_request(self, body: bytes, model: str, *, stream: bool) -> Request:
        asked = Members(decode_object(body))
        prompt = _prompt(asked.take("prompt"))
        request = Request(dialect=DIALECT, model=model, stream=stream, messages=[Message("user", [Text(prompt)])])
        if asked.text("suffix"):
            raise unsupported(
                "suffix",
                "`suffix` asks for text between two others, which only a model of text completions can write. "
                "Leave it out, or use such a model.",
            )
        sampling(asked, request)
        wanted = asked.whole("logprobs")
        if wanted is not None:
            request.logprobs, request.top_logprobs = True, wanted or None
        shared(asked, request)
        many = asked.whole("best_of")
        if many is not None and many > (request.n or 1):
            request.extras["best_of"] = many
        if asked.flag("echo"):
            request.extras["echo"] = True
        request.extras |= asked.left()
        return request

    def render_request(self, request: Any, toward: Toward, losses: Losses) -> bytes:
        """A conversation of more than one message of text is refused: a server of text completions has no turns."""
        asked: Request = request
        texts = [part.text for message in asked.messages for part in message.parts if isinstance(part, Text)]
        one = len(asked.messages) == 1 and asked.messages[0].role == "user" and len(texts) == len(asked.messages[0].parts)
        if not one or any(not tool.server for tool in asked.tools):
            raise unsupported(
                "messages",
                f"{toward.model} is served by an API of text completions, which has no turns, images or tools. Send one "
                "message of text, or use a model that chats.",
            )
        body = Writing(asked, toward, losses).done()
        for name in [name for name in body if name not in _SAID]:
            del body[name]
            losses.add({"reasoning_effort": "reasoning", "response_format": "format"}.get(name, name))
        del body["messages"]
        if "logprobs" in body:
            body["logprobs"] = body.pop("top_logprobs", None) or 1
        if "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        body["prompt"] = "\n\n".join(texts)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        return chat.read(body)

    def render_answer(self, answer: Any, reply: Reply) -> bytes:
        said: Answer = answer
        body: dict[str, Any] = _head(reply, said.id, said.model, said.created)
        body["choices"] = [_choice(choice) for choice in said.choices]
        if said.spent is not None:
            body["usage"] = chat.usage_object(said.spent)
        return _encode(body)

    def parser(self) -> ChatParser:
        return ChatParser()

    def renderer(self, reply: Reply) -> CompletionsRenderer:
        return CompletionsRenderer(reply)


def _prompt(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid("prompt", "a string", value)
    if len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if value and all(isinstance(one, str) for one in value):
        raise unsupported("prompt", "`prompt` is a list, and this model answers one prompt at a time. Send a request for each.")
    raise unsupported("prompt", "`prompt` holds numbers of tokens, which mean nothing to this model. Send text.")


def _head(reply: Reply, called: str, model: str, created: int) -> dict[str, Any]:
    return {
        "id": called or f"cmpl-{reply.id.removeprefix('req_')}",
        "object": "text_completion",
        "created": created or int(reply.now),
        "model": reply.model or model or reply.request.model,
    }


def _choice(choice: Choice) -> dict[str, Any]:
    text = "".join(part.text for part in choice.parts if isinstance(part, Text | Refusal))
    return {
        "text": text,
        "index": choice.index,
        "logprobs": older_logprobs(choice.logprobs),
        "finish_reason": _finish(choice.finish),
    }


def _finish(finish: str) -> str:
    return "stop" if finish == "tool_calls" else finish


def older_logprobs(newer: Any, at: int = 0) -> dict[str, Any] | None:
    """Chat's logprobs as completions have them. *at* is how many characters came before."""
    content = newer.get("content") if isinstance(newer, dict) else None
    if not isinstance(content, list):
        return newer if isinstance(newer, dict) and "tokens" in newer else None
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in content:
        if isinstance(entry, dict):
            token = str(entry.get("token") or "")
            found["tokens"].append(token)
            found["token_logprobs"].append(entry.get("logprob"))
            tops = [top for top in entry.get("top_logprobs") or [] if isinstance(top, dict)]
            found["top_logprobs"].append({str(top.get("token")): top.get("logprob") for top in tops})
            found["text_offset"].append(at)
            at += len(token)
    return found


class CompletionsRenderer:
    """Implements `StreamRenderer`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._started = Started()
        self._head = b""
        self._spent: Spent | None = None
        self._length: dict[int, int] = {}

    def render(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                if event.text:
                    out.append(self._text(event))
            elif isinstance(event, Started):
                self._started, self._spent = event, event.spent or self._spent
            elif isinstance(event, SpentSoFar):
                self._spent = event.spent
            elif isinstance(event, Finished):
                choice = {"text": "", "index": event.choice, "logprobs": None, "finish_reason": _finish(event.finish)}
                out.append(b'%b"choices":[%b]}\n\n' % (self._start(), _encode(choice)))
        return b"".join(out)

    def end(self) -> bytes:
        last = b""
        if self._reply.include_usage and self._spent is not None:
            last = b'%b"choices":[],"usage":%b}\n\n' % (self._start(), _encode(chat.usage_object(self._spent)))
        return last + b"data: [DONE]\n\n"

    def _text(self, event: TextDelta | RefusalDelta) -> bytes:
        at = self._length.get(event.choice, 0)
        self._length[event.choice] = at + len(event.text)
        logprobs = older_logprobs(event.logprobs, at) if isinstance(event, TextDelta) and event.logprobs else None
        choice = {"text": event.text, "index": event.choice, "logprobs": logprobs, "finish_reason": None}
        return b'%b"choices":[%b]}\n\n' % (self._start(), _encode(choice))

    def _start(self) -> bytes:
        if not self._head:
            started = self._started
            head = _head(self._reply, started.id, started.model, started.created)
            self._head = b"data: " + _encode(head)[:-1] + b","
        return self._head
