"""Gemini's requests, from callers, in canonical words. JSON comes in camel case or in protobuf's own spelling."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec

from aigw.canonical import (
    Foreign,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    unseal,
)
from aigw.protocols.translation.gemini.schemas import from_openapi
from aigw.protocols.translation.reading import Members, decode_object, invalid, unsupported

DIALECT = "gemini"
HIDDEN = "#hidden"
"""Behind the origin in a seal: what is signed is an encrypted thought, for which Gemini has no place of its own."""

_CONFIG = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "reasoning": "thinkingConfig",
    "format": "responseMimeType",
    "modalities": "responseModalities",
    "audio": "speechConfig",
}
SPELLING = {field: f"generationConfig.{name}" for field, name in _CONFIG.items()} | {
    "tool_choice": "toolConfig",
    "service_tier": "serviceTier",
    "metadata": "labels",
}

# Members of a part that hold one thing, and what only says more about it.
_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
_FOREIGN = frozenset({"executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
_OPAQUE = frozenset(
    {"args", "response", "parametersJsonSchema", "responseJsonSchema", "_responseJsonSchema", "labels", "parameters"}
    | {"responseSchema"}  # its members are turned by from_openapi; those below `properties` are the caller's own names
)
_PROTO = re.compile(rb'"[a-z]+(?:_[a-z]+)+"\s*:').search
_WORD = re.compile(r"_([a-z0-9])")


def read(body: bytes, model: str, *, stream: bool) -> Request:
    """See `Translator.parse_request`."""
    value = decode_object(body)
    if _PROTO(body) is not None:
        value = _camel(value)
    inner = value.get("generateContentRequest")
    asked = Members(inner if isinstance(inner, dict) else value)  # countTokens has it inside
    asked.take("model")
    extras: dict[str, Any] = {}
    contents = asked.take("contents")
    if isinstance(contents, (str, dict)):
        contents = [contents]
    if not isinstance(contents, list):
        raise invalid("contents", "a list", contents)
    request = Request(dialect=DIALECT, model=model, stream=stream, messages=_Contents(extras).read(contents))
    system = asked.take("systemInstruction")
    if system is not None:
        request.messages.insert(0, Message("system", _system(system)))
    request.tools = _tools(asked.listed("tools"), extras)
    request.tool_choice = _choice(asked.table("toolConfig"), extras)
    request.service_tier = _tier(asked.text("serviceTier"))
    request.metadata = asked.table("labels")
    _configure(Members(asked.table("generationConfig") or {}, "generationConfig"), request, extras)
    request.extras = {**extras, **asked.left()}
    return request


def _tier(said: str) -> str:
    return "" if said.lower() in ("", "unspecified", "standard") else said.lower()


def _camel(value: Any) -> Any:
    """*value* with camel-case names wherever the names are the API's."""
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, inner in value.items():
        key = name if name.startswith("_") else _WORD.sub(lambda match: match[1].upper(), name)
        found[key] = inner if key in _OPAQUE else _camel(inner)
    return found


def _configure(config: Members, request: Request, extras: dict[str, Any]) -> None:
    request.max_tokens = config.whole("maxOutputTokens")
    request.temperature, request.top_p, request.top_k = (
        config.number("temperature"),
        config.number("topP"),
        config.whole("topK"),
    )
    request.stop = config.strings("stopSequences")
    request.n, request.seed = config.whole("candidateCount"), config.whole("seed")
    request.presence_penalty = config.number("presencePenalty") or None
    request.frequency_penalty = config.number("frequencyPenalty") or None
    request.logprobs, request.top_logprobs = config.flag("responseLogprobs") or None, config.whole("logprobs") or None
    request.modalities = [mode.lower() for mode in config.strings("responseModalities")]
    if request.modalities == ["text"]:
        request.modalities = []
    request.reasoning = _reasoning(config.table("thinkingConfig"), extras)
    schema = config.take("responseJsonSchema") or config.take("_responseJsonSchema")
    own = config.take("responseSchema")
    kind = config.text("responseMimeType")
    if schema is None and own is not None:
        schema = from_openapi(own)
    if kind == "application/json" or schema is not None:
        request.format = Format(schema if isinstance(schema, dict) else None, name="answer" if schema is not None else "")
    elif kind not in ("", "text/plain"):
        extras["generationConfig.responseMimeType"] = kind
    extras.update({f"generationConfig.{name}": value for name, value in config.left().items()})


def _reasoning(said: dict[str, Any] | None, extras: dict[str, Any]) -> Reasoning | None:
    if not said:
        return None
    config = Members(said, "generationConfig.thinkingConfig")
    shown, budget, level = config.flag("includeThoughts"), config.whole("thinkingBudget"), config.text("thinkingLevel")
    found = Reasoning(shown="" if shown is None else "auto" if shown else "omitted")
    if level and level.upper() != "THINKING_LEVEL_UNSPECIFIED":
        found.on, found.effort = True, level.lower()
    elif budget == 0:
        found.on, found.effort = False, "none"
    elif budget is not None:
        found.on = True
        found.adaptive, found.budget = budget < 0, budget if budget > 0 else None
    extras.update({f"generationConfig.thinkingConfig.{name}": value for name, value in config.left().items()})
    return found


# --- tools ---


def _tools(tools: list[Any], extras: dict[str, Any]) -> list[Tool]:
    found: list[Tool] = []
    for number, value in enumerate(tools):
        tool = Members(value, f"tools[{number}]")
        for place, function in enumerate(tool.listed("functionDeclarations")):
            found.append(_function(Members(function, f"tools[{number}].functionDeclarations[{place}]"), extras))
        for name, definition in tool.left().items():  # all others run at the provider
            found.append(Tool(name, server=True, dialect=DIALECT, value={name: definition}))
    return found


def _function(said: Members, extras: dict[str, Any]) -> Tool:
    tool = Tool(said.needed("name"), said.text("description"))
    schema, own = said.table("parametersJsonSchema"), said.table("parameters")
    tool.schema = schema if schema is not None else from_openapi(own) if own is not None else None
    for name in ("response", "responseJsonSchema", "behavior"):  # what the tool answers is no business of most models
        if (value := said.take(name)) is not None:
            extras[f"tools.functionDeclarations.{name}"] = value
    extras.update({f"tools.functionDeclarations.{name}": value for name, value in said.left().items()})
    return tool


def _choice(said: dict[str, Any] | None, extras: dict[str, Any]) -> ToolChoice | None:
    config = Members(said or {}, "toolConfig")
    calling = Members(config.table("functionCallingConfig") or {}, "toolConfig.functionCallingConfig")
    extras.update({f"toolConfig.{name}": value for name, value in config.left().items()})
    mode, names = calling.text("mode").upper(), tuple(calling.strings("allowedFunctionNames"))
    extras.update({f"toolConfig.functionCallingConfig.{name}": value for name, value in calling.left().items()})
    if mode == "NONE":
        return ToolChoice("none")
    if mode == "ANY":
        if len(names) == 1:
            return ToolChoice("tool", names)
        return ToolChoice("allowed", names, must=True) if names else ToolChoice("required")
    if names:
        return ToolChoice("allowed", names)
    return ToolChoice("auto") if mode in ("AUTO", "VALIDATED") else None


# --- contents ---


def _system(value: Any) -> list[Part]:
    if isinstance(value, str):
        return [Text(value)]
    if isinstance(value, dict) and "parts" not in value and "text" in value:
        value = {"parts": [value]}
    parts = Members(value, "systemInstruction").listed("parts")
    return [Text(Members(part, f"systemInstruction.parts[{at}]").text("text")) for at, part in enumerate(parts)]


class _Contents:
    """Reads a conversation. Calls without ids (models before Gemini 3 give none) get some that are the same in every turn."""

    def __init__(self, extras: dict[str, Any]) -> None:
        self.extras = extras
        self._calls = 0
        self._waiting: list[tuple[str, str]] = []  # name and id of calls that have no result yet

    def read(self, contents: list[Any]) -> list[Message]:
        found: list[Message] = []
        for number, value in enumerate(contents):
            said = Members({"parts": [{"text": value}]} if isinstance(value, str) else value, f"contents[{number}]")
            role = said.text("role") or "user"
            if role not in ("user", "model", "function", "system"):
                raise unsupported(said.at("role"), f"The role {role[:40]!r} is not known: use 'user' or 'model'.")
            parts: list[Part] = []
            given = said.take("parts")
            given = [given] if isinstance(given, dict) else given or []
            if not isinstance(given, list):
                raise invalid(said.at("parts"), "a list", given)
            for place, part in enumerate(given):
                self._part(Members(part, f"contents[{number}].parts[{place}]"), parts)
            found.append(Message("assistant" if role == "model" else "system" if role == "system" else "user", parts))
        return found

    def _part(self, part: Members, parts: list[Part]) -> None:
        origin, signature = self._signed(part.text("thoughtSignature"))
        thought = part.flag("thought")
        part.take("partMetadata")
        for name in ("videoMetadata", "mediaResolution"):
            if part.take(name) is not None:
                self.extras[f"contents.parts.{name}"] = True
        kinds = list(part.left())
        if not kinds:
            if signature:  # a signature alone, as streams end with one
                if thought or origin != DIALECT:
                    self._thought(parts, "", signature, origin)
                else:
                    parts.append(Text("", signature=signature, origin=origin))
            return
        kind = kinds[0]
        if len(kinds) > 1:
            raise unsupported(part.at(kinds[1]), "A part holds one thing. Send this in a part of its own.")
        if kind == "text":
            words = part.text("text")
            if thought:
                self._thought(parts, words, signature, origin)
            else:
                parts.append(Text(words, signature=signature, origin=origin if signature else ""))
        elif kind == "inlineData":
            data = Members(part.take(kind), part.at(kind))
            mime = data.needed("mimeType").lower()
            parts.append(Media(kind_of(mime), _standard(data.needed("data")), type=mime, name=data.text("displayName")))
        elif kind == "fileData":
            data = Members(part.take(kind), part.at(kind))
            uri, mime = data.needed("fileUri"), data.text("mimeType").lower()
            media = Media(kind_of(mime), type=mime, name=data.text("displayName"))
            if "://generativelanguage.googleapis.com/" in uri or "://" not in uri:
                media.file = uri
            else:
                media.url = uri
            parts.append(media)
        elif kind == "functionCall":
            self._call(Members(part.take(kind), part.at(kind)), parts, signature, origin)
        elif kind == "functionResponse":
            parts.append(self._result(Members(part.take(kind), part.at(kind))))
        elif kind in _FOREIGN:
            parts.append(Foreign(DIALECT, kind, {kind: part.take(kind)}))
        else:
            raise unsupported(part.at(kind), f"Parts of the kind {kind[:60]!r} are not known: use one of {', '.join(_KINDS)}.")

    @staticmethod
    def _signed(signature: str) -> tuple[str, str]:
        """Origin and signature. Google's SDK writes base64 in the alphabet for URLs."""
        return unseal(_standard(signature), DIALECT) if signature else ("", "")

    @staticmethod
    def _thought(parts: list[Part], words: str, signature: str, origin: str) -> None:
        """Pieces of one thought are one again: a signature ends it."""
        if origin.endswith(HIDDEN):
            parts.append(Thinking(hidden=signature, origin=origin.removesuffix(HIDDEN)))
            return
        last = parts[-1] if parts else None
        if isinstance(last, Thinking) and not last.signature and not last.hidden:
            last.text += words
            last.signature, last.origin = signature, origin or last.origin
        else:
            parts.append(Thinking(words, signature, origin=origin or DIALECT))

    def _call(self, call: Members, parts: list[Part], signature: str, origin: str) -> None:
        name, args = call.needed("name"), call.table("args")
        made = f"call_{sha256(f'{name} {self._calls}'.encode('utf-8', 'replace')).hexdigest()[:24]}"
        self._calls += 1
        called = call.text("id") or made
        self._waiting.append((name, called))
        text = msgspec.json.encode(args or {}).decode()
        parts.append(ToolCall(called, name, text, signature=signature, origin=origin if signature else ""))

    def _result(self, said: Members) -> ToolResult:
        name, called, value = said.needed("name"), said.text("id"), said.take("response")
        match = next((one for one in self._waiting if (one[1] == called if called else one[0] == name)), None)
        if match is not None:
            self._waiting.remove(match)
            called = match[1]
        is_error = False
        if isinstance(value, dict) and len(value) == 1:
            key, inner = next(iter(value.items()))
            if key in ("result", "output", "error", "content") and isinstance(inner, str):
                value, is_error = inner, key == "error"
        text = value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()
        inside: list[Text | Media | Foreign] = [Text(text)]
        for number, part in enumerate(said.listed("parts")):
            more: list[Part] = []
            self._part(Members(part, said.at(f"parts[{number}]")), more)
            inside += [one for one in more if isinstance(one, (Text, Media, Foreign))]
        return ToolResult(called or f"call_{name}", inside, name, is_error)


def kind_of(mime: str) -> Any:
    """Which kind of media a media type is."""
    first = mime.partition("/")[0]
    return first if first in ("image", "audio", "video") else "document"


def _standard(data: str) -> str:
    """Base64 in its usual alphabet."""
    return data.replace("-", "+").replace("_", "/")
