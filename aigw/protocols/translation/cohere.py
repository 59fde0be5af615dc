"""Cohere's own API, version 2, for providers only: chat (`/v2/chat`) and embeddings (`/v2/embed`).

Its OpenAI layer has no word for thoughts, citations and documents; this one has. Facts: docs.cohere.com and the types of the
`cohere` SDK as of 2026. `usage.tokens` counts what the model read and wrote; `billed_units`, what is paid, stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec

from aigw.canonical import (
    Answer,
    CallDelta,
    CallStarted,
    Choice,
    Citation,
    CitationDelta,
    Event,
    Finish,
    Foreign,
    Losses,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    SpentSoFar,
    Text,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.embeddings import EmbeddingAnswer, EmbeddingRequest
from aigw.protocols.translation.names import spoken
from aigw.protocols.translation.plain import EventParser, lose_all_but, media_text
from aigw.protocols.translation.reading import unsupported
from aigw.protocols.translation.spent import spent_of

DIALECT = "cohere"
WHO = "Cohere"

_PLAIN = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
SAID = frozenset({*_PLAIN, "stop", "format", "reasoning", "logprobs"})
"""Fields of a request that it has a word for, besides messages and tools."""

_FINISHES: dict[str, Finish] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_FAILURES = frozenset({"ERROR", "TIMEOUT", "ERROR_LIMIT"})
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_TASKS = {
    "RETRIEVAL_QUERY": "search_query",
    "QUESTION_ANSWERING": "search_query",
    "FACT_VERIFICATION": "search_query",
    "CODE_RETRIEVAL_QUERY": "search_query",
    "RETRIEVAL_DOCUMENT": "search_document",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}
_INPUT_TYPE = "search_document"
"""Cohere wants to be told what a vector is for; who says nothing fills an index."""

_encode = msgspec.json.encode


class CohereChat:
    """`/v2/chat`. Implements `Shape`."""

    name = "cohere_chat"
    dialect = DIALECT
    content_type = b"text/event-stream"
    streams = True

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        body: dict[str, Any] = {"model": toward.model, "messages": _messages(request, losses), "stream": toward.stream}
        for name, word in _PLAIN.items():
            value = getattr(request, name)
            if value is not None:
                body[word] = value
        if request.temperature is not None and request.temperature > 1:
            body["temperature"] = 1.0
            losses.add("temperature")
        if request.stop:
            body["stop_sequences"] = request.stop[:5]
            if len(request.stop) > 5:
                losses.add("stop")
        if request.format is not None:
            body["response_format"] = {"type": "json_object"}
            if request.format.schema is not None:
                body["response_format"]["json_schema"] = request.format.schema
        if request.reasoning is not None:
            body["thinking"] = _thinking(request.reasoning)
        if request.logprobs:
            body["logprobs"] = True
        _tools(request, body, losses)
        lose_all_but(request, losses, SAID)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        said = decode_leniently(body)
        message, reason = said.get("message"), said.get("finish_reason")
        if not isinstance(message, dict) or reason in _FAILURES:
            raise ValueError("no answer")
        parts: list[Part] = []
        plan = message.get("tool_plan")
        if isinstance(plan, str) and plan:
            parts.append(Thinking(plan, origin=DIALECT))
        for block in _dicts(message.get("content")):
            if block.get("type") == "thinking":
                parts.append(Thinking(str(block.get("thinking") or ""), origin=DIALECT))
            elif isinstance(block.get("text"), str):
                parts.append(Text(block["text"]))
        _cite(parts, message.get("citations"))
        for call in _dicts(message.get("tool_calls")):
            function = next(iter(_dicts([call.get("function")])), {})
            parts.append(
                ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), _arguments(function.get("arguments")))
            )
        called = any(isinstance(part, ToolCall) for part in parts)
        finish: Finish = "tool_calls" if called else _FINISHES.get(str(reason), "stop")
        usage = usage_of(said.get("usage"))
        answer = Answer(id=str(said.get("id") or ""), choices=[Choice(parts, finish)])
        if usage is not None:
            answer.spent = spent_of(usage)
        return answer, Told(usage, "", finish)

    def parser(self) -> CohereParser:
        return CohereParser()


class _Said(msgspec.Struct, gc=False):
    """`delta.message.content` of a stream's frequent event."""

    text: str | None = None
    thinking: str | None = None
    type: str | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: _Said | list[Any] | str | None = None
    tool_plan: str | None = None
    tool_calls: _Call | list[Any] | None = None
    citations: Any = None


class _Delta(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    id: str | None = None
    delta: _Delta | None = None
    message: Any = None


_event = msgspec.json.Decoder(_Event).decode


class CohereParser(EventParser):
    """Implements `StreamParser`."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def look(self, data: bytes, events: list[Event]) -> None:
        try:
            event = _event(data)
        except (ValueError, RecursionError):
            return
        if not event.type and event.delta is None and isinstance(event.message, str):
            self.failed = data  # {"id", "message"}: how its errors look
            return
        delta = event.delta
        self.starts(events, id=event.id or "")
        if delta is None:
            return
        message = delta.message
        if message is not None:
            self._message(event.type, message, events)
        if event.type == "message-end":
            self._ended(delta, data, events)

    def _message(self, kind: str, message: _Message, events: list[Event]) -> None:
        content, call = message.content, message.tool_calls
        if isinstance(content, _Said):
            if content.thinking:
                self.begun = True
                events.append(ThinkingDelta(content.thinking, origin=DIALECT))
            self.says(content.text or "", events)
        if message.tool_plan:
            self.begun = True
            events.append(ThinkingDelta(message.tool_plan, origin=DIALECT))
        if isinstance(call, _Call) and kind in ("tool-call-start", "tool-call-delta"):
            function = call.function or _Function()
            if kind == "tool-call-start":
                self.begun = True
                events.append(CallStarted(self._calls, call.id or "", function.name or ""))
                self._calls += 1
            if function.arguments and self._calls:
                events.append(CallDelta(self._calls - 1, function.arguments))
        if kind == "citation-start":
            events.extend(CitationDelta(_citation(one)) for one in _dicts([message.citations]))

    def _ended(self, delta: _Delta, data: bytes, events: list[Event]) -> None:
        reason = delta.finish_reason or "COMPLETE"
        usage = self.told.usage = usage_of(delta.usage)
        if reason in _FAILURES:
            why = delta.error if isinstance(delta.error, str) and delta.error else f"the model ended with {reason}"
            self.failed = _encode({"error": {"message": why, "code": reason.lower()}})
            return
        self.finish("tool_calls" if self._calls else _FINISHES.get(reason, "stop"), events)
        if usage is not None:
            events.append(SpentSoFar(spent_of(usage)))
        self.done = True


class CohereEmbeddings:
    """`/v2/embed`. Implements `Shape`."""

    name = "cohere_embed"
    dialect = DIALECT
    content_type = b"application/json"
    streams = False

    def render_request(self, request: EmbeddingRequest, toward: Toward, losses: Losses) -> bytes:
        extras = dict(request.extras)
        asked = extras.pop("input_type", None)
        task = asked if isinstance(asked, str) and asked else _TASKS.get(request.task, "")
        if request.task and not task:
            losses.add("task")
        body: dict[str, Any] = {
            "model": toward.model,
            "texts": request.texts,
            "input_type": task or _INPUT_TYPE,
            "embedding_types": ["float"],
        }
        if request.dimensions is not None:
            body["output_dimension"] = request.dimensions
        truncate = extras.pop("truncate", None)
        if truncate is not None:
            body["truncate"] = truncate
        for name in ("titles", "user"):
            if getattr(request, name):
                losses.add(name)
        for name in extras:
            losses.add(name)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[EmbeddingAnswer, Told]:
        said = decode_leniently(body)
        given = said.get("embeddings")
        vectors = given.get("float") if isinstance(given, dict) else given
        if not isinstance(vectors, list) or not all(isinstance(one, list) for one in vectors):
            raise ValueError("an answer without embeddings")
        meta = said.get("meta")
        usage = usage_of(meta) if isinstance(meta, dict) else None
        return EmbeddingAnswer(vectors=vectors, usage=usage), Told(usage)

    def parser(self) -> NoReturn:
        raise NotImplementedError("embeddings are never a stream")


def usage_of(value: Any) -> Usage | None:
    """`usage` of an answer, or `meta` of embeddings and ranks."""
    if not isinstance(value, dict):
        return None
    tokens = value.get("tokens") if isinstance(value.get("tokens"), dict) else value.get("billed_units")
    if not isinstance(tokens, dict):
        return None
    read, wrote = _count(tokens.get("input_tokens")), _count(tokens.get("output_tokens"))
    if read is None and wrote is None:
        return None
    return Usage(input=read or 0, output=wrote or 0, cached=min(_count(value.get("cached_tokens")) or 0, read or 0))


def _count(value: Any) -> int | None:
    """Cohere writes some counts as 12.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return int(value)


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value or "{}"
    return "{}" if value is None else _encode(value).decode()


def _cite(parts: list[Part], citations: Any) -> None:
    text = next((part for part in parts if isinstance(part, Text)), None)
    found = [_citation(one) for one in _dicts(citations)]
    if text is not None and found:
        text.citations = found


def _citation(value: dict[str, Any]) -> Citation:
    sources = list(_dicts(value.get("sources")))
    document = sources[0].get("document") if sources else None
    document = document if isinstance(document, dict) else {}
    title = document.get("title") or (sources[0].get("id") if sources else "")
    start, end = value.get("start"), value.get("end")
    return Citation(
        url=str(document.get("url") or ""),
        title=str(title or ""),
        quoted=str(value.get("text") or ""),
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


def _thinking(asked: Reasoning) -> dict[str, Any]:
    if asked.on is False or asked.effort == "none":
        return {"type": "disabled"}
    said: dict[str, Any] = {"type": "enabled"}
    budget = asked.budget if asked.budget is not None else _BUDGETS.get(asked.effort)
    if budget is not None:
        said["token_budget"] = budget
    return said


def _tools(request: Request, body: dict[str, Any], losses: Losses) -> None:
    """A choice of one tool, or of some, is said by offering no others."""
    choice = request.tool_choice
    only = {spoken(name) for name in choice.names} if choice is not None and choice.mode in ("tool", "allowed") else None
    found = []
    for tool in request.tools:
        if tool.server:
            losses.add(f"tools.{tool.name}")
            continue
        free_text = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
        parameters = free_text if tool.custom else tool.schema or {"type": "object", "properties": {}}
        if only is None or spoken(tool.name) in only:
            function = {"name": spoken(tool.name), "description": tool.description, "parameters": parameters}
            found.append({"type": "function", "function": function})
    if not found:
        return
    body["tools"] = found
    if any(tool.strict for tool in request.tools):
        body["strict_tools"] = True
    if choice is not None and choice.mode == "none":
        body["tool_choice"] = "NONE"
    elif choice is not None and (choice.mode in ("required", "tool") or choice.must):
        body["tool_choice"] = "REQUIRED"


def _messages(request: Request, losses: Losses) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in request.messages:
        if message.name:
            losses.add("messages.name")
        found += [_result(part, losses) for part in message.parts if isinstance(part, ToolResult)]
        said = _said(message, losses)
        if said is not None:
            found.append(said)
    return found


def _result(result: ToolResult, losses: Losses) -> dict[str, Any]:
    texts = []
    for part in result.parts:
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, Foreign):
            losses.add(f"messages.content.{part.type}")
        else:
            texts.append(media_text(part, f"A tool's result for {WHO}"))
    content = ("Error: " if result.is_error else "") + "\n".join(texts)
    return {"role": "tool", "tool_call_id": result.id, "content": content}


def _said(message: Message, losses: Losses) -> dict[str, Any] | None:
    role = "system" if message.role == "developer" else message.role
    said: dict[str, Any] = {"role": role}
    blocks: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            arguments = _encode({"input": part.arguments}).decode() if part.custom else part.arguments or "{}"
            function = {"name": spoken(part.name), "arguments": arguments}
            said.setdefault("tool_calls", []).append({"id": part.id, "type": "function", "function": function})
        elif isinstance(part, Thinking):
            if part.text and part.origin == DIALECT:
                thoughts.append(part.text)
        elif isinstance(part, Text | Refusal):
            if part.text:
                blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, Foreign):
            losses.add(f"messages.content.{part.type}")
        elif isinstance(part, Media):
            blocks.append(_media(part, losses))
    if thoughts and "tool_calls" in said:
        said["tool_plan"] = "".join(thoughts)
    elif thoughts:
        blocks = [{"type": "thinking", "thinking": one} for one in thoughts] + blocks
    if all(block["type"] == "text" for block in blocks):
        text = ("\n" if role == "system" else "").join(block["text"] for block in blocks)
        if text:
            said["content"] = text
    else:
        said["content"] = blocks
    return said if "content" in said or "tool_calls" in said else None


def _media(part: Media, losses: Losses) -> dict[str, Any]:
    if part.kind != "image":
        return {"type": "text", "text": media_text(part, WHO)}
    if part.file:
        raise unsupported("messages", f"{WHO} has no files. Send the image itself, as a data: URI or a URL.")
    image = {"url": part.url or f"data:{part.type or 'image/png'};base64,{part.data}"}
    if part.detail in ("auto", "low", "high"):
        image["detail"] = part.detail
    elif part.detail:
        losses.add("messages.content.detail")
    return {"type": "image_url", "image_url": image}
