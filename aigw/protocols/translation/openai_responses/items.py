"""What both halves of the Responses shape need: its words for tools, thoughts and media, and how a thought of another dialect
travels in them.

A Responses caller sends reasoning items back as they came. So what must survive a turn travels in their `encrypted_content`:
our own dialect's as it is, together with the item's id; another's sealed, as JSON. The signature of a call or a text (Gemini
signs those) has an item of its own beside it, which says what it belongs to.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from aigw.canonical import Format, Media, Reasoning, Request, Text, Thinking, Tool, ToolCall, ToolChoice, seal, unseal
from aigw.protocols.translation import names

OWN = "openai_responses"

SERVER_TOOLS = (
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "mcp",
    "image_generation",
    "tool_search",
    "programmatic_tool_calling",
)
"""Beginnings of the types of tools that the provider runs itself (`openai.types.responses.ToolParam`). Of dated ones
("web_search_2025_08_26") the date is not looked at."""

encode = msgspec.json.encode
decode = msgspec.json.decode

GAP = "__"
"""Between a namespace's name and its tool's, for dialects whose tools have one name only."""


class Signed(msgspec.Struct, omit_defaults=True):
    """What a foreign reasoning item holds: a thought's signature or its hidden words; or the signature of the "call" or the
    "text" (`on`) that it stands beside."""

    signature: str = ""
    hidden: str = ""
    on: str = ""


_signed = msgspec.json.Decoder(Signed).decode


def is_server_tool(kind: str) -> bool:
    return any(kind == name or kind.startswith(name + "_") for name in SERVER_TOOLS)


# --- thoughts ---


def pack(item_id: str, encrypted: str) -> str:
    """An own signature: the provider wants the item's id along with what it encrypted."""
    return f"{item_id}:{encrypted}" if item_id else encrypted


def unpack(signature: str) -> tuple[str, str]:
    """The id ("" when there is none) and what is encrypted; base64 and its kin hold no colon."""
    before, colon, after = signature.partition(":")
    return (before, after) if colon and before.startswith("rs") else ("", signature)


def sealed(signed: Signed, origin: str) -> str:
    """`encrypted_content` of a thought by *origin*."""
    return seal(encode(signed).decode(), origin, OWN)


def opened(encrypted: str) -> tuple[str, Signed]:
    """Whose `encrypted_content` it is, and what it holds."""
    origin, text = unseal(encrypted, OWN)
    if origin == OWN:
        return OWN, Signed(signature=text)
    try:
        return origin, _signed(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return origin, Signed()


def reasoning_item(thought: Thinking, item_id: str) -> dict[str, Any]:
    """A whole thought, for a caller."""
    item: dict[str, Any] = {"id": thought.id or item_id, "type": "reasoning", "summary": []}
    if thought.text:
        item["summary"] = [{"type": "summary_text", "text": thought.text}]
    encrypted = encrypted_content(thought)
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


def encrypted_content(thought: Thinking) -> str:
    """What of *thought* only its own provider reads, for a caller; "" when there is nothing."""
    if thought.origin == OWN or not thought.origin:
        return unpack(thought.signature or thought.hidden)[1]
    if not thought.signature and not thought.hidden:
        return ""
    return sealed(Signed(thought.signature, thought.hidden), thought.origin)


def mark_item(part: Text | ToolCall, item_id: str) -> dict[str, Any]:
    """The item that carries the signature of *part*, which has one."""
    signed = Signed(part.signature, on="call" if isinstance(part, ToolCall) else "text")
    return {"id": item_id, "type": "reasoning", "summary": [], "encrypted_content": sealed(signed, part.origin)}


# --- tools ---


def tool_out(tool: Tool) -> dict[str, Any]:
    """A tool in this dialect's words. Functions are strict here unless it is said that they are not."""
    if tool.server:
        return dict(tool.value) if isinstance(tool.value, dict) else {"type": tool.name}
    name = names.spoken(tool.name)
    if tool.custom:
        out: dict[str, Any] = {"type": "custom", "name": name}
        if tool.description:
            out["description"] = tool.description
        if isinstance(tool.value, dict):
            out["format"] = tool.value
        return out
    out = {"type": "function", "name": name, "strict": bool(tool.strict)}
    if tool.description:
        out["description"] = tool.description
    out["parameters"] = tool.schema if tool.schema is not None else {"type": "object", "properties": {}}
    return out


def tools_out(tools: list[Tool]) -> list[dict[str, Any]]:
    """*tools* with those of a namespace together again."""
    out: list[dict[str, Any]] = []
    spaces: dict[str, dict[str, Any]] = {}
    for tool in tools:
        value = tool.value if tool.dialect == OWN and not tool.server else None
        if not isinstance(value, dict) or "namespace" not in value:
            out.append(tool_out(tool))
            continue
        name = value["namespace"]
        if name not in spaces:
            spaces[name] = {"type": "namespace", "name": name, "description": value.get("about", ""), "tools": []}
            out.append(spaces[name])
        spaces[name]["tools"].append(tool_out(tool) | {"name": value["name"]})
    return out


def choice_out(choice: ToolChoice | None, tools: list[Tool]) -> Any:
    if choice is None:
        return "auto"
    kinds = {tool.name: "custom" if tool.custom else "function" for tool in tools if not tool.server}
    named = [{"type": kinds.get(name, "function"), "name": names.spoken(name)} for name in choice.names]
    if choice.mode == "tool" and named:
        return named[0]
    if choice.mode == "allowed":
        return {"type": "allowed_tools", "mode": "required" if choice.must else "auto", "tools": named}
    return choice.mode


class Called(NamedTuple):
    """How a tool that the model called is shown to the caller who offered it."""

    name: str
    namespace: str = ""
    custom: bool = False


def called(request: Request) -> dict[str, Called]:
    """By the name that the model knows it by: each tool that is not simply a function of that name."""
    found = {}
    for tool in request.tools:
        value = tool.value if tool.dialect == OWN and not tool.server else None
        if isinstance(value, dict) and "namespace" in value:
            found[tool.name] = Called(value["name"], value["namespace"])
        elif tool.custom:
            found[tool.name] = Called(tool.name, custom=True)
    return found


def free_text(arguments: str) -> str:
    """The input of a custom tool that was offered as a function of one string, elsewhere."""
    try:
        value = decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
    if isinstance(value, dict) and len(value) == 1:
        only = next(iter(value.values()))
        if isinstance(only, str):
            return only
    return arguments


# --- the rest ---


def format_out(form: Format | None) -> dict[str, Any]:
    if form is None:
        return {"type": "text"}
    if form.schema is None:
        return {"type": "json_object"}
    out: dict[str, Any] = {"type": "json_schema", "name": form.name or "answer", "schema": form.schema}
    if form.description:
        out["description"] = form.description
    if form.strict is not None:
        out["strict"] = form.strict
    return out


BUDGETS = ((1024, "low"), (8192, "medium"), (16384, "high"))
"""From a budget of tokens to an effort: up to so many ("xhigh" beyond). Higress and LiteLLM go the other way with 1024, 2048,
4096; agents that write budgets ask for 4,000 ("think"), 10,000 ("think hard") and 32,000."""


def effort_of(reasoning: Reasoning) -> str:
    """OpenAI's word for it, "" when nothing was said."""
    if reasoning.on is False:
        return "none"
    if reasoning.effort:
        return reasoning.effort
    if reasoning.budget is not None:
        return next((word for most, word in BUDGETS if reasoning.budget <= most), "xhigh") if reasoning.budget > 0 else "none"
    return ""


def media_out(media: Media) -> dict[str, Any] | None:
    """An image or a document as an input part; None for what there is none for."""
    if media.kind == "image":
        image: dict[str, Any] = {"type": "input_image", "detail": media.detail or "auto"}
        if media.file:
            image["file_id"] = media.file
        else:
            image["image_url"] = media.url or f"data:{media.type or 'image/png'};base64,{media.data}"
        return image
    if media.kind == "document":
        if media.text:
            return {"type": "input_text", "text": f"{media.name}\n\n{media.text}" if media.name else media.text}
        part: dict[str, Any] = {"type": "input_file"}
        if media.file:
            part["file_id"] = media.file
        elif media.url:
            part["file_url"] = media.url
        else:
            kind = media.type or "application/pdf"
            part["filename"] = media.name or "document." + {"application/pdf": "pdf"}.get(kind, "txt")
            part["file_data"] = f"data:{kind};base64,{media.data}"
        return part
    if media.kind == "audio" and media.data:
        form = media.type.rpartition("/")[2].removeprefix("x-").replace("mpeg", "mp3")
        return {"type": "input_audio", "input_audio": {"data": media.data, "format": form or "wav"}}
    return None


def made_id(prefix: str, seed: str, *more: object) -> str:
    """An id that is the same each time it is made of the same things."""
    text = "\0".join([seed, *map(str, more)])
    return f"{prefix}_{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
