"""Messages requests for providers, from canonical words. The older API version is written (2023-06-01), whose sampling
parameters the newer one has not; what a model refuses (`models.py`) is left out and said.

Advice about caching is no loss where it cannot be given: OpenAI's `prompt_cache_key` has no word here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from aigw.canonical import (
    Cache,
    Foreign,
    Losses,
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
    ToolResult,
)
from aigw.errors import CallerError
from aigw.protocols.translation import names
from aigw.protocols.translation.anthropic_messages.blocks import DIALECT, JSON_TOOL, NO_TEXT, input_object
from aigw.protocols.translation.anthropic_messages.models import UNKNOWN, Traits, traits
from aigw.protocols.translation.anthropic_messages.schemas import accepted
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.reading import unsupported

_encode = msgspec.json.encode

NEWER = "2026-10-21"
"""The API version that has no sampling parameters any more."""

MARKS = 4
"""Cache marks that a request may have; of more the last ones count, which cover the most."""

LEAST_BUDGET = 1024
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
"""Thinking tokens by OpenAI's word for effort (LiteLLM's figures; the API takes no fewer than 1024)."""

SAID = frozenset(
    """dialect model messages stream tools tool_choice parallel max_tokens temperature top_p top_k stop n reasoning format user
    service_tier store cache cache_key include_usage extras modalities audio""".split()  # noqa: SIM905 - reads better
)
"""The fields of a request that are written here, or told to be lost where they cannot be. All others are losses if they say
anything."""

_UNSAID = tuple(field for field in Request.__struct_fields__ if field not in SAID)
_SILENT: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "verbosity": "medium",
    "logprobs": False,
    "top_logprobs": 0,
}
"""What says nothing: the values that are taken anyway."""

_IMAGES = (("/9j/", "image/jpeg"), ("iVBOR", "image/png"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
_PLAIN = ("text/", "application/json", "application/xml")
_JSON_ONLY = "Answer with one JSON object and nothing else: no words before or after it, and no code fence."


def write(request: Request, toward: Toward, losses: Losses) -> bytes:
    """See `Translator.render_request`."""
    return _encode(_Writer(request, toward, losses).body())


class _Writer:
    def __init__(self, request: Request, toward: Toward, losses: Losses) -> None:
        self.request, self.toward, self.losses = request, toward, losses
        self.traits: Traits = traits(toward.model)
        self.max_tokens = self.traits.output if request.max_tokens is None else request.max_tokens
        self.thinking: dict[str, Any] | None = None
        self.off = False  # thinking was asked to be left
        self.marks: list[dict[str, Any]] = []  # the blocks that have one, in order
        self.schema: dict[str, Any] | None = None  # of the answer, where a tool has to bring it
        self.instruction = ""

    def body(self) -> dict[str, Any]:
        request, losses = self.request, self.losses
        for field in _UNSAID:
            value = getattr(request, field)
            if value not in (None, "", [], {}) and not (field in _SILENT and value == _SILENT[field]):
                losses.add(field)
        if request.n is not None and request.n > 1:
            raise unsupported("n", "This model gives one answer to a request. Send the request several times instead of `n`.")
        if "audio" in request.modalities:
            raise unsupported("modalities", "This model does not speak. Ask for text alone.")
        if request.audio:
            losses.add("audio")
        if request.store:
            losses.add("store")
        tools = self._tools()
        output = self._output()
        self._think(output)
        self._instruct()
        body: dict[str, Any] = {"model": self.toward.model, "max_tokens": self.max_tokens}
        if output:
            body["output_config"] = output
        if self.thinking is not None:
            body["thinking"] = self.thinking
        system, messages = self._messages()
        if system:
            body["system"] = system
        body["messages"] = messages
        self._offer(body, tools, messages)
        self._sample(body)
        self._rest(body)
        for block in self.marks[:-MARKS]:
            del block["cache_control"]
        return body

    # --- how to answer ---

    def _output(self) -> dict[str, Any]:
        """`output_config`, begun; or the schema that a tool has to bring."""
        form = self.request.format
        output: dict[str, Any] = {}
        if form is None:
            return output
        if form.schema is None:
            self.instruction = _JSON_ONLY
            self.losses.add("format")
        elif self.traits.formats:
            schema, exact = accepted(form.schema)
            output["format"] = {"type": "json_schema", "schema": schema}
            if not exact:
                self.losses.add("format")
        else:
            self.schema = form.schema
        return output

    def _instruct(self) -> None:
        """A tool brings the answer where it can be forced; elsewhere words have to do."""
        if self.schema is None or (self.traits.forces and self.thinking is None):
            return
        self.instruction = f"{_JSON_ONLY} It must fit this JSON Schema: {_encode(self.schema).decode()}"
        self.schema = None
        self.losses.add("format")

    def _think(self, output: dict[str, Any]) -> None:
        """`thinking`, and the effort in *output*."""
        wanted, known, losses = self.request.reasoning, self.traits, self.losses
        if wanted is None:
            return
        if wanted.on is False or (wanted.on is None and wanted.effort == "none"):
            if known.thinks:
                losses.add("reasoning")
            elif known.adapts or known is UNKNOWN:
                self.off = True
            return
        if known.adapts and not (known.budgets and wanted.budget is not None):
            self._adapt(wanted, output)
        elif known.budgets:
            self._budget(wanted)
        else:
            losses.add("reasoning")
        choice = self.request.tool_choice
        forced = choice is not None and (choice.mode in ("required", "tool") or choice.must)
        if forced and self.thinking is not None and known.forces and self.request.tools:
            self.thinking = None  # both at once are refused; what must be called is the firmer wish
            losses.add("reasoning")

    def _adapt(self, wanted: Reasoning, output: dict[str, Any]) -> None:
        effort = wanted.effort
        if not effort and wanted.budget is not None:
            effort = "low" if wanted.budget < 4096 else "medium" if wanted.budget < 16384 else "high"
        if effort and effort != "none":
            effort = "low" if effort == "minimal" else effort
            if effort in ("xhigh", "max") and not self.traits.extreme:
                effort = "high"
            output["effort"] = effort
        if wanted.on or wanted.adaptive or wanted.budget is not None or self.request.dialect != DIALECT:
            self.thinking = {"type": "adaptive"}
            self._show(wanted)

    def _budget(self, wanted: Reasoning) -> None:
        budget = wanted.budget if wanted.budget is not None else BUDGETS.get(wanted.effort, BUDGETS["medium"])
        if wanted.on is None and wanted.budget is None and self.request.dialect == DIALECT:
            self.losses.add("output_config.effort")  # an effort without thinking, which these have no word for
            return
        if self.request.max_tokens is None and self.traits is UNKNOWN:
            self.max_tokens += budget
        if self.max_tokens <= LEAST_BUDGET or self._signature_missing():
            self.losses.add("reasoning")
            return
        self.thinking = {"type": "enabled", "budget_tokens": min(max(budget, LEAST_BUDGET), self.max_tokens - 1)}

    def _show(self, wanted: Reasoning) -> None:
        """Newer models think in silence unless they are asked; callers of OpenAI's chat who ask for it wait for words."""
        assert self.thinking is not None
        if wanted.shown == "omitted":
            self.thinking["display"] = "omitted"
        elif wanted.shown or self.request.dialect == "openai_chat":
            self.thinking["display"] = "summarized"

    def _signature_missing(self) -> bool:
        """Whether a turn that called tools, and is still going on, lost its signed thought: then thinking is refused."""
        messages = self.request.messages
        at = len(messages) - 1
        while at >= 0 and messages[at].role != "assistant":
            if not any(isinstance(part, ToolResult) for part in messages[at].parts):
                return False
            at -= 1
        if at < 0:
            return False
        parts = messages[at].parts
        return any(isinstance(part, ToolCall) for part in parts) and not any(_is_own(part) for part in parts)

    def _sample(self, body: dict[str, Any]) -> None:
        request, losses, known = self.request, self.losses, self.traits
        samples = known.samples and self.toward.dialect_version != NEWER
        temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
        thinks = self.thinking is not None
        if temperature is not None:
            if temperature > 1:
                losses.add("temperature")
                temperature = 1.0
            if samples and not thinks:
                body["temperature"] = temperature
            elif temperature != 1:
                losses.add("temperature")
        if top_p is not None and top_p != 1:
            if samples and (known.both or "temperature" not in body) and not (thinks and top_p < 0.95):
                body["top_p"] = top_p
            else:
                losses.add("top_p")
        if top_k is not None:
            if samples and not thinks:
                body["top_k"] = top_k
            else:
                losses.add("top_k")
        stop = [word for word in request.stop if word.strip()]
        if len(stop) < len(request.stop):
            losses.add("stop")
        if stop:
            body["stop_sequences"] = stop

    def _rest(self, body: dict[str, Any]) -> None:
        request, losses = self.request, self.losses
        if self.off:
            body["thinking"] = {"type": "disabled"}
        if self.toward.stream:
            body["stream"] = True
        if request.user:
            if "@" in request.user:  # addresses are refused there
                losses.add("user")
            else:
                body["metadata"] = {"user_id": request.user}
        if request.service_tier == "default":
            body["service_tier"] = "standard_only"
        elif request.service_tier:
            losses.add("service_tier")
        if request.cache is not None:
            body["cache_control"] = _mark(request.cache)
        for path, value in request.extras.items():
            if request.dialect == DIALECT and "." not in path and path not in body:
                body[path] = value
            else:
                losses.add(path)

    # --- tools ---

    def _tools(self) -> list[dict[str, Any]]:
        request = self.request
        choice = request.tool_choice
        only = set(choice.names) if choice is not None and choice.mode == "allowed" else None
        found: list[dict[str, Any]] = []
        for tool in request.tools:
            if tool.server:
                if tool.dialect == DIALECT:
                    found.append(dict(tool.value))
                else:
                    self.losses.add(f"tools.{tool.name}")
            elif only is None or tool.name in only:
                found.append(self._tool(tool))
        return found

    def _tool(self, tool: Tool) -> dict[str, Any]:
        said: dict[str, Any] = {"name": names.spoken(tool.name)}
        if tool.description:
            said["description"] = tool.description
        if tool.custom:  # free text has no word here: an object with one string (the caller's side takes it out again)
            said["input_schema"] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
            if tool.value:
                self.losses.add("tools.format")
        else:
            schema = tool.schema or {"type": "object", "properties": {}}
            said["input_schema"] = schema if schema.get("type") == "object" else {**schema, "type": "object"}
        if tool.strict:
            said["strict"] = True
        return self._marked(said, tool.cache)

    def _offer(self, body: dict[str, Any], tools: list[dict[str, Any]], messages: list[dict[str, Any]]) -> None:
        """`tools` and `tool_choice`."""
        request, known = self.request, self.traits
        said: dict[str, Any] | None = None
        choice = request.tool_choice
        if choice is not None and tools:
            if choice.mode == "tool":
                said = {"type": "tool", "name": names.spoken(choice.names[0])}
            elif choice.mode == "required" or choice.must:
                said = {"type": "any"}
            else:
                said = {"type": "none" if choice.mode == "none" else "auto"}
        if self.schema is not None:
            about = "Gives the answer. Call it once, with the whole answer."
            schema = self.schema if self.schema.get("type") == "object" else {**self.schema, "type": "object"}
            can_call = bool(tools) and (choice is None or choice.mode != "none")
            tools = [*tools, {"name": JSON_TOOL, "description": about, "input_schema": schema}]
            said = {"type": "any"} if can_call else {"type": "tool", "name": JSON_TOOL}
        elif not tools:
            tools = [{"name": name, "input_schema": {"type": "object"}} for name in dict.fromkeys(_called(messages))]
            said = {"type": "none"} if tools else None  # calls in the history want to know their tools
        if said is not None and said["type"] in ("any", "tool") and not known.forces:
            self.losses.add("tool_choice")
            said = {"type": "auto"}
        if request.parallel is False and tools and (said is None or said["type"] != "none"):
            said = {**(said or {"type": "auto"}), "disable_parallel_tool_use": True}
        if tools:
            body["tools"] = tools
        if said is not None:
            body["tool_choice"] = said

    # --- messages ---

    def _messages(self) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
        """The system prompt and the turns, in the order that is wanted: roles take turns, the results of tools come first."""
        given = self.request.messages
        first = next((at for at, one in enumerate(given) if one.role not in ("system", "developer")), len(given))
        system = [block for one in given[:first] for block in self._words(one)]
        if self.instruction:
            system.append({"type": "text", "text": self.instruction})
        turns: list[dict[str, Any]] = []
        for at in range(first, len(given)):
            message = given[at]
            role: str = message.role
            if role in ("system", "developer"):
                content = self._words(message)
                role = "system" if self._may_interrupt(given, at, turns) else "user"
            else:
                content = list(self._content(message))
            if message.name and role != "system":
                self.losses.add("messages.name")
            if not content:
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += content
            else:
                turns.append({"role": role, "content": content})
        self._order(turns)
        if len(system) == 1 and "cache_control" not in system[0]:
            return system[0]["text"], turns
        return system, turns

    def _order(self, turns: list[dict[str, Any]]) -> None:
        if not turns:
            raise CallerError("caller_invalid_request", "`messages` says nothing: it has no user's words.", param="messages")
        for turn in turns:
            if turn["role"] == "user":
                turn["content"].sort(key=_after_results)
        if turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"type": "text", "text": NO_TEXT}]})
        last = turns[-1]
        if last["role"] == "assistant":
            if not self.traits.prefills:
                raise unsupported(
                    "messages",
                    f"{self.toward.model} does not go on with an answer begun for it. End `messages` with a user's turn.",
                )
            block = last["content"][-1]
            if block["type"] == "text":  # white space at the end is refused
                block["text"] = block["text"].rstrip() or NO_TEXT
        for turn in turns:
            content = turn["content"]
            if len(content) == 1 and content[0]["type"] == "text" and len(content[0]) == 2:
                turn["content"] = content[0]["text"]

    def _may_interrupt(self, given: list[Message], at: int, turns: list[dict[str, Any]]) -> bool:
        """A system's turn stands between a user's and the assistant's, on models that know it."""
        following = next((one.role for one in given[at + 1 :] if one.role not in ("system", "developer")), "assistant")
        return self.traits.interrupts and bool(turns) and turns[-1]["role"] in ("user", "system") and following == "assistant"

    def _words(self, message: Message) -> list[dict[str, Any]]:
        """Of a system's or developer's message: text alone."""
        found = []
        for part in message.parts:
            if not isinstance(part, Text):
                raise unsupported("messages", "A system message can only hold text here. Move the rest into a user's message.")
            if part.text.strip():
                found.append(self._marked({"type": "text", "text": part.text}, part.cache))
        return found

    def _content(self, message: Message) -> Iterator[dict[str, Any]]:
        """The blocks of one message; none for what says nothing."""
        answers = message.role == "assistant"
        for part in message.parts:
            if isinstance(part, Text | Refusal):
                if part.text.strip():
                    mark = part.cache if isinstance(part, Text) else None
                    yield self._marked({"type": "text", "text": part.text}, mark)
            elif isinstance(part, Thinking):
                if _is_own(part):
                    yield _thought(part)
            elif isinstance(part, ToolCall):
                said = {
                    "type": "tool_use",
                    "id": names.short_id(part.id, 64),
                    "name": names.spoken(part.name),
                    "input": input_object(part.arguments, custom=part.custom),
                }
                yield self._marked(said, part.cache)
            elif isinstance(part, ToolResult):
                yield self._result(part)
            elif isinstance(part, Media):
                if answers:
                    self.losses.add(f"messages.content.{part.kind}")  # what it made cannot be shown to it again
                else:
                    yield self._media(part)
            else:
                yield from self._foreign(part)

    def _foreign(self, part: Foreign) -> Iterator[dict[str, Any]]:
        if part.dialect == DIALECT and isinstance(part.value, dict):
            yield part.value
        else:
            self.losses.add(f"messages.content.{part.type}")

    def _result(self, result: ToolResult) -> dict[str, Any]:
        said: dict[str, Any] = {"type": "tool_result", "tool_use_id": names.short_id(result.id, 64)}
        content: list[dict[str, Any]] = []
        for part in result.parts:
            if isinstance(part, Text):
                if part.text.strip():
                    content.append(self._marked({"type": "text", "text": part.text}, part.cache))
            elif isinstance(part, Media):
                content.append(self._media(part))
            else:
                content += self._foreign(part)
        if len(content) == 1 and content[0]["type"] == "text" and len(content[0]) == 2:
            said["content"] = content[0]["text"]
        elif content:
            said["content"] = content
        if result.is_error:
            said["is_error"] = True
        return self._marked(said, result.cache)

    def _media(self, media: Media) -> dict[str, Any]:
        if media.kind == "image":
            if media.detail not in ("", "auto"):
                self.losses.add("messages.content.detail")
            return self._marked({"type": "image", "source": self._source(media, _image_type(media))}, media.cache)
        if media.kind != "document":
            raise unsupported(
                "messages", f"This model takes no {media.kind}. Send text, images or documents, or use another model."
            )
        said: dict[str, Any] = {"type": "document", "source": self._document(media)}
        if media.name:
            said["title"] = media.name
        if media.context:
            said["context"] = media.context
        if media.cites:
            said["citations"] = {"enabled": True}
        return self._marked(said, media.cache)

    def _document(self, media: Media) -> dict[str, Any]:
        kind = media.type.partition(";")[0].strip().lower()
        if media.text:
            return {"type": "text", "media_type": "text/plain", "data": media.text}
        if media.data and kind.startswith(_PLAIN):
            try:
                text = base64.b64decode(media.data, validate=True).decode("utf-8", "replace")
            except (binascii.Error, ValueError):
                raise CallerError("caller_invalid_request", "A document's data is not base64.", param="messages") from None
            return {"type": "text", "media_type": "text/plain", "data": text}
        if media.data and kind not in ("", "application/pdf"):
            raise unsupported("messages", f"This model reads PDF and plain text, not {kind[:60]!r}. Send one of those.")
        return self._source(media, "application/pdf")

    def _source(self, media: Media, kind: str) -> dict[str, Any]:
        if media.data:
            return {"type": "base64", "media_type": kind, "data": media.data}
        if media.url:
            return {"type": "url", "url": media.url}
        if media.file and self.request.dialect == DIALECT:
            return {"type": "file", "file_id": media.file}
        raise unsupported("messages", f"A file's id means nothing to this model's provider. Send the {media.kind} as base64.")

    def _marked(self, block: dict[str, Any], cache: Cache | None) -> dict[str, Any]:
        if cache is not None:
            block["cache_control"] = _mark(cache)
            self.marks.append(block)
        return block


def _mark(cache: Cache) -> dict[str, Any]:
    return {"type": "ephemeral", "ttl": cache.ttl} if cache.ttl in ("5m", "1h") else {"type": "ephemeral"}


def _is_own(part: Part) -> bool:
    """A thought that Anthropic signed: no other is taken."""
    return isinstance(part, Thinking) and part.origin == DIALECT and bool(part.signature or part.hidden)


def _thought(part: Thinking) -> dict[str, Any]:
    if part.hidden:
        return {"type": "redacted_thinking", "data": part.hidden}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _after_results(block: dict[str, Any]) -> bool:
    return bool(block["type"] != "tool_result")


def _called(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The names of the tools that a history calls."""
    for turn in messages:
        if isinstance(turn["content"], list):
            yield from (block["name"] for block in turn["content"] if block.get("type") == "tool_use")


def _image_type(media: Media) -> str:
    if media.type:
        return "image/jpeg" if media.type == "image/jpg" else media.type
    return next((kind for start, kind in _IMAGES if media.data.startswith(start)), "image/png")
