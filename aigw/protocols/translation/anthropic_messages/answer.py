"""Messages answers, whole: read from providers, written for callers."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Foreign,
    Media,
    Part,
    Refusal,
    Spent,
    Text,
    Thinking,
    ToolCall,
)
from aigw.errors import CallerError
from aigw.protocols import anthropic_messages as dialect
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.anthropic_messages.blocks import (
    DIALECT,
    FINISH,
    JSON_TOOL,
    TIERS,
    citation_object,
    citation_of,
    input_object,
    signed_call,
    signed_text,
    stop_reason,
    thought,
    usage_object,
)
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.spent import spent_of

_facts = dialect.AnthropicMessages()
_encode = msgspec.json.encode

# --- read ---


def read(body: bytes) -> tuple[Answer, Told]:
    """See `Translator.parse_answer`."""
    told = _facts.read_answer(body)
    value = decode_leniently(body)
    content = value.get("content")
    if not isinstance(content, list):
        raise ValueError("an answer without content")  # noqa: TRY004 - of the provider's, not ours
    parts: list[Part] = []
    as_json = False
    for block in content:
        if isinstance(block, dict):
            as_json = as_json or _is_json_answer(block)
            parts += part_of(block)
    finish = FINISH.get(told.finish_reason, "stop")
    called = any(isinstance(part, ToolCall) for part in parts)
    if called and finish == "stop":
        finish = "tool_calls"
    elif as_json and finish == "tool_calls" and not called:
        finish = "stop"
    if finish == "content_filter" and (words := explanation(value.get("stop_details"))):
        parts.append(Refusal(words))
    stop = value.get("stop_sequence")
    tier = told.usage.service_tier if told.usage is not None else ""
    answer = Answer(
        id=_text(value, "id"),
        model=_text(value, "model"),
        choices=[Choice(parts, finish, stop=stop if isinstance(stop, str) else None)],
        spent=None if told.usage is None else spent_of(told.usage),
        service_tier=TIERS.get(tier, ""),
    )
    return answer, told


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def explanation(details: Any) -> str:
    """Why an answer was refused, in the provider's words; "" when it gave none."""
    return _text(details, "explanation") if isinstance(details, dict) else ""


def _is_json_answer(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use" and block.get("name") == JSON_TOOL


def part_of(block: dict[str, Any]) -> list[Part]:
    """The part that a whole block is; none for one that says nothing."""
    kind = _text(block, "type")
    if kind == "text":
        cited = block.get("citations")
        found: list[Citation] = []
        if isinstance(cited, list):
            found = [citation for value in cited if (citation := citation_of(value)) is not None]
        text = _text(block, "text")
        return [Text(text, citations=found)] if text else []
    if kind == "thinking":
        return [Thinking(_text(block, "thinking"), _text(block, "signature"), origin=DIALECT)]
    if kind == "redacted_thinking":
        return [Thinking(hidden=_text(block, "data"), origin=DIALECT)]
    if kind == "tool_use":
        given = block.get("input")
        arguments = given if isinstance(given, str) else _encode(given or {}).decode()
        if _is_json_answer(block):
            return [Text(arguments)]
        return [ToolCall(_text(block, "id"), _text(block, "name"), arguments or "{}")]
    return [Foreign(DIALECT, kind, block)] if kind else []


# --- write ---


def write(answer: Answer, reply: Reply) -> bytes:
    """See `Translator.render_answer`. Raises CallerError for an image or a recording: there is no block for one."""
    choice = answer.choices[0] if answer.choices else Choice([])
    content: list[dict[str, Any]] = []
    for number, part in enumerate(choice.parts):
        content += _blocks(part, reply, number)
    called = any(isinstance(part, ToolCall) for part in choice.parts)
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    stop = choice.stop
    return _encode(
        {
            "id": answer.id or message_id(reply),
            "type": "message",
            "role": "assistant",
            "model": reply.model or answer.model or reply.request.model,
            "content": content,
            "stop_reason": stop_reason(choice.finish, stop, called=called, refused=refused),
            "stop_sequence": stop,
            "usage": usage_object(answer.spent or Spent(), answer.service_tier),
        }
    )


def message_id(reply: Reply) -> str:
    """For an answer that has none."""
    return f"msg_{reply.id.removeprefix('req_')}"


def call_id(reply: Reply, number: int) -> str:
    """For a call that has none: another in each answer, as the next turn must tell them apart."""
    return f"toolu_{reply.id.removeprefix('req_')}_{number}"


def no_word(media: Media) -> CallerError:
    """For what a model made that a caller of this API cannot be given."""
    return CallerError("caller_unsupported", f"answered with {media.kind} data, which the Messages API has no block for")


def _blocks(part: Part, reply: Reply, number: int) -> list[dict[str, Any]]:
    if isinstance(part, Text):
        said: dict[str, Any] = {"type": "text", "text": part.text}
        cited = [found for citation in part.citations if (found := citation_object(citation)) is not None]
        if cited:
            said["citations"] = cited
        blocks = [said] if part.text else []
        return [*blocks, signed_text(part.signature, part.origin)] if part.signature else blocks
    if isinstance(part, Thinking):
        return [thought(part)]
    if isinstance(part, ToolCall):
        call = {
            "type": "tool_use",
            "id": part.id or call_id(reply, number),
            "name": part.name,
            "input": input_object(part.arguments, custom=part.custom),
        }
        return [signed_call(part.signature, part.origin), call] if part.signature else [call]
    if isinstance(part, Refusal):
        return [{"type": "text", "text": part.text}] if part.text else []
    if isinstance(part, Media):
        raise no_word(part)
    if isinstance(part, Foreign) and part.dialect == DIALECT and isinstance(part.value, dict):
        return [part.value]
    return []
