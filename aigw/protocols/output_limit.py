"""An answer no longer than it may be: the limit that a request names for it, lowered, or added where it names none."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.protocols import splice

_KEYS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
"""Where each kind of request says it; of two the one that counts first."""

_GEMINI = frozenset({"generate", "generate_array"})


def limited(operation: str, body: bytes, most: int, *, newer: bool = False) -> bytes:
    """*body* of an *operation*, whose answer may have *most* tokens at most. *newer*: a chat that names none says it as
    OpenAI's reasoning models want it. What is no conversation, or no JSON object, comes back as it is: whoever reads it says
    what is wrong with it. Raises ValueError for a limit that stands twice: nobody knows which one a provider takes."""
    keys = _KEYS.get(operation, ())
    try:
        if operation in _GEMINI:
            return _gemini(body, most)
        members = splice.scan(body) if keys else []
    except (ValueError, RecursionError):
        return body
    return _named(keys, members, body, most, newer=newer) if keys else body


def _named(keys: tuple[str, ...], members: list[splice.Member], body: bytes, most: int, *, newer: bool) -> bytes:
    written = {member.key: body[member.start : member.end] for member in members if member.key in keys}
    named = [key for key in keys if key in written]
    if not named:
        return splice.set_value(body, keys[0 if newer else -1], most)
    for key in named:
        if _more(written[key], most):
            body = splice.set_value(body, key, most)
    return body


def _more(value: bytes, most: int) -> bool:
    """Whether a limit as it is written is more than *most*, or none."""
    number: Any = msgspec.json.decode(value)
    return isinstance(number, bool) or not isinstance(number, (int, float)) or number > most or number < 0


def _gemini(body: bytes, most: int) -> bytes:
    found: Any = msgspec.json.decode(body)
    if not isinstance(found, dict):
        return body
    name = "generation_config" if "generation_config" in found else "generationConfig"
    config = found.get(name)
    config = dict(config) if isinstance(config, dict) else {}
    key = "max_output_tokens" if "max_output_tokens" in config else "maxOutputTokens"
    said = config.get(key)
    if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= most:
        return body
    return splice.set_value(body, name, config | {key: most})
