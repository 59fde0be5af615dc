"""OpenAI's chat answers, whole: read from providers, written for callers."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Finish,
    Media,
    Part,
    Refusal,
    Spent,
    Text,
    Thinking,
    ToolCall,
    seal,
)
from aigw.protocols import openai_chat as dialect
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_chat.request import DIALECT, LEGACY, citation_of, thoughts_of, words_of
from aigw.protocols.translation.reading import data_uri
from aigw.protocols.translation.spent import spent_of

_facts = dialect.OpenAIChat()
_encode = msgspec.json.encode

# The words of all hosts of this shape (litellm's core_helpers, vendors' pages); any other means that it just stopped.
_FINISH: dict[str, Finish] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "ERROR_TOXIC": "content_filter",
}
BROKEN = frozenset({"network_error", "error", "insufficient_system_resource", "model_context_window_error"})
"""Reasons to end that are no end: the host failed."""


def finish_of(reason: str, *, called: bool) -> Finish:
    """Some hosts say "stop" although they called a tool: what they did counts."""
    found = _FINISH.get(reason, "stop")
    return "tool_calls" if called and found == "stop" else found


# --- read ---


def read(body: bytes) -> tuple[Answer, Told]:
    """See `Translator.parse_answer`."""
    told = _facts.read_answer(body)
    value = decode_leniently(body)
    choices = value.get("choices")
    if not isinstance(choices, list):
        raise ValueError("an answer without choices")  # noqa: TRY004 - it came from outside
    answer = Answer(choices=[])
    answer.id, answer.model, answer.service_tier = _text(value, "id"), _text(value, "model"), _text(value, "service_tier")
    created = value.get("created")
    answer.created = int(created) if isinstance(created, int | float) else 0
    answer.spent = None if told.usage is None else spent_of(told.usage)
    for place, choice in enumerate(choices):
        if isinstance(choice, dict):
            answer.choices.append(_choice(choice, place))
    return answer, told


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _choice(choice: dict[str, Any], place: int) -> Choice:
    message = choice.get("message")
    parts = _parts(message if isinstance(message, dict) else {"content": choice.get("text")})  # the older completions' text
    reason = _text(choice, "finish_reason")
    if reason in BROKEN:
        raise ValueError(f"the host broke off: {reason}")
    finish = finish_of(reason, called=any(isinstance(part, ToolCall) for part in parts))
    if finish == "stop" and any(isinstance(part, Refusal) for part in parts):
        finish = "content_filter"
    index = choice.get("index")
    stop = choice.get("stop_reason")  # vLLM's, the sequence that ended it
    return Choice(
        parts,
        finish,
        index if isinstance(index, int) else place,
        stop if isinstance(stop, str) and stop else None,
        choice.get("logprobs") or None,
    )


def _parts(message: dict[str, Any]) -> list[Part]:
    parts = thoughts(message)
    content = message.get("content")
    if isinstance(content, str):
        if content:
            parts.append(Text(content))
    elif isinstance(content, list):
        parts += content_parts(content)
    notes = message.get("annotations")
    text = next((part for part in parts if isinstance(part, Text)), None)
    if text is not None and isinstance(notes, list):
        text.citations = [found for note in notes if (found := citation_of(note)) is not None]
    audio = message.get("audio")
    if isinstance(audio, dict):
        if _text(audio, "transcript") and text is None:
            parts.append(Text(_text(audio, "transcript")))
        if _text(audio, "data"):
            parts.append(Media("audio", _text(audio, "data"), name=_text(audio, "id")))
    parts += images(message.get("images"))
    if _text(message, "refusal"):
        parts.append(Refusal(_text(message, "refusal")))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, dict):
            parts.append(_call(call))
    old = message.get("function_call")
    if isinstance(old, dict) and not calls:
        parts.append(ToolCall("", _text(old, "name"), arguments(old.get("arguments")) or "{}"))
    return parts


def thoughts(message: dict[str, Any]) -> list[Part]:
    """What a message or a delta says of the model's thoughts, in any host's spelling."""
    blocks, details = message.get("thinking_blocks"), message.get("reasoning_details")
    if isinstance(details, list) and (found := thoughts_of(details)):
        return found
    words = message.get("reasoning_content")
    if not isinstance(words, str) or not words:
        words = message.get("reasoning")
    signature = hidden = ""
    if isinstance(blocks, list):  # LiteLLM's servers
        for block in blocks:
            if isinstance(block, dict):
                signature = signature or _text(block, "signature")
                hidden = hidden or _text(block, "data")
                words = words or _text(block, "thinking")
    seen: list[Part] = []
    if (isinstance(words, str) and words) or signature:
        seen.append(Thinking(words if isinstance(words, str) else "", signature, origin=DIALECT))
    if hidden:
        seen.append(Thinking(hidden=hidden, origin=DIALECT))
    return seen


def content_parts(content: list[Any]) -> list[Part]:
    """A content that is a list (Mistral's thinking models)."""
    parts: list[Part] = []
    for part in content:
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "thinking":
            parts.append(Thinking(words_of(part.get("thinking")), origin=DIALECT))
        elif kind == "image_url":
            parts += images([part])
        elif isinstance(part.get("text"), str):
            parts.append(Text(part["text"]))
    return parts


def images(found: Any) -> list[Part]:
    """Images in an answer, as OpenRouter writes them."""
    parts: list[Part] = []
    for image in found if isinstance(found, list) else []:
        source = image.get("image_url") if isinstance(image, dict) else None
        url = source.get("url") if isinstance(source, dict) else source
        if isinstance(url, str) and url:
            inline = data_uri(url)
            parts.append(Media("image", url=url) if inline is None else Media("image", inline[1], type=inline[0]))
    return parts


def _call(call: dict[str, Any]) -> ToolCall:
    custom = call.get("custom")
    if isinstance(custom, dict):
        return ToolCall(_text(call, "id"), _text(custom, "name"), _text(custom, "input"), True)
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    signature = signature_of(call)
    written = arguments(function.get("arguments")) or "{}"
    return ToolCall(_text(call, "id"), _text(function, "name"), written, False, signature, DIALECT if signature else "")


def signature_of(call: Any) -> str:
    """Gemini's signature of a call, where Google's own layer puts it, or LiteLLM's servers."""
    if not isinstance(call, dict):
        return ""
    for outer, inner in (("extra_content", "google"), ("provider_specific_fields", "")):
        place = call.get(outer)
        place = place.get(inner) if inner and isinstance(place, dict) else place
        found = place.get("thought_signature") if isinstance(place, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""


def arguments(value: Any) -> str:
    """A call's arguments as JSON text; some hosts send them as an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else _encode(value).decode()


# --- write ---


def write(answer: Answer, reply: Reply) -> bytes:
    """See `Translator.render_answer`."""
    legacy = wants_legacy(reply)
    said: dict[str, Any] = {
        "id": answer.id or completion_id(reply),
        "object": "chat.completion",
        "created": answer.created or int(reply.now),
        "model": reply.model or answer.model or reply.request.model,
        "choices": [_written(choice, reply, legacy=legacy) for choice in answer.choices],
    }
    if answer.spent is not None:
        said["usage"] = usage_object(answer.spent)
    if answer.service_tier:
        said["service_tier"] = answer.service_tier
    return _encode(said)


def completion_id(reply: Reply) -> str:
    """For an answer that has none."""
    return f"chatcmpl-{reply.id.removeprefix('req_')}"


def call_id(reply: Reply, choice: int, call: int) -> str:
    """For a call that has none: another in each answer, as the next turn must tell them apart."""
    return (
        f"call_{reply.id.removeprefix('req_')[:28]}_{choice}_{call}"
        if choice
        else f"call_{reply.id.removeprefix('req_')[:30]}_{call}"
    )


def wants_legacy(reply: Reply) -> bool:
    """The caller offered `functions`, and waits for a `function_call`."""
    return any(tool.dialect == LEGACY for tool in reply.request.tools)


def usage_object(spent: Spent) -> dict[str, Any]:
    """OpenAI counts the cache inside the prompt, as we do."""
    into = {"cached_tokens": spent.cached, "audio_tokens": spent.audio_input}
    written = spent.cache_write_5m + spent.cache_write_1h
    if written:
        into["cache_write_tokens"] = written
    return {
        "prompt_tokens": spent.input,
        "completion_tokens": spent.output,
        "total_tokens": spent.input + spent.output,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": spent.reasoning, "audio_tokens": spent.audio_output},
    }


def _written(choice: Choice, reply: Reply, *, legacy: bool) -> dict[str, Any]:
    texts: list[str] = []
    notes: list[dict[str, Any]] = []
    refusals: list[str] = []
    words: list[str] = []
    blocks: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    at = 0
    for part in choice.parts:
        if isinstance(part, Text):
            texts.append(part.text)
            notes += [annotation(citation, at, at + len(part.text)) for citation in part.citations]
            at += len(part.text)
        elif isinstance(part, Thinking):
            words.append(part.text)
            if part.signature or part.hidden:
                blocks.append(thinking_block(part.text, part.signature, part.hidden, part.origin))
        elif isinstance(part, ToolCall):
            calls.append(_written_call(part, part.id or call_id(reply, choice.index, len(calls))))
        elif isinstance(part, Refusal):
            refusals.append(part.text)
        elif isinstance(part, Media) and part.kind == "image":
            message.setdefault("images", []).append(image_object(part))
        elif isinstance(part, Media) and part.kind == "audio":
            message["audio"] = audio_object(part, "".join(texts), reply)
    if texts:
        message["content"] = "".join(texts)
    if refusals:
        message["refusal"] = "".join(refusals)
    if notes:
        message["annotations"] = notes
    if any(words):
        message["reasoning_content"] = "".join(words)
    if blocks:
        message["thinking_blocks"] = blocks
    if calls and legacy:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": "function_call" if legacy and choice.finish == "tool_calls" else choice.finish,
    }


def _written_call(call: ToolCall, called: str) -> dict[str, Any]:
    said: dict[str, Any]
    if call.custom:
        said = {"id": called, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    else:
        said = {"id": called, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if call.signature:
        said["extra_content"] = extra_content(call.signature, call.origin)
    return said


def extra_content(signature: str, origin: str) -> dict[str, Any]:
    """A call's signature, for callers who send messages back as they got them."""
    return {"google": {"thought_signature": seal(signature, origin, DIALECT)}}


def thinking_block(text: str, signature: str, hidden: str, origin: str) -> dict[str, Any]:
    """One of `thinking_blocks`: a signed thought."""
    if hidden:
        return {"type": "redacted_thinking", "data": seal(hidden, origin, DIALECT)}
    return {"type": "thinking", "thinking": text, "signature": seal(signature, origin, DIALECT)}


def annotation(citation: Citation, start: int, end: int) -> dict[str, Any]:
    """*start* and *end* are those of the text it stands at, for a citation that does not say."""
    return {
        "type": "url_citation",
        "url_citation": {
            "url": citation.url,
            "title": citation.title,
            "start_index": start if citation.start is None else citation.start,
            "end_index": end if citation.end is None else citation.end,
        },
    }


def image_object(media: Media) -> dict[str, Any]:
    """As OpenRouter writes an image in an answer: OpenAI's chat has no word for it."""
    url = media.url or f"data:{media.type or 'image/png'};base64,{media.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def audio_object(media: Media, transcript: str, reply: Reply) -> dict[str, Any]:
    """`expires_at` is when the provider forgets the recording; nobody told us, so it is now."""
    return {
        "id": media.name or f"audio_{reply.id.removeprefix('req_')}",
        "data": media.data,
        "expires_at": int(reply.now),
        "transcript": transcript,
    }
