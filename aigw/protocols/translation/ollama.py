"""Ollama's own chat (`/api/chat`), for providers only: its streams are lines of JSON, its options a table.

Facts: Ollama's docs/api.md and `api/types.go` as of 2026; the counts are `prompt_eval_count` (the whole prompt, also what was
cached) and `eval_count`.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from aigw.canonical import (
    Answer,
    CallDelta,
    CallStarted,
    Choice,
    Event,
    Finish,
    Finished,
    Foreign,
    Losses,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from aigw.exchange import Usage
from aigw.protocols.dialect import Said, Told, decode_leniently, says
from aigw.protocols.framing import LineReader
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.embeddings import EmbeddingAnswer, EmbeddingRequest
from aigw.protocols.translation.names import spoken
from aigw.protocols.translation.reading import unsupported
from aigw.protocols.translation.spent import spent_of

DIALECT = "ollama"

_OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}

_UNSAID = ("n", "logit_bias", "verbosity", "modalities", "audio", "user", "metadata", "service_tier", "parallel")
"""Fields of a request that Ollama has no word for. (`store`, marks and keys of caches are advice.)"""

_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Said = msgspec.UNSET


_line = msgspec.json.Decoder(_Line).decode


class OllamaChat:
    """Implements `Shape`."""

    name = "ollama_chat"
    dialect = DIALECT
    content_type = b"application/x-ndjson"
    streams = True

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        body: dict[str, Any] = {"model": toward.model, "messages": _messages(request, losses), "stream": toward.stream}
        options = {said: value for name, said in _OPTIONS.items() if (value := getattr(request, name)) is not None}
        if request.stop:
            options["stop"] = request.stop
        if options:
            body["options"] = options
        _tools(request, body, losses)
        if request.format is not None:
            body["format"] = "json" if request.format.schema is None else request.format.schema
        if request.reasoning is not None:
            body["think"] = _think(request.reasoning, toward.model)
        if request.logprobs:
            body["logprobs"] = True
            if request.top_logprobs is not None:
                body["top_logprobs"] = request.top_logprobs
        for name in _UNSAID:
            value = getattr(request, name)
            if value not in (None, "", [], {}) and not (name == "n" and value == 1) and not (name == "parallel" and value):
                losses.add(name)
        for name in request.extras:
            if name == "keep_alive":
                body[name] = request.extras[name]  # how long the model stays loaded
            else:
                losses.add(name)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        parser = OllamaParser()
        said = _line(body)  # msgspec's errors are ValueErrors
        if said.message is None or says(said.error):
            raise ValueError("no answer")
        parts: list[Part] = []
        if said.message.thinking:
            parts.append(Thinking(said.message.thinking, origin=DIALECT))
        if said.message.content:
            parts.append(Text(said.message.content))
        called = said.message.tool_calls or ()
        parts += [ToolCall(call.id or "", call.function.name, _arguments(call.function.arguments)) for call in called]
        usage = parser.count(said)
        finish = _finish(said.done_reason, called=bool(said.message.tool_calls))
        answer = Answer(model=said.model or "", choices=[Choice(parts, finish)])
        if usage is not None:
            answer.spent = spent_of(usage)
        return answer, Told(usage, said.model or "", finish)

    def parser(self) -> OllamaParser:
        return OllamaParser()


class OllamaEmbeddings:
    """`/api/embed`. Implements `Shape`."""

    name = "ollama_embed"
    dialect = DIALECT
    content_type = b"application/json"
    streams = False

    def render_request(self, request: EmbeddingRequest, toward: Toward, losses: Losses) -> bytes:
        extras = dict(request.extras)
        body: dict[str, Any] = {"model": toward.model, "input": request.texts}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        for name in ("truncate", "keep_alive", "options"):  # Ollama's own words
            if name in extras:
                body[name] = extras.pop(name)
        for name in ("task", "titles", "user"):
            if getattr(request, name):
                losses.add(name)
        for name in extras:
            losses.add(name)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        said = decode_leniently(body)
        vectors, model, count = said.get("embeddings"), said.get("model"), said.get("prompt_eval_count")
        if not isinstance(vectors, list) or not all(isinstance(one, list) for one in vectors):
            raise ValueError("an answer without embeddings")
        name = model if isinstance(model, str) else ""
        usage = Usage(input=count) if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
        return EmbeddingAnswer(model=name, vectors=vectors, usage=usage), Told(usage, name)

    def parser(self) -> NoReturn:
        raise NotImplementedError("embeddings are never a stream")


class OllamaParser:
    """Implements `StreamParser`: a line of JSON for each piece, the last one `done`."""

    def __init__(self) -> None:
        self.told = Told()
        self.failed = b""
        self.begun = False
        self.done = False
        self._lines = LineReader()
        self._started = False
        self._calls = 0

    def feed(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        for line in self._lines.feed(block):
            self._look(line, events)
        return events

    def end(self) -> list[Event]:
        events: list[Event] = []
        for line in self._lines.end():
            self._look(line, events)
        return events

    def count(self, said: _Line) -> Usage | None:
        if said.prompt_eval_count is None and said.eval_count is None:
            return None
        return Usage(input=max(0, said.prompt_eval_count or 0), output=max(0, said.eval_count or 0))

    def _look(self, line: bytes, events: list[Event]) -> None:
        if self.done or self.failed:
            return
        try:
            said = _line(line)
        except (ValueError, RecursionError):
            return
        if says(said.error):
            self.failed = line
            return
        if not self._started:
            self._started = True
            self.told.model = said.model or ""
            events.append(Started(model=self.told.model))
        message = said.message
        if message is not None:
            if message.thinking:
                events.append(ThinkingDelta(message.thinking, origin=DIALECT))
            if message.content:
                events.append(TextDelta(message.content))
            for call in message.tool_calls or ():
                events.append(CallStarted(self._calls, call.id or "", call.function.name))
                events.append(CallDelta(self._calls, _arguments(call.function.arguments)))
                self._calls += 1
            if message.thinking or message.content or message.tool_calls:
                self.begun = True
        if said.done:
            self.done = True
            usage = self.told.usage = self.count(said)
            self.told.finish_reason = finish = _finish(said.done_reason, called=bool(self._calls))
            events.append(Finished(finish))
            if usage is not None:
                events.append(SpentSoFar(spent_of(usage)))


def _finish(reason: str | None, *, called: bool) -> Finish:
    if reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value or "{}"
    return "{}" if value is None else _encode(value).decode()


def _think(asked: Reasoning, model: str) -> bool | str:
    """gpt-oss takes an effort, the others only whether."""
    if asked.on is False or asked.effort == "none":
        return False
    return _EFFORTS.get(asked.effort, "medium") if "gpt-oss" in model else True


def _tools(request: Request, body: dict[str, Any], losses: Losses) -> None:
    found = []
    for tool in request.tools:
        if tool.server:
            losses.add(f"tools.{tool.name}")
            continue
        schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
        parameters = schema if tool.custom else tool.schema or {"type": "object", "properties": {}}
        function = {"name": spoken(tool.name), "description": tool.description, "parameters": parameters}
        found.append({"type": "function", "function": function})
    choice = request.tool_choice
    if choice is not None and choice.mode == "none":
        found = []  # the same is said by offering none
    elif choice is not None and choice.mode == "allowed":
        allowed = {spoken(name) for name in choice.names}
        found = [tool for tool in found if tool["function"]["name"] in allowed]  # type: ignore[index]
    if choice is not None and (choice.mode in ("required", "tool") or choice.must):
        losses.add("tool_choice")
    if found:
        body["tools"] = found


def _messages(request: Request, losses: Losses) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    names = {part.id: part.name for message in request.messages for part in message.parts if isinstance(part, ToolCall)}
    for message in request.messages:
        if message.name:
            losses.add("messages.name")
        role = "system" if message.role == "developer" else message.role
        found += [_result(part, names, losses) for part in message.parts if isinstance(part, ToolResult)]
        said = _said(role, message, losses)
        if said is not None:
            found.append(said)
    return found


def _result(result: ToolResult, names: dict[str, str], losses: Losses) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "tool", "content": ""}
    name = names.get(result.id) or result.name
    if name:
        said["tool_name"] = spoken(name)
    texts: list[str] = []
    for part in result.parts:
        _put(part, said, texts, losses)
    said["content"] = ("Error: " if result.is_error else "") + "\n".join(texts)
    return said


def _said(role: str, message: Message, losses: Losses) -> dict[str, Any] | None:
    said: dict[str, Any] = {"role": role, "content": ""}
    texts: list[str] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            function = {"name": spoken(part.name), "arguments": _as_object(part)}
            said.setdefault("tool_calls", []).append({"function": function})
        elif isinstance(part, Thinking):
            if part.text and part.origin == DIALECT:
                said["thinking"] = said.get("thinking", "") + part.text
        elif not isinstance(part, ToolResult):
            _put(part, said, texts, losses)
    said["content"] = "\n".join(texts) if role == "system" else "".join(texts)
    is_empty = not said["content"] and said.keys() == {"role", "content"}
    return None if is_empty and any(isinstance(part, ToolResult) for part in message.parts) else said


def _put(part: Text | Media | Foreign | Refusal, said: dict[str, Any], texts: list[str], losses: Losses) -> None:
    if isinstance(part, Text | Refusal):
        texts.append(part.text)
    elif isinstance(part, Foreign):
        losses.add(f"messages.content.{part.type}")
    elif part.text:
        texts.append(part.text)
    elif part.kind == "image" and part.data:
        said.setdefault("images", []).append(part.data)
        if part.detail not in ("", "auto"):
            losses.add("messages.content.detail")
    elif part.kind == "image":
        raise unsupported(
            "messages", "This model's server takes images as bytes only. Send the image as a data: URI (base64), not as a URL."
        )
    else:
        raise unsupported("messages", f"This model's server takes no {part.kind}. Send text, or an image as a data: URI.")


def _as_object(call: ToolCall) -> Any:
    if call.custom:
        return {"input": call.arguments}
    try:
        return _object(call.arguments.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {"input": call.arguments}
