"""What requests and answers of the Messages API share: thoughts and their signatures, citations, and the words for ends."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import Citation, Finish, Spent, Thinking, seal, unseal

DIALECT = "anthropic_messages"

JSON_TOOL = "json_answer"
"""The tool by which a model that cannot be held to a format is made to answer JSON; its call is the answer's text."""

NO_TEXT = "(empty)"
"""Stands where a turn must say something, and nothing was said."""

_CALL, _TEXT, _WHOLE = "+call", "+text", "+whole"
# Marks of a seal's origin: the signature is of the call that follows (Gemini signs calls), of the text before it, or it is all
# that has to be kept of a thought (JSON).

FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
TIERS = {"standard": "default", "priority": "priority", "batch": "batch"}
_TIERS = {"default": "standard", "standard": "standard", "priority": "priority", "scale": "priority"}

_encode = msgspec.json.encode


def stop_reason(finish: Finish, stop: str | None, *, called: bool, refused: bool) -> str:
    """What was done counts more than what was said of it: some hosts say "stop" after a call."""
    if refused:
        return "refusal"
    if called and finish in ("stop", "tool_calls"):
        return "tool_use"
    if finish in ("stop", "tool_calls"):
        return "stop_sequence" if stop else "end_turn"
    return _STOP[finish]


def usage_object(spent: Spent, tier: str = "") -> dict[str, Any]:
    """Anthropic counts the cache beside the input; ours holds it."""
    written = spent.cache_write_5m + spent.cache_write_1h
    found: dict[str, Any] = {
        "input_tokens": max(spent.input - spent.cached - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": spent.cached,
        "output_tokens": spent.output,
    }
    if written:
        each = {"ephemeral_5m_input_tokens": spent.cache_write_5m, "ephemeral_1h_input_tokens": spent.cache_write_1h}
        found["cache_creation"] = each
    if spent.reasoning:
        found["output_tokens_details"] = {"thinking_tokens": spent.reasoning}
    if tier in _TIERS:
        found["service_tier"] = _TIERS[tier]
    return found


def thought(thinking: Thinking) -> dict[str, Any]:
    """A thought as a block for a caller. Of a thought that is another provider's, what its maker wants back is sealed."""
    signature, hidden, origin = thinking.signature, thinking.hidden, thinking.origin
    if origin != DIALECT and hidden and (thinking.text or thinking.id or signature):
        kept = {"hidden": hidden, "signature": signature, "id": thinking.id}
        signature, hidden, origin = _encode(kept).decode(), "", origin + _WHOLE
        if not thinking.text:
            return {"type": "redacted_thinking", "data": seal(signature, origin, DIALECT)}
    if hidden:
        return {"type": "redacted_thinking", "data": seal(hidden, origin, DIALECT)}
    return {"type": "thinking", "thinking": thinking.text, "signature": seal(signature, origin, DIALECT)}


def signed_call(signature: str, origin: str) -> dict[str, Any]:
    """A call's signature, in a block before it: calls have no place for one."""
    return {"type": "redacted_thinking", "data": seal(signature, origin + _CALL, DIALECT)}


def signed_text(signature: str, origin: str) -> dict[str, Any]:
    """A text's signature, in a block behind it."""
    return {"type": "redacted_thinking", "data": seal(signature, origin + _TEXT, DIALECT)}


class Unsealed(msgspec.Struct):
    """What a caller sent back: a thought, or the signature of a neighbour (`of` is "call" or "text")."""

    thinking: Thinking | None
    of: str = ""
    signature: str = ""
    origin: str = ""


def unsealed(text: str, proof: str, *, redacted: bool) -> Unsealed:
    """*proof* is a thinking block's signature or a redacted one's data."""
    origin, rest = unseal(proof, DIALECT)
    if origin.endswith(_CALL):
        return Unsealed(None, "call", rest, origin.removesuffix(_CALL))
    if origin.endswith(_TEXT):
        return Unsealed(None, "text", rest, origin.removesuffix(_TEXT))
    if origin.endswith(_WHOLE):
        kept = _kept(rest)
        found = Thinking(
            text, kept.get("signature", ""), kept.get("hidden", ""), origin.removesuffix(_WHOLE), kept.get("id", "")
        )
        return Unsealed(found)
    if redacted:
        return Unsealed(Thinking(hidden=rest, origin=origin))
    return Unsealed(Thinking(text, rest, origin=origin if rest else ""))


def _kept(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (ValueError, RecursionError):  # whoever changed it loses it
        return {}


def citation_of(value: Any) -> Citation | None:
    """Where a text has something from, as an answer's block or a stream's delta says it."""
    if not isinstance(value, dict):
        return None
    url = value.get("url") or value.get("source") or ""
    title = value.get("title") or value.get("document_title") or ""
    quoted = value.get("cited_text") or ""
    where, what, words = (word if isinstance(word, str) else "" for word in (url, title, quoted))
    return Citation(where, what, words)


def citation_object(citation: Citation) -> dict[str, Any] | None:
    """None for one that has no address: there is no word for it."""
    if not citation.url:
        return None
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "cited_text": citation.quoted,
        "encrypted_index": "",
    }


def input_object(arguments: str, *, custom: bool = False) -> dict[str, Any]:
    """A call's arguments as the object that this API wants. What is no object is wrapped in one: a model that wrote nonsense
    must not make its whole conversation useless."""
    if custom:
        return {"input": arguments}
    if not arguments.strip():
        return {}
    try:
        value = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return {"arguments": arguments.encode("utf-8", "replace").decode()}
    return value if isinstance(value, dict) else {"arguments": value}
