"""Converse answers, whole, and what streams tell in the same words: usage, ends, citations."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import Answer, Choice, Citation, Finish, Foreign, Media, Part, Spent, Text, Thinking, ToolCall
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.spent import spent_of

DIALECT = "bedrock_converse"

FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}

_MEDIA = {"image": "image", "audio": "audio", "video": "video"}
_encode = msgspec.json.encode


def read(body: bytes) -> tuple[Answer, Told]:
    """See `Shape.parse_answer`."""
    value = decode_leniently(body)
    output = value.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        raise ValueError("an answer without content")  # noqa: TRY004 - of the provider's, not ours
    parts: list[Part] = []
    for block in content:
        if isinstance(block, dict):
            parts += part_of(block)
    reason = value.get("stopReason")
    reason = reason if isinstance(reason, str) else ""
    usage = usage_of(value.get("usage"), value.get("serviceTier"))
    finish = finish_of(reason, called=any(isinstance(part, ToolCall) for part in parts))
    choice = Choice(parts, finish, stop=stop_of(value.get("additionalModelResponseFields")))
    spent: Spent | None = None if usage is None else spent_of(usage)
    tier = "" if usage is None else usage.service_tier
    return Answer(choices=[choice], spent=spent, service_tier=tier), Told(usage, "", reason)


def finish_of(reason: str, *, called: bool) -> Finish:
    """What was done counts more than what was said of it."""
    finish = FINISH.get(reason, "stop")
    return "tool_calls" if called and finish == "stop" else finish


def stop_of(fields: Any) -> str | None:
    """The stop sequence that ended an answer, which we ask Claude for (`additionalModelResponseFieldPaths`)."""
    found = fields.get("stop_sequence") if isinstance(fields, dict) else None
    return found if isinstance(found, str) and found else None


def usage_of(said: Any, tier: Any = None) -> Usage | None:
    """Normalised: Bedrock counts the cache beside the input; ours holds it."""
    if not isinstance(said, dict):
        return None
    read_, written = _count(said, "cacheReadInputTokens"), _count(said, "cacheWriteInputTokens")
    details = said.get("cacheDetails")
    details = details if isinstance(details, list) else []
    hour = sum(_count(one, "inputTokens") for one in details if isinstance(one, dict) and one.get("ttl") == "1h")
    kind = tier.get("type") if isinstance(tier, dict) else ""
    return Usage(
        input=_count(said, "inputTokens") + read_ + written,
        cached=read_,
        cache_write_5m=max(written - hour, 0),
        cache_write_1h=min(hour, written),
        output=_count(said, "outputTokens"),
        service_tier=kind if isinstance(kind, str) else "",
    )


def _count(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 else 0


def part_of(block: dict[str, Any]) -> list[Part]:
    """The part or parts that a whole block is."""
    text = block.get("text")
    if isinstance(text, str):
        return [Text(text)] if text else []
    call = block.get("toolUse")
    if isinstance(call, dict):
        given = call.get("input")
        arguments = given if isinstance(given, str) else _encode({} if given is None else given).decode()
        return [ToolCall(_text(call, "toolUseId"), _text(call, "name"), arguments or "{}")]
    thought = block.get("reasoningContent")
    if isinstance(thought, dict):
        return _thoughts(thought)
    cited = block.get("citationsContent")
    if isinstance(cited, dict):
        return _cited(cited)
    for name, kind in _MEDIA.items():
        media = block.get(name)
        source = media.get("source") if isinstance(media, dict) else None
        if isinstance(media, dict) and isinstance(source, dict):
            data, where = _text(source, "bytes"), source.get("s3Location")
            url = _text(where, "uri") if isinstance(where, dict) else ""
            return [Media(kind, data=data, url=url, type=f"{kind}/{_text(media, 'format')}")]  # type: ignore[arg-type]
    kind = next(iter(block), "")
    return [Foreign(DIALECT, kind, block)] if kind else []


def _thoughts(thought: dict[str, Any]) -> list[Part]:
    hidden = _text(thought, "redactedContent")
    if hidden:
        return [Thinking(hidden=hidden, origin=DIALECT)]
    said = thought.get("reasoningText")
    if not isinstance(said, dict):
        return []
    return [Thinking(_text(said, "text"), _text(said, "signature"), origin=DIALECT)]


def _cited(cited: dict[str, Any]) -> list[Part]:
    content, found = cited.get("content"), cited.get("citations")
    words = [_text(one, "text") for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    citations = [citation_of(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [Text("".join(words), citations=citations)]


def citation_of(value: dict[str, Any]) -> Citation:
    location, quoted = value.get("location"), value.get("sourceContent")
    web = location.get("web") if isinstance(location, dict) else None
    words = [_text(one, "text") for one in quoted if isinstance(one, dict)] if isinstance(quoted, list) else []
    return Citation(_text(web, "url") if isinstance(web, dict) else "", _text(value, "title"), " ".join(words))


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""
