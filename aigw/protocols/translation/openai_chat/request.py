"""OpenAI's chat requests, from callers, in canonical words. What other hosts added to them is read as well: `thinking`,
`enable_thinking`, `reasoning`, `reasoning_content`, `top_k`, marks for the cache, and the older `functions`."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Cache,
    Citation,
    Foreign,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    unseal,
)
from aigw.errors import CallerError
from aigw.protocols.translation.reading import Members, data_uri, decode_object, invalid, unsupported

DIALECT = "openai_chat"
LEGACY = "openai_functions"
"""`Tool.dialect` of what a caller offered as `functions`: its answer is a `function_call`."""

_AUDIO_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
_DOCUMENT_TYPES = {"pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html"}

# Tools that run at the provider, as hosts of this shape call them. Any other type but a function is the caller's own.
_SERVER_TOOLS = (
    "web_search",
    "web_browser",
    "retrieval",
    "builtin_function",
    "code_interpreter",
    "file_search",
    "mcp",
    "image_generation",
)

# Advice that changes no answer: dropped without a word.
_ADVICE = ("prompt_cache_retention", "prompt_cache_options")


def read(body: bytes, model: str, *, stream: bool) -> Request:
    """See `Translator.parse_request`."""
    asked = Members(decode_object(body))
    messages = asked.take("messages")
    if not isinstance(messages, list):
        raise invalid("messages", "a list", messages)
    extras: dict[str, Any] = {}
    request = Request(dialect=DIALECT, model=model, stream=stream, messages=_messages(messages, extras))
    request.tools, request.tool_choice = _tools(asked), _choice(asked)
    if not request.tools and request.tool_choice is not None and request.tool_choice.mode in ("auto", "none"):
        request.tool_choice = None
    if any(tool.dialect == LEGACY for tool in request.tools):
        request.parallel = False
    sampling(asked, request)
    many = asked.flag("parallel_tool_calls")
    request.parallel = many if many is not None else request.parallel
    request.logprobs, request.top_logprobs = asked.flag("logprobs") or None, asked.whole("top_logprobs") or None
    request.reasoning = _reasoning(asked)
    request.format = _format(asked)
    request.verbosity = asked.text("verbosity")
    request.modalities = modes if (modes := asked.strings("modalities")) != ["text"] else []
    request.audio = asked.table("audio")
    shared(asked, request)
    request.extras = {**extras, **asked.left()}
    return request


def sampling(asked: Members, request: Request) -> None:
    """What chat and the older completions say alike of how words are picked."""
    most = asked.whole("max_tokens")
    newer = asked.whole("max_completion_tokens")
    request.max_tokens = most if newer is None else newer
    request.temperature, request.top_p, request.top_k = asked.number("temperature"), asked.number("top_p"), asked.whole("top_k")
    request.stop = asked.strings("stop")
    request.n, request.seed = asked.whole("n"), asked.whole("seed")
    request.presence_penalty = asked.number("presence_penalty") or None
    request.frequency_penalty = asked.number("frequency_penalty") or None
    request.logit_bias = asked.table("logit_bias") or None


def shared(asked: Members, request: Request) -> None:
    """What chat and the older completions say alike of who asks, and how it is served and kept."""
    for name in ("model", "stream", *_ADVICE):
        asked.take(name)
    options = asked.table("stream_options") or {}
    request.include_usage = bool(options.get("include_usage"))
    request.user = asked.text("user")
    if not request.user:
        request.user = asked.text("safety_identifier")
    request.metadata = asked.table("metadata") or None
    request.service_tier = tier if (tier := asked.text("service_tier")) != "auto" else ""
    request.store = asked.flag("store")
    request.cache_key = asked.text("prompt_cache_key")


# --- messages ---


def _messages(messages: list[Any], extras: dict[str, Any]) -> list[Message]:
    found: list[Message] = []
    results: list[Part] | None = None  # of tool messages one after another: they are one turn
    legacy = ""
    for number, value in enumerate(messages):
        said = Members(value, f"messages[{number}]")
        role = said.needed("role")
        if role in ("tool", "function"):
            if results is None:
                found.append(Message("user", results := []))
            results.append(_result(said, legacy if role == "function" else ""))
        else:
            results = None
            if role == "assistant":
                parts, legacy = _answered(said, f"call_legacy_{number}", legacy)
                found.append(Message("assistant", parts, said.text("name")))
            elif role in ("system", "developer", "user"):
                parts = _content(said)
                found.append(Message(role, parts, said.text("name")))  # type: ignore[arg-type]  # one of Role's, just seen
            else:
                raise CallerError(
                    "caller_invalid_request",
                    f"`{said.at('role')}` must be system, developer, user, assistant or tool.",
                    param=said.at("role"),
                )
        for name, member in said.rest.items():
            if member not in (None, "", [], {}):
                extras.setdefault(f"messages.{name}", member)
    return found


def _result(said: Members, legacy: str) -> ToolResult:
    name = said.text("name")
    called = legacy or said.needed("tool_call_id")
    said.take("tool_call_id")
    mark = _mark(said)
    parts = [part for part in _content(said) if isinstance(part, Text | Media | Foreign)]
    return ToolResult(called, parts, name, cache=mark)


def _answered(said: Members, legacy_id: str, legacy: str) -> tuple[list[Part], str]:
    """The parts of an assistant's message, and the id that a `function` message answers to."""
    parts: list[Part] = [*_thoughts(said)]
    parts += _content(said)
    refusal = said.text("refusal")
    if refusal:
        parts.append(Refusal(refusal))
    _cite(said.take("annotations"), parts)
    audio = said.table("audio")
    if audio:
        parts.append(Foreign(DIALECT, "audio", audio))
    for number, call in enumerate(said.listed("tool_calls")):
        parts.append(_call(Members(call, f"{said.path}.tool_calls[{number}]")))
    old = said.table("function_call")
    if old:
        function = Members(old, said.at("function_call"))
        parts.append(ToolCall(legacy_id, function.needed("name"), _arguments(function.take("arguments"))))
        legacy = legacy_id
    return parts, legacy


def _thoughts(said: Members) -> list[Part]:
    text = said.take("reasoning_content")
    other = said.take("reasoning")
    details = said.take("reasoning_details")
    blocks = said.take("thinking_blocks")
    if isinstance(blocks, list) and blocks:
        return [thought for block in blocks if (thought := _block(block)) is not None]
    if isinstance(details, list) and details:
        return thoughts_of(details)
    words = text if isinstance(text, str) and text else other
    return [Thinking(words, origin=DIALECT)] if isinstance(words, str) and words.strip() else []


def _block(block: Any) -> Thinking | None:
    """One of the `thinking_blocks` that our answers carry for signed thoughts."""
    if not isinstance(block, dict):
        return None
    signed = block.get("signature") or block.get("data") or ""
    origin, signature = unseal(signed if isinstance(signed, str) else "", DIALECT)
    if block.get("type") == "redacted_thinking":
        return Thinking(hidden=signature, origin=origin)
    words = block.get("thinking")
    return Thinking(words if isinstance(words, str) else "", signature, origin=origin)


def thoughts_of(details: list[Any]) -> list[Part]:
    """OpenRouter's (and MiniMax's) `reasoning_details`. What of a detail is not words is its signature, as JSON: its maker
    wants it back as it was."""
    found: list[Part] = []
    for detail in details:
        if isinstance(detail, dict):
            said = dict(detail)
            words = said.pop("text", None) or said.pop("summary", None)
            signed = bool(said.get("signature") or said.get("data"))
            proof = msgspec.json.encode(said).decode() if signed else ""
            if words or proof:
                found.append(Thinking(words if isinstance(words, str) else "", proof, origin=DIALECT))
    return found


def _cite(annotations: Any, parts: list[Part]) -> None:
    text = next((part for part in parts if isinstance(part, Text)), None)
    if text is not None and isinstance(annotations, list):
        text.citations = [found for note in annotations if (found := citation_of(note)) is not None]


def citation_of(note: Any) -> Citation | None:
    """An annotation of a text, when it is one of a web page."""
    value = note.get("url_citation") if isinstance(note, dict) else None
    if not isinstance(value, dict):
        return None
    start, end = value.get("start_index"), value.get("end_index")
    return Citation(
        str(value.get("url") or ""),
        str(value.get("title") or ""),
        str(value.get("content") or ""),
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
    )


def _call(call: Members) -> ToolCall:
    called, kind = call.text("id"), call.text("type")
    origin, signature = unseal(_google(call.take("extra_content")), DIALECT)
    origin = origin if signature else ""
    if kind == "custom":
        custom = Members(call.take("custom"), call.at("custom"))
        return ToolCall(called, custom.needed("name"), custom.text("input"), True, signature, origin)
    if kind not in ("", "function"):
        raise unsupported(
            call.at("type"), f"`{call.at('type')}` is {kind[:60]!r}: only calls of functions and custom tools are known."
        )
    function = Members(call.take("function"), call.at("function"))
    return ToolCall(called, function.needed("name"), _arguments(function.take("arguments")), False, signature, origin)


def _google(extra: Any) -> str:
    """Where Google's own OpenAI layer keeps a call's signature."""
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value or "{}"
    return "{}" if value is None else msgspec.json.encode(value).decode()


def _content(said: Members) -> list[Part]:
    content = said.take("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content, _mark(said))] if content else []
    if not isinstance(content, list):
        raise invalid(said.at("content"), "a string or a list of parts", content)
    return [_part(Members(part, f"{said.path}.content[{number}]")) for number, part in enumerate(content)]


def _mark(said: Members) -> Cache | None:
    mark = said.take("cache_control")
    if not isinstance(mark, dict):
        return None
    ttl = mark.get("ttl")
    return Cache(ttl if isinstance(ttl, str) else "")


def _part(part: Members) -> Part:
    kind, mark = part.text("type"), _mark(part)
    if kind == "text":
        return Text(part.text("text"), mark)
    if kind in ("image_url", "video_url"):
        at = part.at(kind)
        value = part.take(kind)
        source = Members({"url": value} if isinstance(value, str) else value, at)
        media = _at_url(Media("image" if kind == "image_url" else "video"), source.needed("url"))
        media.detail, media.cache = source.text("detail"), mark
        return media
    if kind == "input_audio":
        sound = Members(part.take("input_audio"), part.at("input_audio"))
        form = sound.text("format")
        return Media("audio", sound.needed("data"), type=_AUDIO_TYPES.get(form, f"audio/{form}" if form else ""), cache=mark)
    if kind == "file":
        return _file(Members(part.take("file"), part.at("file")), mark)
    if kind == "refusal":
        return Refusal(part.text("refusal"))
    if kind == "thinking":  # Mistral's
        return Thinking(words_of(part.take("thinking")), origin=DIALECT)
    path = part.at("type")
    raise unsupported(path, f"`{path}` is {kind[:60]!r}, which is not known. Send text, image_url, input_audio or file parts.")


def words_of(value: Any) -> str:
    """The words of a string, or of a list of text parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    return "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))


def _at_url(media: Media, url: str) -> Media:
    inline = data_uri(url)
    if inline is None:
        media.url = url
    else:
        media.type, media.data = inline
    return media


def _file(file: Members, mark: Cache | None) -> Media:
    name, kept, data = file.text("filename"), file.text("file_id"), file.text("file_data")
    media = Media("document", name=name, cache=mark)
    if data:
        inline = data_uri(data)
        guess = _DOCUMENT_TYPES.get(name.rpartition(".")[2].lower(), "")
        media.type, media.data = inline if inline is not None else (guess, data)
    elif kept:
        media.file = kept
    else:
        path = file.path
        raise CallerError("caller_invalid_request", f"`{path}` has neither `file_data` nor `file_id`.", param=path)
    return media


# --- tools and the shape of the answer ---


def _tools(asked: Members) -> list[Tool]:
    found = [_tool(Members(tool, f"tools[{number}]")) for number, tool in enumerate(asked.listed("tools"))]
    for number, function in enumerate(asked.listed("functions")):
        tool = _function(Members(function, f"functions[{number}]"))
        tool.dialect = LEGACY
        found.append(tool)
    search = asked.table("web_search_options")
    if search is not None:
        value = {"web_search_options": search}
        found.append(Tool("web_search_options", server=True, dialect=DIALECT, value=value))
    return found


def _tool(tool: Members) -> Tool:
    kind = tool.text("type")
    mark = _mark(tool)
    if kind == "function" or (not kind and "function" in tool.rest):
        found = _function(Members(tool.take("function"), tool.at("function")))
        found.cache = mark
        return found
    if kind == "custom":
        custom = Members(tool.take("custom"), tool.at("custom"))
        shape = custom.table("format")
        return Tool(custom.needed("name"), custom.text("description"), custom=True, cache=mark, value=shape)
    if kind.startswith(_SERVER_TOOLS):
        return Tool(kind, server=True, dialect=DIALECT, value={"type": kind, **tool.rest})
    path = tool.at("type")
    raise unsupported(path, f"`{path}` is {kind[:60]!r}, a kind of tool that is not known. Offer it as a function.")


def _function(function: Members) -> Tool:
    name, about = function.needed("name"), function.text("description")
    return Tool(name, about, function.table("parameters"), function.flag("strict"))


def _choice(asked: Members) -> ToolChoice | None:
    choice, old = asked.take("tool_choice"), asked.take("function_call")
    if choice is None and old is not None:
        choice = {"type": "function", "function": old} if isinstance(old, dict) else old
    if choice is None:
        return None
    if choice in ("auto", "none"):
        return ToolChoice(choice)
    if choice in ("required", "any"):
        return ToolChoice("required")
    if isinstance(choice, dict):
        said = Members(choice, "tool_choice")
        kind = said.text("type")
        if kind in ("function", "custom"):
            return ToolChoice("tool", (Members(said.take(kind), said.at(kind)).needed("name"),))
        if kind == "allowed_tools":
            allowed = Members(said.take(kind), said.at(kind))
            names = []
            for number, tool in enumerate(allowed.listed("tools")):
                one = Members(tool, f"tool_choice.allowed_tools.tools[{number}]")
                inner = one.text("type") or "function"
                names.append(Members(one.take(inner), one.at(inner)).needed("name"))
            return ToolChoice("allowed", tuple(names), allowed.text("mode") == "required")
    raise CallerError(
        "caller_invalid_request",
        '`tool_choice` must be "auto", "none", "required", or name one tool that is offered.',
        param="tool_choice",
    )


def _reasoning(asked: Members) -> Reasoning | None:
    """OpenAI's effort, and what other hosts write instead."""
    found = Reasoning(effort=asked.text("reasoning_effort"))
    switch = asked.take("enable_thinking")  # Qwen, SiliconFlow
    if isinstance(switch, bool):
        found.on = switch
    found.budget = asked.whole("thinking_budget")
    thinking = asked.take("thinking")  # DeepSeek, GLM, Kimi, Doubao; LiteLLM's callers write Anthropic's
    if isinstance(thinking, dict):
        kind = thinking.get("type")
        found.on = kind != "disabled"
        found.adaptive = kind in ("adaptive", "auto")
        budget = thinking.get("budget_tokens")
        found.budget = budget if isinstance(budget, int) else found.budget
    wider = asked.take("reasoning")  # OpenRouter
    if isinstance(wider, dict):
        effort, most = wider.get("effort"), wider.get("max_tokens")
        found.effort = effort if isinstance(effort, str) else found.effort
        found.budget = most if isinstance(most, int) else found.budget
        if isinstance(wider.get("enabled"), bool):
            found.on = wider["enabled"]
        if wider.get("exclude") is True:
            found.shown = "omitted"
    if found.effort == "none":
        found.on = False
    return found if found != Reasoning() else None


def _format(asked: Members) -> Format | None:
    form = asked.table("response_format")
    if form is None:
        return None
    said = Members(form, "response_format")
    kind = said.text("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Format()
    if kind == "json_schema":
        inner = Members(said.take("json_schema"), said.at("json_schema"))
        return Format(inner.table("schema") or {}, inner.text("name"), inner.text("description"), inner.flag("strict"))
    raise unsupported(
        "response_format.type", f"`response_format.type` is {kind[:60]!r}. Ask for text, json_object or json_schema."
    )
