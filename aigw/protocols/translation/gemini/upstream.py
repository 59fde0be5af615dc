"""Gemini's requests, for providers, from canonical words; what each generation of models wants otherwise.

Sources: Google's API pages and google-genai 3.4's types, litellm 1.106's adapter, as of November 2026.
"""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Callable
from typing import Any

import msgspec

from aigw.canonical import (
    Foreign,
    Losses,
    Media,
    Message,
    Part,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.gemini.request import DIALECT
from aigw.protocols.translation.gemini.schemas import to_openapi
from aigw.protocols.translation.names import spoken
from aigw.protocols.translation.reading import unsupported

SKIP = base64.b64encode(b"skip_thought_signature_validator").decode()
"""Stands for the signature of a call that another model made: Gemini 3 and later refuse a call that has none."""

_VERSION = re.compile(r"gemini-(\d+)(?:[.-](\d))?(?!\d)", re.IGNORECASE)
_OLD = re.compile(r"gemini-(?:1|2\.0)|gemma|learnlm|^(?:gemini-)?pro", re.IGNORECASE)
_MOST_STOPS = 5  # Google's limit
_BUDGETS = {"minimal": 512, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}  # litellm's
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def generation(model: str) -> float:
    """2.5 of "gemini-2.5-flash"; names that say nothing ("gemini-flash-latest") are of today's."""
    match = _VERSION.search(model)
    if match is not None:
        return float(f"{match[1]}.{match[2] or 0}")
    return 2.0 if _OLD.search(model) else 3.0


def write(request: Request, toward: Toward, losses: Losses) -> dict[str, Any]:
    """The body. See `Translator.render_request`."""
    return _Writing(request, toward, losses).done()


class _Writing:
    """One request, being written."""

    def __init__(self, request: Request, toward: Toward, losses: Losses) -> None:
        self.request, self.losses = request, losses
        self.model = toward.model.rpartition("/")[2].lower()
        self.generation = generation(self.model)
        self.old = self.generation < 2.5 or _OLD.search(self.model) is not None
        self.body: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # of tools, by the ids of their calls

    def done(self) -> dict[str, Any]:
        body = self.body
        self._contents()
        for field, said in SAID.items():
            value = getattr(self.request, field)
            if value is None or value in ("", [], {}):
                continue
            if said is not None:
                said(self, value)
        for field in UNSAID:
            if getattr(self.request, field) not in (None, "", {}, [], False):
                self.losses.add(field)
        self._extras()
        if self.config:
            body["generationConfig"] = self.config
        return body

    # parameters

    def stop(self, words: list[str]) -> None:
        self.config["stopSequences"] = words[:_MOST_STOPS]
        if len(words) > _MOST_STOPS:
            self.losses.add("stop")

    def penalty(self, field: str, name: str, value: float) -> None:
        if self.generation >= 3:  # refused there
            self.losses.add(field)
        else:
            self.config[name] = value

    def modalities(self, modes: list[str]) -> None:
        if modes != ["text"]:
            self.config["responseModalities"] = [mode.upper() for mode in modes]

    def tier(self, tier: str) -> None:
        if tier in ("flex", "priority"):
            self.body["serviceTier"] = tier
        elif tier not in ("auto", "default", "standard", "standard_only"):
            self.losses.add("service_tier")

    def parallel(self, many: bool) -> None:
        if not many and self.request.tools:
            self.losses.add("parallel")

    def format(self, _: Any) -> None:
        said = self.request.format
        assert said is not None
        if self.generation < 3 and any(not tool.server for tool in self.request.tools):
            self.losses.add("format")  # refused together with functions
            return
        self.config["responseMimeType"] = "application/json"
        if said.schema is not None:
            if self.old:
                self.config["responseSchema"] = to_openapi(said.schema)
            else:
                self.config["responseJsonSchema"] = said.schema

    def reasoning(self, _: Any) -> None:
        said = self.request.reasoning
        assert said is not None
        if self.generation < 2.5:
            if said.on is not False and said.effort != "none":
                self.losses.add("reasoning")
            return
        off = said.on is False or said.effort == "none"
        config: dict[str, Any] = {"includeThoughts": not off and said.shown != "omitted"}
        if self.generation < 3:
            self._budget(config, off=off)
        else:
            self._level(config, off=off)
        self.config["thinkingConfig"] = config

    def _budget(self, config: dict[str, Any], *, off: bool) -> None:
        said = self.request.reasoning
        assert said is not None
        is_pro = "pro" in self.model
        if off:
            config["thinkingBudget"] = 128 if is_pro else 0  # pro cannot be told not to think
        elif said.budget is not None:
            least, most = (128, 32768) if is_pro else (512 if "lite" in self.model else 1, 24576)
            config["thinkingBudget"] = min(max(said.budget, least), most)
        elif said.effort in _BUDGETS:
            config["thinkingBudget"] = _BUDGETS[said.effort]
        elif said.on:
            config["thinkingBudget"] = -1  # as much as it takes

    def _level(self, config: dict[str, Any], *, off: bool) -> None:
        said = self.request.reasoning
        assert said is not None
        level = said.effort
        if not level and said.budget is not None:  # Higress's steps
            level = "low" if said.budget < 4096 else "medium" if said.budget < 16384 else "high"
        if off or level in ("none", "minimal"):
            level = "low" if "pro" in self.model else "minimal"
        elif level in ("xhigh", "max"):
            level = "high"
        elif level == "medium" and self.model.startswith("gemini-3-pro"):
            level = "high"  # it knows low and high
        if level in ("minimal", "low", "medium", "high"):
            config["thinkingLevel"] = level

    def tools(self, tools: list[Tool]) -> None:
        functions = [self._function(tool) for tool in tools if not tool.server]
        found: list[dict[str, Any]] = [{"functionDeclarations": functions}] if functions else []
        for tool in tools:
            if not tool.server:
                continue
            if tool.dialect == DIALECT:
                found.append(tool.value)
            else:
                self.losses.add(f"tools.{tool.name}")
        if found:
            self.body["tools"] = found

    def _function(self, tool: Tool) -> dict[str, Any]:
        said: dict[str, Any] = {"name": spoken(tool.name), "description": tool.description or tool.name}
        schema = _FREE_TEXT if tool.custom else tool.schema
        if schema is not None and (schema.get("properties") or schema.keys() - {"type", "properties", "required", "$schema"}):
            if self.old:
                said["parameters"] = to_openapi(schema)
            else:
                said["parametersJsonSchema"] = schema
        return said

    def tool_choice(self, _: Any) -> None:
        choice = self.request.tool_choice
        assert choice is not None
        if not any(not tool.server for tool in self.request.tools):
            return  # there is nothing to choose from
        mode = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}.get(choice.mode)
        calling: dict[str, Any] = {"mode": mode or ("ANY" if choice.must else "VALIDATED")}
        if choice.names:
            calling["allowedFunctionNames"] = [spoken(name) for name in choice.names]
        self.body["toolConfig"] = {"functionCallingConfig": calling}

    def _extras(self) -> None:
        """What came in this dialect goes back to where it stood; of the others' nothing has a place."""
        for path, value in self.request.extras.items():
            first, _, rest = path.partition(".")
            if self.request.dialect != DIALECT or first in ("contents", "tools"):
                self.losses.add(path)
            elif not rest:
                self.body[first] = value
            else:
                place = self.config if first == "generationConfig" else self.body.setdefault(first, {})
                *steps, last = rest.split(".")
                for step in steps:
                    place = place.setdefault(step, {})
                place[last] = value

    # messages

    def _contents(self) -> None:
        system: list[dict[str, Any]] = []
        contents: list[dict[str, Any]] = []
        for message in self.request.messages:
            role = message.role
            if message.name:
                self.losses.add("messages.name")
            if role in ("system", "developer") and not contents:
                system += [{"text": part.text} for part in message.parts if isinstance(part, Text) and part.text]
                for part in message.parts:
                    if not isinstance(part, Text):
                        self.losses.add(f"messages.content.{_kind(part)}")
                continue
            parts = self._parts(message)
            if not parts:
                continue
            said = "model" if role == "assistant" else "user"
            if contents and contents[-1]["role"] == said:
                contents[-1]["parts"] += parts
            else:
                contents.append({"role": said, "parts": parts})
        for content in contents:
            if content["role"] == "user":  # results answer the turn before: they come first
                content["parts"].sort(key=lambda part: "functionResponse" not in part)
        if not contents:  # there must be some
            contents.append({"role": "user", "parts": system or [{"text": ""}]})
            system = []
        if system:
            self.body["systemInstruction"] = {"parts": system}
        self.body["contents"] = contents

    def _parts(self, message: Message) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        called = False
        for part in message.parts:
            if isinstance(part, Text):
                self._text(part, found)
            elif isinstance(part, Refusal):
                found.append({"text": part.text})
            elif isinstance(part, Media):
                found += self._media(part)
            elif isinstance(part, Thinking):
                if part.origin == DIALECT and part.signature:
                    found.append({"text": part.text, "thought": True, "thoughtSignature": part.signature})
            elif isinstance(part, ToolCall):
                found.append(self._call(part, first=not called))
                called = True
            elif isinstance(part, ToolResult):
                found += self._result(part)
            else:
                found += self._foreign(part)
        return found

    @staticmethod
    def _text(part: Text, found: list[dict[str, Any]]) -> None:
        own = part.signature if part.origin == DIALECT else ""
        if part.text or own:
            found.append({"text": part.text, "thoughtSignature": own} if own else {"text": part.text})

    def _foreign(self, part: Foreign) -> list[dict[str, Any]]:
        if part.dialect == DIALECT and isinstance(part.value, dict):
            return [part.value]
        self.losses.add(f"messages.content.{part.type}")
        return []

    def _media(self, media: Media) -> list[dict[str, Any]]:
        path = "messages.content"
        if media.detail and media.detail != "auto":
            self.losses.add(f"{path}.detail")
        if media.cites:
            self.losses.add(f"{path}.citations")
        before = [{"text": media.context}] if media.context else []
        if media.text:
            return [*before, {"text": f"{media.name}\n\n{media.text}" if media.name else media.text}]
        kind = media.type or mimetypes.guess_type(media.name)[0] or ""
        if media.data:
            kind = kind or {"image": "image/png", "document": "application/pdf", "audio": "audio/wav"}.get(
                media.kind, "video/mp4"
            )
            return [*before, {"inlineData": {"mimeType": kind, "data": media.data}}]
        if media.file and "://" not in media.file and not media.file.startswith("files/"):
            raise unsupported(path, "Gemini does not know files of another provider. Send the content itself, in base64.")
        uri = media.file or media.url
        is_web = uri.startswith(("http://", "https://")) and "youtu" not in uri and not media.file
        if is_web and self.old:
            raise unsupported(path, "This model does not fetch addresses. Send the content itself, in base64.")
        kind = kind or mimetypes.guess_type(uri.partition("?")[0])[0] or ""
        said = {"fileUri": uri}
        if kind:
            said["mimeType"] = kind
        return [*before, {"fileData": said}]

    def _call(self, call: ToolCall, *, first: bool) -> dict[str, Any]:
        name = spoken(call.name)
        self._names[call.id] = name
        said: dict[str, Any] = {"name": name, "args": _arguments(call)}
        if self.generation >= 3 and call.id:
            said["id"] = call.id
        part: dict[str, Any] = {"functionCall": said}
        if call.signature and call.origin == DIALECT:
            part["thoughtSignature"] = call.signature
        elif first and self.generation >= 3:
            part["thoughtSignature"] = SKIP
        return part

    def _result(self, result: ToolResult) -> list[dict[str, Any]]:
        """The tool's words as an object, and what is no text beside them: inside the answer where the model takes it there."""
        words: list[str] = []
        media: list[dict[str, Any]] = []
        for part in result.parts:
            if isinstance(part, Text):
                words.append(part.text)
            elif isinstance(part, Media):
                media += self._media(part)
            else:
                media += self._foreign(part)
        name = self._names.get(result.id) or (spoken(result.name) if result.name else "") or spoken(result.id or "tool")
        said: dict[str, Any] = {"name": name, "response": _response("\n".join(words), is_error=result.is_error)}
        if self.generation >= 3:
            if result.id:
                said["id"] = result.id
            if media:
                said["parts"] = media
            return [{"functionResponse": said}]
        return [{"functionResponse": said}, *media]


def _arguments(call: ToolCall) -> dict[str, Any]:
    if call.custom:
        return {"input": call.arguments}
    try:
        value = msgspec.json.decode(call.arguments or "{}")
    except (ValueError, RecursionError):
        return {"input": call.arguments}  # broken JSON of another model: it shall still see what it did
    return value if isinstance(value, dict) else {} if value is None else {"input": value}


def _response(text: str, *, is_error: bool) -> dict[str, Any]:
    if is_error:
        return {"error": text}
    if text.lstrip()[:1] == "{":
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
    return {"result": text}


def _kind(part: Part) -> str:
    return part.type if isinstance(part, Foreign) else part.kind if isinstance(part, Media) else type(part).__name__.lower()


def _as(name: str) -> Callable[[_Writing, Any], None]:
    def say(writing: _Writing, value: Any) -> None:
        writing.config[name] = value

    return say


SAID: dict[str, Callable[[_Writing, Any], None] | None] = {
    "dialect": None,
    "model": None,  # in the path
    "messages": None,
    "stream": None,  # in the path
    "extras": None,
    "cache": None,  # advice that changes no answer
    "cache_key": None,
    "include_usage": None,  # always
    "tools": _Writing.tools,
    "tool_choice": _Writing.tool_choice,
    "parallel": _Writing.parallel,
    "max_tokens": _as("maxOutputTokens"),
    "temperature": _as("temperature"),
    "top_p": _as("topP"),
    "top_k": _as("topK"),
    "stop": _Writing.stop,
    "n": _as("candidateCount"),
    "seed": _as("seed"),
    "presence_penalty": lambda writing, value: writing.penalty("presence_penalty", "presencePenalty", value),
    "frequency_penalty": lambda writing, value: writing.penalty("frequency_penalty", "frequencyPenalty", value),
    "logprobs": _as("responseLogprobs"),
    "top_logprobs": _as("logprobs"),
    "reasoning": _Writing.reasoning,
    "format": _Writing.format,
    "modalities": _Writing.modalities,
    "service_tier": _Writing.tier,
}
"""How each field of a request is said; None: it needs no words."""

UNSAID = ("logit_bias", "verbosity", "audio", "user", "metadata", "store")
"""Fields that have no place in this shape."""
