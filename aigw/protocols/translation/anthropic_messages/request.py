"""Messages requests, of both API versions, from callers, in canonical words."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Cache,
    Foreign,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aigw.errors import CallerError
from aigw.protocols.translation.anthropic_messages.blocks import DIALECT, citation_of, unsealed
from aigw.protocols.translation.reading import Members, data_uri, decode_object, invalid, unsupported

# Tools that run at Anthropic, by the beginning of their type. Any other type is the caller's own.
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "mcp_toolset", "advisor_")
_SERVER_BLOCKS = frozenset({"server_tool_use", "mcp_tool_use", "container_upload", "tool_reference", "browser_state"})

_BILLING = "x-anthropic-billing-header:"
"""Claude Code writes a header for Anthropic's accounts as the first words of its system prompt; it changes with each request,
and would keep other providers' caches cold."""

_ADVICE = frozenset({"eager_input_streaming"})  # of a tool: how its call is cut into events
_DEFAULTS: dict[str, Any] = {"speed": "standard", "inference_geo": "global"}


def read(body: bytes, model: str, *, stream: bool) -> Request:
    """See `Translator.parse_request`."""
    asked = Members(decode_object(body))
    messages = asked.take("messages")
    if not isinstance(messages, list):
        raise invalid("messages", "a list", messages)
    for name in ("model", "stream"):
        asked.take(name)
    extras: dict[str, Any] = {}
    found = _system(asked, extras)
    for number, value in enumerate(messages):
        found.append(_message(Members(value, f"messages[{number}]"), extras))
    request = Request(dialect=DIALECT, model=model, stream=stream, messages=found)
    request.tools = [_tool(Members(tool, f"tools[{number}]"), extras) for number, tool in enumerate(asked.listed("tools"))]
    _choice(asked, request)
    request.max_tokens = asked.whole("max_tokens")
    request.temperature, request.top_p, request.top_k = asked.number("temperature"), asked.number("top_p"), asked.whole("top_k")
    request.stop = asked.strings("stop_sequences")
    _thinking(asked, request, extras)
    metadata = Members(asked.table("metadata") or {}, "metadata")
    request.user = metadata.text("user_id")
    extras |= {metadata.at(name): value for name, value in metadata.left().items()}
    tier = asked.text("service_tier")
    request.service_tier = "default" if tier == "standard_only" else "" if tier == "auto" else tier
    request.cache = _mark(asked)
    for name, value in asked.left().items():
        if value not in ([], {}) and _DEFAULTS.get(name) != value:
            extras[name] = value
    request.extras = extras
    return request


# --- messages ---


def _system(asked: Members, extras: dict[str, Any]) -> list[Message]:
    system = asked.take("system")
    if system is None or system == "":
        return []
    parts = _content(system, "system", "system", extras)
    kept: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and part.text.startswith(_BILLING):
            extras[f"system.{_BILLING[:-1]}"] = True
        else:
            kept.append(part)
    return [Message("system", kept)] if kept else []


def _message(said: Members, extras: dict[str, Any]) -> Message:
    role = said.needed("role")
    if role not in ("user", "assistant", "system"):
        path = said.at("role")
        raise CallerError("caller_invalid_request", f"`{path}` must be user, assistant or system.", param=path)
    content = said.take("content")
    parts = _content(content, said.at("content"), role, extras)
    for name, value in said.left().items():
        extras[f"messages.{name}"] = value
    return Message(role, parts)  # type: ignore[arg-type]  # one of Role's, just seen


def _content(content: Any, path: str, role: str, extras: dict[str, Any]) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise invalid(path, "a string or a list of blocks", content)
    parts: list[Part] = []
    signed: tuple[str, str] | None = None  # of the next call
    for number, value in enumerate(content):
        block = Members(value, f"{path}[{number}]")
        kind = block.needed("type")
        if kind in ("thinking", "redacted_thinking"):
            redacted = kind == "redacted_thinking"
            kept = unsealed(block.text("thinking"), block.text("data" if redacted else "signature"), redacted=redacted)
            if kept.thinking is not None:
                parts.append(kept.thinking)
            elif kept.of == "call":
                signed = kept.signature, kept.origin
            elif parts and isinstance(parts[-1], Text):
                parts[-1].signature, parts[-1].origin = kept.signature, kept.origin
        else:
            found = _block(block, kind, role, extras)
            if signed is not None and isinstance(found[0], ToolCall):
                found[0].signature, found[0].origin = signed
                signed = None
            parts += found
        _unread(block, extras)
    return parts


def _unread(block: Members, extras: dict[str, Any]) -> None:
    for name, value in block.rest.items():
        if value not in (None, [], {}, False) and not (name == "caller" and value == {"type": "direct"}):
            extras.setdefault(f"messages.content.{name}", value)


def _block(block: Members, kind: str, role: str, extras: dict[str, Any]) -> list[Any]:
    """The part or parts that a block is; at least one."""
    mark = _mark(block)
    if kind == "text":
        cited = [citation for value in block.listed("citations") if (citation := citation_of(value)) is not None]
        return [Text(block.text("text"), mark, cited)]
    if kind == "image":
        return [_image(block, mark)]
    if kind == "document":
        return _document(block, mark)
    if kind == "search_result":
        words = [
            part.text for part in _content(block.take("content"), block.at("content"), role, extras) if isinstance(part, Text)
        ]
        cites = Members(block.table("citations") or {}).flag("enabled")
        source, title = block.text("source"), block.text("title")
        return [
            Media(
                "document", text="\n".join(words), type="text/plain", name=title, context=source, cites=bool(cites), cache=mark
            )
        ]
    if kind == "tool_use":
        given = block.take("input")
        if given is not None and not isinstance(given, dict):
            raise invalid(block.at("input"), "an object", given)
        return [ToolCall(block.needed("id"), block.needed("name"), msgspec.json.encode(given or {}).decode(), cache=mark)]
    if kind == "tool_result":
        return [_result(block, mark, role, extras)]
    if kind == "compaction":  # what the conversation so far came to, in words
        return [Text(block.text("content"), mark)]
    if kind in _SERVER_BLOCKS or kind.endswith("_tool_result"):
        value = {"type": kind} | block.rest
        block.rest = {}
        return [Foreign(DIALECT, kind, value)]
    path = block.at("type")
    raise unsupported(
        path, f"`{path}` is {kind[:60]!r}, a block that is not known here. Leave it out, or use a model of Anthropic's own."
    )


def _mark(said: Members) -> Cache | None:
    mark = said.take("cache_control")
    if not isinstance(mark, dict):
        return None
    ttl = mark.get("ttl")
    return Cache(ttl if isinstance(ttl, str) else "")


def _image(block: Members, mark: Cache | None) -> Media:
    media = Media("image", cache=mark)
    _source(Members(block.take("source"), block.at("source")), media)
    return media


def _source(source: Members, media: Media) -> None:
    kind = source.needed("type")
    if kind == "base64":
        media.data, media.type = source.needed("data"), source.text("media_type")
    elif kind == "url":
        url = source.needed("url")
        inline = data_uri(url)
        if inline is None:
            media.url = url
        else:
            media.type, media.data = inline
    elif kind == "file":
        media.file = source.needed("file_id")
    elif kind == "text" and media.kind == "document":
        media.text, media.type = source.text("data"), source.text("media_type") or "text/plain"
    else:
        path = source.at("type")
        raise unsupported(path, f"`{path}` is {kind[:60]!r}, which is not known. Send base64, url or file.")


def _document(block: Members, mark: Cache | None) -> list[Part]:
    title, context = block.text("title"), block.text("context")
    citations = block.take("citations")
    cites = isinstance(citations, dict) and citations.get("enabled") is True
    source = Members(block.take("source"), block.at("source"))
    media = Media("document", name=title, context=context, cites=cites, cache=mark)
    if source.rest.get("type") != "content":
        _source(source, media)
        return [media]
    inner = _content(source.take("content"), source.at("content"), "user", {})
    media.text, media.type = "\n".join(part.text for part in inner if isinstance(part, Text)), "text/plain"
    images: list[Part] = [part for part in inner if isinstance(part, Media)]
    return [media, *images] if media.text else images or [media]


def _result(block: Members, mark: Cache | None, role: str, extras: dict[str, Any]) -> ToolResult:
    called, failed = block.needed("tool_use_id"), block.flag("is_error")
    content = block.take("content")
    parts = [] if content is None else _content(content, block.at("content"), role, extras)
    for number, part in enumerate(parts):
        if not isinstance(part, Text | Media | Foreign):
            path = f"{block.at('content')}[{number}]"
            raise unsupported(path, f"`{path}` is a block that no tool can answer. Send text, images or documents.")
    return ToolResult(called, parts, is_error=bool(failed), cache=mark)  # type: ignore[arg-type]  # looked at above


# --- tools and how to answer ---


def _tool(tool: Members, extras: dict[str, Any]) -> Tool:
    kind = tool.text("type")
    if kind in ("", "custom"):
        name, about = tool.needed("name"), tool.text("description")
        found = Tool(name, about, tool.table("input_schema"), tool.flag("strict"), _mark(tool))
        for member, value in tool.rest.items():
            if member not in _ADVICE and value not in (None, False, [], {}, ["direct"]):
                extras.setdefault(f"tools.{member}", value)
        return found
    if kind.startswith(_SERVER_TOOLS):
        name = tool.text("name") or kind
        return Tool(name, server=True, dialect=DIALECT, value={"type": kind, "name": name} | tool.rest)
    path = tool.at("type")
    raise unsupported(
        path,
        f"`{path}` is {kind[:60]!r}: only models of Anthropic's own know what this tool takes. "
        "Offer it as a tool with an `input_schema`.",
    )


def _choice(asked: Members, request: Request) -> None:
    choice = asked.table("tool_choice")
    if choice is None:
        return
    said = Members(choice, "tool_choice")
    kind = said.needed("type")
    alone = said.flag("disable_parallel_tool_use")
    if alone:
        request.parallel = False
    if kind == "tool":
        request.tool_choice = ToolChoice("tool", (said.needed("name"),))
    elif kind == "any":
        request.tool_choice = ToolChoice("required")
    elif kind == "none":
        request.tool_choice = ToolChoice("none")
    elif kind != "auto":
        raise CallerError(
            "caller_invalid_request", "`tool_choice.type` must be auto, any, tool or none.", param="tool_choice.type"
        )
    elif request.tools:
        request.tool_choice = ToolChoice("auto")


def _thinking(asked: Members, request: Request, extras: dict[str, Any]) -> None:
    output = Members(asked.table("output_config") or {}, "output_config")
    wanted, older = output.take("format"), asked.take("output_format")
    found = Reasoning(effort=output.text("effort"))
    extras |= {output.at(name): value for name, value in output.left().items()}
    if wanted is None:
        wanted, path = older, "output_format"
    else:
        path = "output_config.format"
    if wanted is not None:
        request.format = _format(Members(wanted, path))
    thinking = Members(asked.table("thinking") or {}, "thinking")
    kind = thinking.text("type")
    found.shown = thinking.text("display")
    if kind == "enabled":
        found.on, found.budget = True, thinking.whole("budget_tokens")
    elif kind in ("adaptive", "between_tools"):
        found.on = found.adaptive = True
        if kind == "between_tools":
            extras["thinking.type"] = kind
    elif kind == "disabled":
        found.on = False
    elif kind:
        raise CallerError(
            "caller_invalid_request", "`thinking.type` must be enabled, adaptive or disabled.", param="thinking.type"
        )
    thinking.take("budget_tokens")
    extras |= {thinking.at(name): value for name, value in thinking.left().items()}
    if found.on is not None or found.effort:
        request.reasoning = found


def _format(wanted: Members) -> Format:
    kind = wanted.text("type")
    if kind != "json_schema":
        path = wanted.at("type")
        raise unsupported(path, f"`{path}` is {kind[:60]!r}, which is not known. Use json_schema.")
    schema = wanted.table("schema")
    if schema is None:
        path = wanted.at("schema")
        raise CallerError("caller_invalid_request", f"`{path}` is missing.", param=path)
    return Format(schema, strict=True if _is_strict(schema) else None)


def _is_strict(schema: Any, depth: int = 0) -> bool:
    """Whether OpenAI's strict mode takes it, which wants every member of every object: Anthropic's does not."""
    if depth > 64:
        return False
    if isinstance(schema, list):
        return all(_is_strict(one, depth + 1) for one in schema)
    if not isinstance(schema, dict):
        return True
    members = schema.get("properties")
    if schema.get("type") == "object" or isinstance(members, dict):
        required = schema.get("required")
        wanted = set(members) if isinstance(members, dict) else set()
        if (
            schema.get("additionalProperties") is not False
            or not isinstance(required, list)
            or set(map(str, required)) != wanted
        ):
            return False
    named = ("properties", "$defs", "definitions")
    inner = [one for name in named if isinstance(schema.get(name), dict) for one in schema[name].values()]
    inner += [schema[name] for name in ("items", "anyOf", "oneOf", "allOf") if name in schema]
    return all(_is_strict(one, depth + 1) for one in inner)
