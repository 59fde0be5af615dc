"""A whole Responses answer: read into canonical words, and written from them."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Finish,
    Foreign,
    Media,
    Part,
    Refusal,
    Request,
    Spent,
    Text,
    Thinking,
    ToolCall,
)
from aigw.errors import CallerError
from aigw.protocols.dialect import Told
from aigw.protocols.openai_responses import OpenAIResponses
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_responses import items
from aigw.protocols.translation.openai_responses.items import OWN
from aigw.protocols.translation.spent import spent_of

_dialect = OpenAIResponses()


# --- reading ---


def parse(body: bytes) -> tuple[Answer, Told]:
    told = _dialect.read_answer(body)
    try:
        raw = items.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError("not JSON") from None
    output = raw.get("output")
    if not isinstance(output, list):
        raise ValueError("no output")  # noqa: TRY004 - the provider's mistake, not a caller's of this function
    parts: list[Part] = []
    logprobs: list[Any] = []
    for item in output:
        if isinstance(item, dict):
            parts += parts_of(item, logprobs)
    answer = Answer(
        id=_text(raw.get("id")),
        model=told.model,
        choices=[Choice(parts, finish_of(told.finish_reason, parts), logprobs={"content": logprobs} if logprobs else None)],
        spent=None if told.usage is None else spent_of(told.usage),
        created=int(raw["created_at"]) if isinstance(raw.get("created_at"), (int, float)) else 0,
        service_tier=_text(raw.get("service_tier")),
    )
    return answer, told


def finish_of(reason: str, parts: list[Part]) -> Finish:
    """*reason* is the answer's status, or why it is incomplete."""
    if reason == "content_filter" or any(isinstance(part, Refusal) for part in parts):
        return "content_filter"
    if reason == "max_output_tokens" or reason == "incomplete":
        return "length"
    return "tool_calls" if any(isinstance(part, ToolCall) for part in parts) else "stop"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def parts_of(item: dict[str, Any], logprobs: list[Any] | None = None) -> list[Part]:
    """One item of the output. What the provider's own tools did is `Foreign`."""
    kind = _text(item.get("type"))
    if kind == "message":
        parts: list[Part] = []
        for content in _objects(item.get("content")):
            if content.get("type") == "refusal":
                parts.append(Refusal(_text(content.get("refusal"))))
            else:
                citations = [found for one in _objects(content.get("annotations")) if (found := citation_of(one))]
                parts.append(Text(_text(content.get("text")), citations=citations))
                if logprobs is not None and isinstance(content.get("logprobs"), list):
                    logprobs += content["logprobs"]
        return parts
    if kind == "function_call":
        call_id = _text(item.get("call_id")) or _text(item.get("id"))
        return [ToolCall(call_id, known_as(item), _text(item.get("arguments")) or "{}")]
    if kind == "custom_tool_call":
        return [ToolCall(_text(item.get("call_id")), known_as(item), _text(item.get("input")), custom=True)]
    if kind == "reasoning":
        thought = thought_of(item)
        return [thought] if thought is not None else []
    if kind == "image_generation_call" and item.get("result"):
        form = _text(item.get("output_format")) or "png"
        return [Media("image", data=_text(item["result"]), type=f"image/{form}")]
    return [Foreign(OWN, kind, item)] if kind else []


def known_as(item: dict[str, Any]) -> str:
    """The name by which the request's other dialects know the called tool."""
    space = _text(item.get("namespace"))
    return f"{space}{items.GAP}{_text(item.get('name'))}" if space else _text(item.get("name"))


def thought_of(item: dict[str, Any]) -> Thinking | None:
    words = [_text(one.get("text")) for one in _objects(item.get("content")) or _objects(item.get("summary"))]
    text = "\n\n".join(word for word in words if word)
    encrypted = _text(item.get("encrypted_content"))
    if not text and not encrypted:
        return None
    item_id = _text(item.get("id"))
    whole = items.pack(item_id, encrypted) if encrypted else ""
    return Thinking(text, whole if text else "", "" if text else whole, OWN, item_id)


def citation_of(annotation: dict[str, Any]) -> Citation | None:
    if annotation.get("type") != "url_citation":
        return None
    start, end = annotation.get("start_index"), annotation.get("end_index")
    return Citation(
        _text(annotation.get("url")),
        _text(annotation.get("title")),
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


# --- writing ---


def render(answer: Answer, reply: Reply) -> bytes:
    head = Head(answer.id, answer.model, answer.created, reply)
    choice = answer.choices[0] if answer.choices else Choice([])
    writer = Items(reply)
    for part in choice.parts:
        writer.add(part)
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    if choice.logprobs and writer.texts:
        writer.texts[0]["logprobs"] = logprobs_out(choice.logprobs)
    return items.encode(head.whole(writer.done(), choice.finish, refused, answer.spent, answer.service_tier))


class Items:
    """An output list in the making: texts and refusals in a row are one message."""

    def __init__(self, reply: Reply) -> None:
        self._seed = reply.id
        self._called = items.called(reply.request)
        self._output: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None
        self.texts: list[dict[str, Any]] = []

    def done(self) -> list[dict[str, Any]]:
        return self._output

    def _id(self, prefix: str) -> str:
        return items.made_id(prefix, self._seed, len(self._output))

    def add(self, part: Part) -> None:
        if isinstance(part, (Text, Refusal)):
            if self._message is None:
                self._message = message_item(self._id("msg"), [])
                self._output.append(self._message)
            content = refusal_part(part.text) if isinstance(part, Refusal) else text_part(part.text, part.citations)
            if isinstance(part, Text):
                self.texts.append(content)
            self._message["content"].append(content)
            if isinstance(part, Text) and part.signature:
                self._close(items.mark_item(part, self._id("rs")))
        elif isinstance(part, Thinking):
            self._close(items.reasoning_item(part, self._id("rs")))
        elif isinstance(part, ToolCall):
            if part.signature:
                self._close(items.mark_item(part, self._id("rs")))
            self._close(call_item(part, self._called.get(part.name), self._id("fc"), "completed"))
        elif isinstance(part, Media):
            self._close(media_item(part, self._id("ig")))
        elif isinstance(part, Foreign) and part.dialect == OWN:
            self._close(part.value)

    def _close(self, item: dict[str, Any]) -> None:
        self._message = None
        self._output.append(item)


def message_item(item_id: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str, citations: list[Citation] | None = None) -> dict[str, Any]:
    annotations = [annotation(one, text) for one in citations or ()]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def refusal_part(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def annotation(citation: Citation, text: str = "") -> dict[str, Any]:
    start = citation.start or 0
    end = citation.end if citation.end is not None else len(text)
    return {"type": "url_citation", "url": citation.url, "title": citation.title, "start_index": start, "end_index": end}


def call_item(call: ToolCall, known: items.Called | None, item_id: str, status: str) -> dict[str, Any]:
    """A call in the words of the caller who offered the tool."""
    name, custom = (known.name, known.custom) if known is not None else (call.name, False)
    if custom or call.custom:
        given = call.arguments if call.custom else items.free_text(call.arguments)
        return {"id": item_id, "type": "custom_tool_call", "status": status, "call_id": call.id, "name": name, "input": given}
    item = {"id": item_id, "type": "function_call", "status": status, "call_id": call.id, "name": name}
    item["arguments"] = call.arguments
    if known is not None and known.namespace:
        item["namespace"] = known.namespace
    return item


def media_item(media: Media, item_id: str) -> dict[str, Any]:
    if media.kind != "image" or not media.data:
        raise CallerError("caller_unsupported", f"answered with {media.kind}, which the Responses API has no word for")
    form = media.type.rpartition("/")[2] or "png"
    return {"id": item_id, "type": "image_generation_call", "status": "completed", "result": media.data, "output_format": form}


def logprobs_out(logprobs: Any) -> list[Any]:
    """Of OpenAI's chat shape, whose entries are the same."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    found = []
    for one in _objects(content):
        entry = dict(one)
        entry["bytes"] = entry.get("bytes") or []
        entry["top_logprobs"] = [dict(top) | {"bytes": top.get("bytes") or []} for top in _objects(entry.get("top_logprobs"))]
        found.append(entry)
    return found


def usage_out(spent: Spent) -> dict[str, Any]:
    written = spent.cache_write_5m + spent.cache_write_1h
    return {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": written},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.input + spent.output,
    }


class Head:
    """The response object but for what was answered: much of it repeats the request."""

    def __init__(self, answer_id: str, model: str, created: int, reply: Reply) -> None:
        self._request: Request = reply.request
        self.id = answer_id if answer_id.startswith("resp_") else items.made_id("resp", reply.id)
        self.model = reply.model or model or reply.request.model
        self.created = created or int(reply.now)

    def object(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        request = self._request
        reasoning = request.reasoning
        instructions = None
        if request.messages and request.messages[0].role == "system":
            first = request.messages[0].parts
            if first and isinstance(first[0], Text):
                instructions = first[0].text
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": instructions,
            "max_output_tokens": request.max_tokens,
            "metadata": request.metadata or {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": request.parallel is not False,
            "previous_response_id": None,
            "reasoning": {
                "effort": (items.effort_of(reasoning) or None) if reasoning is not None else None,
                "summary": (reasoning.shown or None) if reasoning is not None else None,
            },
            "service_tier": request.service_tier or "auto",
            "store": False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": items.format_out(request.format), "verbosity": request.verbosity or "medium"},
            "tool_choice": items.choice_out(request.tool_choice, request.tools),
            "tools": items.tools_out(request.tools),
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.extras.get("truncation", "disabled"),
            "usage": None,
            "user": request.user or None,
        }

    def whole(
        self, output: list[dict[str, Any]], finish: Finish, refused: bool, spent: Spent | None, service_tier: str
    ) -> dict[str, Any]:
        """A refusal in the model's own words is a whole answer; one that a filter cut is none."""
        why = {"length": "max_output_tokens", "content_filter": None if refused else "content_filter"}.get(finish)
        whole = self.object("incomplete" if why else "completed", output)
        if why:
            whole["incomplete_details"] = {"reason": why}
        else:
            whole["completed_at"] = self.created
        if spent is not None:
            whole["usage"] = usage_out(spent)
        if service_tier:
            whole["service_tier"] = service_tier
        return whole
