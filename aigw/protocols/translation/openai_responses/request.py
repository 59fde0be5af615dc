"""A Responses request: read into canonical words, and written from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from aigw.canonical import (
    Cache,
    Foreign,
    Format,
    Losses,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aigw.errors import CallerError
from aigw.protocols.translation import names
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.openai_responses import items
from aigw.protocols.translation.openai_responses.items import OWN
from aigw.protocols.translation.reading import data_uri, decode_object

SPELLING = {
    "max_tokens": "max_output_tokens",
    "parallel": "parallel_tool_calls",
    "format": "text.format",
    "verbosity": "text.verbosity",
    "logprobs": "include",
    "cache_key": "prompt_cache_key",
    "messages": "input",
    "include_usage": "stream_options",
}

_STATE = "no earlier turn is kept there. Send the whole conversation in `input`"
_REFUSED = {
    "previous_response_id": _STATE,
    "conversation": _STATE,
    "background": "answers are not kept there. Leave it out, and read the answer as it comes",
    "prompt": "the template is kept at OpenAI. Send its text in `instructions` and `input`",
}
"""What only a provider with a memory can do, and what to do instead."""

_QUIET = frozenset({"prompt_cache_retention", "prompt_cache_options", "stream", "model"})
"""Advice about caching, and what stands elsewhere."""

_DEFAULTS: dict[str, Any] = {
    "truncation": "disabled",
    "service_tier": "auto",
    "parallel_tool_calls": None,
    "moderation": None,
    "stream_options": {"include_obfuscation": False},
}

_FOREIGN = ("mcp_", "web_search", "compaction", "program", "tool_search")
"""Beginnings of the types of items that tell of the provider's own tools at work."""

CALL_ID = 64
"""Characters of a call's id that OpenAI takes."""

LEAST = 16
"""Fewest `max_output_tokens` that OpenAI takes."""

_THINKS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d)|codex)|-codex|-deep-research")
"""Models of OpenAI's that reason: they refuse sampling parameters, and give encrypted reasoning. Others refuse the latter."""


# --- reading ---


def parse(body: bytes, model: str, *, stream: bool) -> Request:
    return _Reader(decode_object(body), model, stream).request


def _unfit(path: str, wanted: str) -> CallerError:
    return CallerError("caller_invalid_request", f"`{path}` must be {wanted}.", param=path)


def _unsupported(path: str, what: str) -> CallerError:
    return CallerError("caller_unsupported", what, param=path)


def _string(value: Any, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _unfit(path, "a string")
    return value


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unfit(path, "an object")
    return value


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _unfit(path, "a list")
    return value


class _Reader:
    """One request being read. What it has taken is in `request`."""

    def __init__(self, raw: dict[str, Any], model: str, stream: bool) -> None:
        for name, instead in _REFUSED.items():
            if raw.get(name):
                raise _unsupported(name, f"`{name}` is not possible with this model's provider: {instead}.")
        self._raw = raw
        self.request = Request(dialect=OWN, model=model, messages=[], stream=stream, tools=[], extras={})
        self._left = {name: value for name, value in raw.items() if value is not None and name not in _QUIET}
        for name in _REFUSED:
            self._left.pop(name, None)
        self._call_kinds: dict[str, bool] = {}
        self._marks: list[tuple[str, items.Signed]] = []  # signatures of the next call
        self._parameters()
        self._tools()
        self._talk()
        for name, value in self._left.items():
            if value not in ([], {}, "") and value != _DEFAULTS.get(name):
                self.request.extras[name] = value

    def _take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def _number(self, name: str) -> float | None:
        value = self._take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _unfit(name, "a number")
        return value

    def _whole(self, name: str) -> int | None:
        value = self._number(name)
        if value is None:
            return None
        if value != int(value) or abs(value) >= 2**53:
            raise _unfit(name, "a whole number")
        return int(value)

    def _flag(self, name: str) -> bool | None:
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise _unfit(name, "true or false")
        return value

    def _parameters(self) -> None:
        request = self.request
        request.max_tokens = self._whole("max_output_tokens")
        request.temperature, request.top_p = self._number("temperature"), self._number("top_p")
        request.top_logprobs = self._whole("top_logprobs") or None
        request.parallel = self._flag("parallel_tool_calls")
        request.store = self._flag("store")
        request.user = _string(self._take("user"), "user") or _string(self._left.get("safety_identifier"), "safety_identifier")
        self._take("safety_identifier")
        request.cache_key = _string(self._take("prompt_cache_key"), "prompt_cache_key")
        tier = _string(self._take("service_tier"), "service_tier")
        request.service_tier = "" if tier == "auto" else tier
        metadata = self._take("metadata")
        request.metadata = (_object(metadata, "metadata") or None) if metadata is not None else None
        include = self._take("include")
        if include is not None:
            left = [one for one in _list(include, "include") if one != "reasoning.encrypted_content"]
            if "message.output_text.logprobs" in left:
                request.logprobs = True
                left.remove("message.output_text.logprobs")
            if left:
                request.extras["include"] = left
        if request.top_logprobs:
            request.logprobs = True
        self._reasoning()
        self._text()
        request.include_usage = True

    def _reasoning(self) -> None:
        said = self._take("reasoning")
        if said is None:
            return
        said = dict(_object(said, "reasoning"))
        effort = _string(said.pop("effort", None), "reasoning.effort")
        shown = _string(said.pop("summary", None), "reasoning.summary")
        shown = shown or _string(said.pop("generate_summary", None), "reasoning.generate_summary")
        said.pop("generate_summary", None)
        if effort or shown:
            self.request.reasoning = Reasoning(False if effort == "none" else None, effort, shown=shown)
        for name, value in said.items():
            if value not in (None, "auto", "standard"):
                self.request.extras[f"reasoning.{name}"] = value

    def _text(self) -> None:
        text = self._take("text")
        if text is None:
            return
        text = dict(_object(text, "text"))
        self.request.verbosity = _string(text.pop("verbosity", None), "text.verbosity")
        form = text.pop("format", None)
        if form is not None:
            kind = _object(form, "text.format").get("type")
            if kind == "json_object":
                self.request.format = Format()
            elif kind == "json_schema":
                schema = _object(form.get("schema"), "text.format.schema")
                name, about = (_string(form.get(key), f"text.format.{key}") for key in ("name", "description"))
                self.request.format = Format(
                    schema, name, about, form.get("strict") if form.get("strict") is not None else None
                )
            elif kind != "text":
                raise _unsupported("text.format", "`text.format` must be text, json_object or json_schema.")
        for name, value in text.items():
            if value is not None:
                self.request.extras[f"text.{name}"] = value

    # tools

    def _tools(self) -> None:
        tools = self._take("tools")
        if tools is not None:
            self._offer(_list(tools, "tools"), "tools")
        choice = self._take("tool_choice")
        if choice is not None:
            self._choose(choice)

    def _offer(self, tools: list[Any], path: str) -> None:
        for index, raw in enumerate(tools):
            at = f"{path}[{index}]"
            tool = _object(raw, at)
            kind = _string(tool.get("type"), f"{at}.type")
            if kind == "namespace":
                space, about = _string(tool.get("name"), f"{at}.name"), _string(tool.get("description"), f"{at}.description")
                for inner, one in enumerate(_list(tool.get("tools"), f"{at}.tools")):
                    found = self._function(_object(one, f"{at}.tools[{inner}]"), f"{at}.tools[{inner}]")
                    found.value = {"namespace": space, "name": found.name, "about": about}
                    found.dialect, found.name = OWN, f"{space}{items.GAP}{found.name}"
                    self.request.tools.append(found)
            elif kind in ("function", "custom"):
                self.request.tools.append(self._function(tool, at))
            elif items.is_server_tool(kind):
                self.request.tools.append(Tool(kind, server=True, dialect=OWN, value=tool))
            else:
                raise _unsupported(
                    f"{at}.type",
                    f"The tool type {kind[:64]!r} is not known to this model's provider. Offer it as a function, or use a "
                    "model that OpenAI's Responses API serves.",
                )

    def _function(self, tool: dict[str, Any], at: str) -> Tool:
        name = _string(tool.get("name"), f"{at}.name")
        if not name:
            raise _unfit(f"{at}.name", "the tool's name")
        about = _string(tool.get("description"), f"{at}.description")
        known = {"type", "name", "description", "parameters", "strict", "format"}
        for key, value in tool.items():
            # Who may call it, and when it is loaded: of use to OpenAI's own tools only.
            if key not in known and value not in (None, False, [], ["direct"]):
                self.request.extras[f"tools.{key}"] = value
        if tool.get("type") == "custom":
            form = tool.get("format")
            if form is not None and _object(form, f"{at}.format").get("type") == "text":
                form = None
            return Tool(name, about, custom=True, dialect=OWN, value=form)
        schema = tool.get("parameters")
        strict = tool.get("strict")
        if strict is not None and not isinstance(strict, bool):
            raise _unfit(f"{at}.strict", "true or false")
        return Tool(name, about, None if schema is None else _object(schema, f"{at}.parameters"), strict)

    def _choose(self, choice: Any) -> None:
        if isinstance(choice, str):
            if choice not in ("auto", "required", "none"):
                raise _unfit("tool_choice", "auto, required, none, or an object")
            self.request.tool_choice = ToolChoice(choice)  # type: ignore[arg-type]  # one of the three
            return
        kind = _object(choice, "tool_choice").get("type")
        if kind in ("function", "custom"):
            self.request.tool_choice = ToolChoice("tool", (self._known_as(choice, "tool_choice"),))
        elif kind == "allowed_tools":
            tools = [_object(one, "tool_choice.tools") for one in _list(choice.get("tools"), "tool_choice.tools")]
            names = tuple(
                self._known_as(one, "tool_choice.tools") for one in tools if one.get("type") in ("function", "custom")
            )
            if len(names) < len(tools):
                self.request.extras["tool_choice.tools"] = choice["tools"]
            self.request.tool_choice = ToolChoice("allowed", names, must=choice.get("mode") == "required")
        else:
            self.request.extras["tool_choice"] = choice

    def _known_as(self, tool: dict[str, Any], path: str) -> str:
        """The name that other dialects know a tool by."""
        name, space = _string(tool.get("name"), f"{path}.name"), _string(tool.get("namespace"), f"{path}.namespace")
        return f"{space}{items.GAP}{name}" if space else name

    # the conversation

    def _talk(self) -> None:
        instructions = self._take("instructions")
        if instructions:
            if isinstance(instructions, str):
                self._say("system", Text(instructions))
            else:
                self._items(_list(instructions, "instructions"), "instructions")
        said = self._take("input")
        if isinstance(said, str):
            self.request.messages.append(Message("user", [Text(said)]))
        elif said is not None:
            self._items(_list(said, "input"), "input")
        if not self.request.messages:
            raise CallerError("caller_invalid_request", "`input` is empty. Send a text or a list of items.", param="input")

    def _items(self, found: list[Any], path: str) -> None:
        for index, raw in enumerate(found):
            at = f"{path}[{index}]"
            item = _object(raw, at)
            kind = item.get("type") or ("message" if "role" in item else "item_reference" if "id" in item else "")
            self._item(item, kind if isinstance(kind, str) else "", at)

    def _item(self, item: dict[str, Any], kind: str, at: str) -> None:
        if kind == "message":
            self._message(item, at)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, at, custom=kind == "custom_tool_call")
        elif kind in ("function_call_output", "custom_tool_call_output"):
            result = ToolResult(
                _string(item.get("call_id"), f"{at}.call_id"),
                self._output(item.get("output"), f"{at}.output"),
                custom=kind == "custom_tool_call_output",
            )
            last = self.request.messages[-1] if self.request.messages else None
            if last is not None and last.role == "user" and last.parts and isinstance(last.parts[-1], ToolResult):
                last.parts.append(result)
            else:
                self.request.messages.append(Message("user", [result]))
        elif kind == "reasoning":
            self._reasoned(item, at)
        elif kind == "additional_tools":
            self._offer(_list(item.get("tools"), f"{at}.tools"), f"{at}.tools")
        elif kind == "item_reference":
            raise _unsupported(at, f"`{at}` refers to an item that this model's provider does not keep. Send the item itself.")
        elif kind.endswith(("_call", "_call_output")) or kind.startswith(_FOREIGN):
            self._say("assistant", Foreign(OWN, kind, item))
        else:
            raise _unsupported(f"{at}.type", f"`{at}` has the unknown type {kind[:64]!r}. Send a message or a tool's output.")

    def _say(self, role: Role, *parts: Part) -> None:
        """What one side says in a row is one message of it."""
        messages = self.request.messages
        if messages and messages[-1].role == role == "assistant":
            messages[-1].parts += parts
        else:
            messages.append(Message(role, list(parts)))

    def _message(self, item: dict[str, Any], at: str) -> None:
        role = item.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise _unfit(f"{at}.role", "system, developer, user or assistant")
        content = item.get("content")
        if isinstance(content, str):
            parts: list[Part] = [Text(content)]
        else:
            parts = [self._part(one, f"{at}.content[{n}]") for n, one in enumerate(_list(content, f"{at}.content"))]
        self._say(role, *parts)

    def _part(self, raw: Any, at: str) -> Text | Media | Refusal:
        part = _object(raw, at)
        kind = part.get("type")
        cache = Cache() if part.get("prompt_cache_breakpoint") else None
        if kind in ("input_text", "output_text", "text"):
            return Text(_string(part.get("text"), f"{at}.text"), cache)
        if kind == "refusal":
            return Refusal(_string(part.get("refusal"), f"{at}.refusal"))
        if kind == "input_image":
            image = Media("image", detail=_string(part.get("detail"), f"{at}.detail"), cache=cache)
            if part.get("file_id"):
                image.file = _string(part["file_id"], f"{at}.file_id")
            else:
                _place(image, _string(part.get("image_url"), f"{at}.image_url"), f"{at}.image_url")
            image.detail = "" if image.detail == "auto" else image.detail
            return image
        if kind == "input_file":
            document = Media("document", name=_string(part.get("filename"), f"{at}.filename"), cache=cache)
            if part.get("file_id"):
                document.file = _string(part["file_id"], f"{at}.file_id")
            elif part.get("file_url"):
                document.url = _string(part["file_url"], f"{at}.file_url")
            else:
                data = _string(part.get("file_data"), f"{at}.file_data")
                _place(document, data if data.startswith("data:") else f"data:application/pdf;base64,{data}", f"{at}.file_data")
            return document
        if kind == "input_audio":
            audio = _object(part.get("input_audio"), f"{at}.input_audio")
            data = _string(audio.get("data"), f"{at}.input_audio.data")
            form = _string(audio.get("format"), f"{at}.input_audio.format")
            return Media("audio", data=data, type="audio/" + {"mp3": "mpeg"}.get(form, form or "wav"))
        raise _unsupported(f"{at}.type", f"`{at}` has the unknown type {str(kind)[:64]!r}. Send text, an image or a file.")

    def _output(self, output: Any, at: str) -> list[Text | Media | Foreign]:
        if isinstance(output, str):
            return [Text(output)]
        if output is None:
            return []
        found: list[Text | Media | Foreign] = []
        for index, one in enumerate(_list(output, at)):
            part = self._part(one, f"{at}[{index}]")
            found.append(Text(part.text) if isinstance(part, Refusal) else part)
        return found

    def _call(self, item: dict[str, Any], at: str, *, custom: bool) -> None:
        given = item.get("input" if custom else "arguments")
        arguments = _string(given, f"{at}.{'input' if custom else 'arguments'}")
        call = ToolCall(
            _string(item.get("call_id"), f"{at}.call_id") or _string(item.get("id"), f"{at}.id"),
            self._known_as(item, at),
            arguments if custom else arguments or "{}",
            custom,
        )
        for origin, signed in self._marks:
            call.signature, call.origin = signed.signature, origin
        self._marks.clear()
        self._say("assistant", call)

    def _reasoned(self, item: dict[str, Any], at: str) -> None:
        item_id = _string(item.get("id"), f"{at}.id")
        encrypted = _string(item.get("encrypted_content"), f"{at}.encrypted_content")
        words = [
            _string(_object(one, f"{at}.{name}").get("text"), f"{at}.{name}.text")
            for name in ("content", "summary")
            for one in _list(item.get(name) or [], f"{at}.{name}")
        ]
        if item.get("content") and item.get("summary"):
            words = words[: len(item["content"])]  # the thought itself, not what was said of it
        text = "\n\n".join(words)
        origin, signed = items.opened(encrypted) if encrypted else (OWN, items.Signed())
        if origin == OWN:
            whole = items.pack(item_id, encrypted) if encrypted else ""
            thought = Thinking(text, whole if text else "", "" if text else whole, OWN, item_id)
        elif signed.on == "call":
            self._marks.append((origin, signed))
            return
        elif signed.on == "text":
            self._sign_text(origin, signed.signature)
            return
        else:
            thought = Thinking(text, signed.signature, signed.hidden, origin, item_id)
        if thought.text or thought.signature or thought.hidden:
            self._say("assistant", thought)

    def _sign_text(self, origin: str, signature: str) -> None:
        last = self.request.messages[-1] if self.request.messages else None
        if last is None or last.role != "assistant":
            return
        for part in reversed(last.parts):
            if isinstance(part, Text):
                part.signature, part.origin = signature, origin
                return


def _place(media: Media, url: str, path: str) -> None:
    """Put a URL, or the data in it, into *media*."""
    if not url:
        raise _unfit(path, "a URL")
    found = data_uri(url)
    if found is None:
        media.url = url
    else:
        media.type, media.data = found


# --- writing ---

SAID = frozenset(
    """dialect model messages stream tools tool_choice parallel max_tokens temperature top_p logprobs top_logprobs reasoning
    format verbosity user metadata service_tier store cache cache_key include_usage extras""".split()  # noqa: SIM905 - a list of 20 quoted words reads worse
)
"""The fields of a canonical request that this shape has a word for, or that ask for what it does anyhow. (Marks for a cache are
advice.)"""


def render(request: Request, toward: Toward, losses: Losses) -> bytes:
    return items.encode(_written(request, toward, losses))


def _written(request: Request, toward: Toward, losses: Losses) -> dict[str, Any]:
    thinks = bool(_THINKS.search(toward.model)) or request.reasoning is not None
    body: dict[str, Any] = {"model": toward.model}
    written = list(_input(request, losses))
    if written and written[0].get("role") == "system" and isinstance(written[0]["content"], str):
        body["instructions"] = written.pop(0)["content"]
    body["input"] = written
    if toward.stream:
        body["stream"] = True
    _write_tools(request, body, losses)
    if request.max_tokens is not None:
        body["max_output_tokens"] = max(LEAST, request.max_tokens)
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is None:
            continue
        if _THINKS.search(toward.model):
            if value != 1:
                losses.add(name)
        else:
            body[name] = value
    _write_reasoning(request, body, losses)
    text: dict[str, Any] = {}
    if request.format is not None:
        text["format"] = items.format_out(request.format)
    if request.verbosity:
        text["verbosity"] = request.verbosity
    if text:
        body["text"] = text
    include = []
    # Nothing is kept unless the caller asked for it, so what was thought has to come along, for the next turn.
    body["store"] = bool(request.store) if request.dialect != OWN else request.store is not False
    if thinks and not body["store"]:
        include.append("reasoning.encrypted_content")
    if request.logprobs:
        include.append("message.output_text.logprobs")
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    if include:
        body["include"] = include
    for field, name in (("user", "user"), ("service_tier", "service_tier"), ("cache_key", "prompt_cache_key")):
        if getattr(request, field):
            body[name] = getattr(request, field)
    if request.metadata:
        kept = {key: value for key, value in request.metadata.items() if isinstance(value, str)}
        if len(kept) < len(request.metadata):
            losses.add("metadata")
        if kept:
            body["metadata"] = kept
    for field in Request.__struct_fields__:
        if field not in SAID and _asks(field, getattr(request, field)):
            losses.add(field)
    _write_extras(request, body, losses)
    return body


def _asks(field: str, value: Any) -> bool:
    if field == "n":
        return value not in (None, 1)
    if field == "modalities":
        return value not in ([], ["text"])
    if field in ("presence_penalty", "frequency_penalty"):
        return bool(value)
    return value not in (None, [], {}, "", False)


def _write_extras(request: Request, body: dict[str, Any], losses: Losses) -> None:
    if request.dialect != OWN:
        for path in request.extras:
            losses.add(path)
        return
    for path, value in request.extras.items():
        outer, dot, inner = path.partition(".")
        if path == "include":
            body["include"] = [*body.get("include", []), *value]
        elif not dot:
            body[path] = value
        elif outer in ("reasoning", "text"):
            body.setdefault(outer, {})[inner] = value
        else:
            losses.add(path)


def _write_reasoning(request: Request, body: dict[str, Any], losses: Losses) -> None:
    asked = request.reasoning
    if asked is None:
        return
    out: dict[str, Any] = {}
    effort = items.effort_of(asked)
    if effort:
        out["effort"] = effort
    if asked.shown in ("auto", "concise", "detailed"):
        out["summary"] = asked.shown
    elif asked.shown == "summarized" or (asked.on and not asked.shown):
        out["summary"] = "auto"
    if out:
        body["reasoning"] = out


def _write_tools(request: Request, body: dict[str, Any], losses: Losses) -> None:
    tools = []
    for tool in request.tools:
        if tool.server and tool.dialect != OWN:
            losses.add(f"tools.{tool.name}")
        else:
            tools.append(tool)
    if tools:
        body["tools"] = items.tools_out(tools)
        if request.tool_choice is not None:
            body["tool_choice"] = items.choice_out(request.tool_choice, tools)
    if request.parallel is not None and tools:
        body["parallel_tool_calls"] = request.parallel


def _input(request: Request, losses: Losses) -> Iterator[dict[str, Any]]:
    kinds = items.called(request)
    for message in request.messages:
        if message.name:
            losses.add("messages.name")
        if message.role == "assistant":
            yield from _assistant(message, kinds, losses)
        else:
            yield from _asked(message, losses)


def _asked(message: Message, losses: Losses) -> Iterator[dict[str, Any]]:
    """Results first, as they come; then what else is said in the message."""
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            if content:
                yield _spoken(message.role, content)
                content = []
            yield _result(part, losses)
            continue
        found = _input_part(part, losses)
        if found is not None:
            content.append(found)
    if content:
        yield _spoken(message.role, content)


def _spoken(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    if len(content) == 1 and content[0]["type"] == "input_text":
        return {"type": "message", "role": role, "content": content[0]["text"]}
    if role == "system" and all(part["type"] == "input_text" for part in content):
        return {"type": "message", "role": role, "content": "\n\n".join(part["text"] for part in content)}
    return {"type": "message", "role": role, "content": content}


def _input_part(part: Part, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Media):
        found = items.media_out(part)
        if found is None:
            raise CallerError("caller_unsupported", f"OpenAI's Responses API takes no {part.kind}. Leave it out.")
        if part.context:
            losses.add("messages.content.context")
        if part.cites:
            losses.add("messages.content.citations")
        return found
    if isinstance(part, Refusal):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Foreign):
        losses.add(f"messages.content.{part.type}")
    return None


def _result(result: ToolResult, losses: Losses) -> dict[str, Any]:
    parts = []
    for part in result.parts:
        found = _input_part(part, losses)
        if found is not None:
            parts.append(found)
    texts = [part["text"] for part in parts if part["type"] == "input_text"]
    output: Any = "\n".join(texts) if len(texts) == len(parts) else parts
    if result.is_error:
        losses.add("messages.content.is_error")
    kind = "custom_tool_call_output" if result.custom else "function_call_output"
    return {"type": kind, "call_id": names.short_id(result.id, CALL_ID), "output": output}


def _assistant(message: Message, kinds: dict[str, items.Called], losses: Losses) -> Iterator[dict[str, Any]]:
    content: list[dict[str, Any]] = []

    def spoken() -> Iterator[dict[str, Any]]:
        if content:
            yield {"type": "message", "role": "assistant", "content": list(content)}
            content.clear()

    for part in message.parts:
        if isinstance(part, Text):
            content.append({"type": "output_text", "text": part.text, "annotations": []})
        elif isinstance(part, Refusal):
            content.append({"type": "refusal", "refusal": part.text})
        elif isinstance(part, Thinking):
            item = _thought(part)
            if item is not None:
                yield from spoken()
                yield item
        elif isinstance(part, ToolCall):
            yield from spoken()
            yield _call(part, kinds)
        elif isinstance(part, Foreign) and part.dialect == OWN:
            yield from spoken()
            yield dict(part.value)
        elif isinstance(part, Foreign):
            losses.add(f"messages.content.{part.type}")
        else:
            losses.add("messages.content")
    yield from spoken()


def _thought(thought: Thinking) -> dict[str, Any] | None:
    """Only what this dialect's provider wrote itself; it takes nobody else's thoughts."""
    if thought.origin != OWN or not (thought.signature or thought.hidden):
        return None
    item_id, encrypted = items.unpack(thought.signature or thought.hidden)
    item: dict[str, Any] = {"type": "reasoning", "summary": [], "encrypted_content": encrypted}
    if thought.text:
        item["summary"] = [{"type": "summary_text", "text": thought.text}]
    if item_id or thought.id:
        item["id"] = item_id or thought.id
    return item


def _call(call: ToolCall, kinds: dict[str, items.Called]) -> dict[str, Any]:
    known, name, call_id = kinds.get(call.name), names.spoken(call.name), names.short_id(call.id, CALL_ID)
    if call.custom:
        return {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": call.arguments}
    item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": call.arguments or "{}"}
    if known is not None and known.namespace:
        item |= {"name": known.name, "namespace": known.namespace}
    return item
