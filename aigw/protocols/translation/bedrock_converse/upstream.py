"""Converse requests, from canonical words. What the API has no field for and Claude or Nova take goes into
`additionalModelRequestFields`; cache marks become cache points on the models that have a cache.

A thought is sent back to Claude with the signature of Bedrock or of Anthropic itself: these are good on either (the vendor's
page on extended thinking).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from aigw.canonical import (
    Cache,
    Foreign,
    Losses,
    Media,
    Message,
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
from aigw.protocols.translation.anthropic_messages.blocks import NO_TEXT, input_object
from aigw.protocols.translation.anthropic_messages.models import Traits, traits
from aigw.protocols.translation.anthropic_messages.schemas import accepted
from aigw.protocols.translation.anthropic_messages.upstream import BUDGETS, LEAST_BUDGET, MARKS
from aigw.protocols.translation.bedrock_converse.answer import DIALECT
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.reading import unsupported

_encode = msgspec.json.encode

SAID = frozenset(
    """dialect model messages stream tools tool_choice parallel max_tokens temperature top_p top_k stop n reasoning format user
    metadata service_tier store cache cache_key include_usage extras modalities audio""".split()  # noqa: SIM905 - reads better
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
_TIERS = ("default", "priority", "flex", "reserved")
_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_STARTS = (("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lGOD", "gif"), ("UklGR", "webp"))  # base64 of the files' first bytes
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "x-flac": "flac", "mp4": "m4a", "quicktime": "mov", "3gpp": "three_gp"}
_NAME = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")  # what a document's name may not hold
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}")
_METADATA_MOST = 16
_NOVA = re.compile(r"(?:^|[./])nova-(\d*)")
_JSON_ONLY = "Answer with one JSON object and nothing else: no words before or after it, and no code fence."


def write(request: Request, toward: Toward, losses: Losses) -> bytes:
    """See `Shape.render_request`."""
    return _encode(_Writer(request, toward, losses).body())


class _Writer:
    def __init__(self, request: Request, toward: Toward, losses: Losses) -> None:
        self.request, self.toward, self.losses = request, toward, losses
        self.claude = "claude" in toward.model
        self.nova = _NOVA.search(toward.model)
        self.traits: Traits = traits(toward.model)
        self.more: dict[str, Any] = {}  # additionalModelRequestFields
        self.thinks = False
        self.instruction = ""
        self.documents = 0

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
        for path in request.extras:
            losses.add(path)
        body: dict[str, Any] = {}
        self._format(body)
        self._think()
        settings = self._settings()
        system, messages = self._messages()
        body["messages"] = messages
        if system:
            body["system"] = system
        if settings:
            body["inferenceConfig"] = settings
        self._offer(body)
        self._rest(body)
        if self.more:
            body["additionalModelRequestFields"] = self.more
        if self.claude and request.stop:
            body["additionalModelResponseFieldPaths"] = ["/stop_sequence"]
        _spare(body)
        return body

    # --- how to answer ---

    def _format(self, body: dict[str, Any]) -> None:
        form = self.request.format
        if form is None:
            return
        if form.schema is not None and self.claude and self.traits.formats:
            schema, exact = accepted(form.schema)
            said = {"schema": _encode(schema).decode(), "name": names.spoken(form.name or "answer")}
            if form.description:
                said["description"] = form.description
            body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": said}}}
            if not exact:
                self.losses.add("format")
            return
        self.losses.add("format")
        self.instruction = _JSON_ONLY
        if form.schema is not None:
            self.instruction += f" It must fit this JSON Schema: {_encode(form.schema).decode()}"

    def _think(self) -> None:
        wanted, known = self.request.reasoning, self.traits
        if wanted is None:
            return
        if wanted.on is False or (wanted.on is None and wanted.effort == "none"):
            if known.thinks:
                self.losses.add("reasoning")
            elif self.claude and known.adapts:
                self.more["thinking"] = {"type": "disabled"}
            return
        effort = wanted.effort
        if not effort and wanted.budget is not None:
            effort = "low" if wanted.budget < 4096 else "medium" if wanted.budget < 16384 else "high"
        if self.claude:
            self._think_as_claude(effort)
        elif self.nova is not None and self.nova[1] == "2":
            level = {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort) or "medium"
            self.more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
        elif "gpt-oss" in self.toward.model:
            level = {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort) or "medium"
            self.more["reasoning_effort"] = level
        else:
            self.losses.add("reasoning")

    def _think_as_claude(self, effort: str) -> None:
        request, known = self.request, self.traits
        wanted = request.reasoning
        assert wanted is not None
        choice = request.tool_choice
        forced = choice is not None and (choice.mode in ("required", "tool") or choice.must) and bool(request.tools)
        if known.adapts and not (known.budgets and wanted.budget is not None):
            if effort and effort != "none":
                level = "low" if effort == "minimal" else effort
                level = "high" if level in ("xhigh", "max") and not known.extreme else level
                self.more["output_config"] = {"effort": level}
            if forced and known.forces:
                self.losses.add("reasoning")  # both at once are refused; what must be called is the firmer wish
                return
            if wanted.on or wanted.adaptive or wanted.budget is not None or request.dialect != "anthropic_messages":
                self.more["thinking"] = {"type": "adaptive"}
                if wanted.shown == "omitted":
                    self.more["thinking"]["display"] = "omitted"
                elif wanted.shown or request.dialect == "openai_chat":
                    self.more["thinking"]["display"] = "summarized"
                self.thinks = True
            return
        room = request.max_tokens if request.max_tokens is not None else known.output
        if not known.budgets or room <= LEAST_BUDGET or forced:
            self.losses.add("reasoning")
            return
        budget = wanted.budget if wanted.budget is not None else BUDGETS.get(effort, BUDGETS["medium"])
        self.more["thinking"] = {"type": "enabled", "budget_tokens": min(max(budget, LEAST_BUDGET), room - 1)}
        self.thinks = True

    def _settings(self) -> dict[str, Any]:
        request, losses = self.request, self.losses
        samples = self.traits.samples and not self.thinks
        settings: dict[str, Any] = {}
        if request.max_tokens is not None:
            settings["maxTokens"] = request.max_tokens
        temperature = request.temperature
        if temperature is not None:
            if temperature > 1:
                losses.add("temperature")
                temperature = 1.0
            if samples:
                settings["temperature"] = temperature
            elif temperature != 1:
                losses.add("temperature")
        if request.top_p is not None and request.top_p != 1:
            if samples and (self.traits.both or "temperature" not in settings):
                settings["topP"] = request.top_p
            else:
                losses.add("top_p")
        if request.top_k is not None:
            if self.claude and samples:
                self.more["top_k"] = request.top_k
            elif self.nova is not None:
                self.more["inferenceConfig"] = {"topK": request.top_k}
            else:
                losses.add("top_k")
        stop = [word for word in request.stop if word.strip()]
        if len(stop) < len(request.stop):
            losses.add("stop")
        if stop:
            settings["stopSequences"] = stop
        return settings

    def _rest(self, body: dict[str, Any]) -> None:
        request, losses = self.request, self.losses
        kept: dict[str, str] = {}
        if request.user:
            if _METADATA.fullmatch(request.user):
                kept["user"] = request.user
            else:
                losses.add("user")
        if request.metadata:
            strings = {key: value for key, value in request.metadata.items() if isinstance(value, str)}
            fits = all(_METADATA.fullmatch(word) for pair in strings.items() for word in pair)
            if fits and len(strings) == len(request.metadata) and len(strings) + len(kept) <= _METADATA_MOST:
                kept = strings | kept
            else:
                losses.add("metadata")
        if kept:
            body["requestMetadata"] = kept
        tier = request.service_tier
        if tier in _TIERS:
            if tier != "default":
                body["serviceTier"] = {"type": tier}
        elif tier not in ("", "auto"):
            losses.add("service_tier")

    # --- tools ---

    def _offer(self, body: dict[str, Any]) -> None:
        request, losses = self.request, self.losses
        choice = request.tool_choice
        only = set(choice.names) if choice is not None and choice.mode == "allowed" else None
        found: list[dict[str, Any]] = []
        for tool in request.tools:
            if tool.server:
                losses.add(f"tools.{tool.name}")
            elif only is None or tool.name in only:
                found.append({"toolSpec": self._tool(tool)})
                self._point(found, tool.cache)
        called = dict.fromkeys(_called(body["messages"]))
        if choice is not None and choice.mode == "none":
            if not called:
                return
            losses.add("tool_choice")  # there is no such word; and a history with calls wants its tools
        if not found:
            found = [{"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}} for name in called]
        if not found:
            return
        config = body["toolConfig"] = {"tools": found}
        if choice is None or choice.mode == "none" or not request.tools:
            pass
        elif choice.mode == "tool" or choice.mode == "required" or choice.must:
            if self.claude and not self.traits.forces:
                losses.add("tool_choice")
            elif choice.mode == "tool":
                config["toolChoice"] = {"tool": {"name": names.spoken(choice.names[0])}}
            else:
                config["toolChoice"] = {"any": {}}
        if request.parallel is False:
            losses.add("parallel")

    def _tool(self, tool: Tool) -> dict[str, Any]:
        said: dict[str, Any] = {"name": names.spoken(tool.name)}
        if tool.description:
            said["description"] = tool.description
        if tool.custom:  # free text has no word here: an object with one string (the caller's side takes it out again)
            schema: dict[str, Any] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
            if tool.value:
                self.losses.add("tools.format")
        else:
            schema = tool.schema or {"type": "object", "properties": {}}
            schema = schema if schema.get("type") == "object" else {**schema, "type": "object"}
        said["inputSchema"] = {"json": schema}
        if tool.strict:
            if self.claude and self.traits.formats:
                said["strict"] = True
            else:
                self.losses.add("tools.strict")
        return said

    # --- messages ---

    def _messages(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The system prompt and the turns: roles take turns, the results of tools come first, a user begins."""
        given = self.request.messages
        first = next((at for at, one in enumerate(given) if one.role not in ("system", "developer")), len(given))
        system: list[dict[str, Any]] = []
        for one in given[:first]:
            system += self._words(one)
        if self.instruction:
            system.append({"text": self.instruction})
        turns: list[dict[str, Any]] = []
        for message in given[first:]:
            if message.role in ("system", "developer"):
                role, content = "user", self._words(message)
            else:
                role, content = message.role, self._content(message)
            if message.name and role != "system":
                self.losses.add("messages.name")
            if not content:
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += content
            else:
                turns.append({"role": role, "content": content})
        if not turns:
            raise CallerError("caller_invalid_request", "`messages` says nothing: it has no user's words.", param="messages")
        if turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"text": NO_TEXT}]})
        if turns[-1]["role"] == "assistant":
            self._prefill(turns[-1])
        for turn in turns:
            if turn["role"] == "user":
                _order(turn["content"])
        if self.request.cache is not None:
            self._point(turns[-1]["content"], self.request.cache)
        return system, turns

    def _prefill(self, last: dict[str, Any]) -> None:
        if self.claude and not self.traits.prefills:
            raise unsupported(
                "messages",
                f"{self.toward.model} does not go on with an answer begun for it. End `messages` with a user's turn.",
            )
        block = last["content"][-1]
        if "text" in block:  # white space at the end is refused
            block["text"] = block["text"].rstrip() or NO_TEXT

    def _words(self, message: Message) -> list[dict[str, Any]]:
        """Of a system's or developer's message: text alone."""
        found: list[dict[str, Any]] = []
        for part in message.parts:
            if not isinstance(part, Text):
                raise unsupported("messages", "A system message can only hold text here. Move the rest into a user's message.")
            if part.text.strip():
                found.append({"text": part.text})
                self._point(found, part.cache)
        return found

    def _content(self, message: Message) -> list[dict[str, Any]]:
        """The blocks of one message; none for what says nothing."""
        found: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, Text | Refusal):
                if part.text.strip():
                    found.append({"text": part.text})
                    self._point(found, part.cache if isinstance(part, Text) else None)
            elif isinstance(part, Thinking):
                if self._is_own(part):
                    found.append({"reasoningContent": _thought(part)})
            elif isinstance(part, ToolCall):
                said = {
                    "toolUseId": names.short_id(part.id, 64),
                    "name": names.spoken(part.name),
                    "input": input_object(part.arguments, custom=part.custom),
                }
                found.append({"toolUse": said})
                self._point(found, part.cache)
            elif isinstance(part, ToolResult):
                found.append({"toolResult": self._result(part)})
                self._point(found, part.cache)
            elif isinstance(part, Media):
                if message.role == "assistant":
                    self.losses.add(f"messages.content.{part.kind}")  # what it made cannot be shown to it again
                else:
                    found.append(self._media(part))
                    self._point(found, part.cache)
            else:
                found += self._foreign(part)
        if any("document" in block for block in found) and not any("text" in block for block in found):
            found.append({"text": "(see the document)"})  # a document without words beside it is refused
        return found

    def _foreign(self, part: Foreign) -> Iterator[dict[str, Any]]:
        if part.dialect == DIALECT and isinstance(part.value, dict):
            yield part.value
        else:
            self.losses.add(f"messages.content.{part.type}")

    def _is_own(self, part: Thinking) -> bool:
        origins = (DIALECT, "anthropic_messages") if self.claude else (DIALECT,)
        return part.origin in origins and bool(part.signature or part.hidden)

    def _result(self, result: ToolResult) -> dict[str, Any]:
        said: dict[str, Any] = {"toolUseId": names.short_id(result.id, 64)}
        content: list[dict[str, Any]] = []
        for part in result.parts:
            if isinstance(part, Text):
                if part.text.strip():
                    content.append({"text": part.text})
            elif isinstance(part, Media):
                content.append(self._media(part))
            else:
                content += self._foreign(part)
        said["content"] = content or [{"text": NO_TEXT}]
        if result.is_error:
            said["status"] = "error"
        return said

    def _media(self, media: Media) -> dict[str, Any]:
        kind = media.type.partition(";")[0].strip().lower()
        if media.kind == "image":
            if media.detail not in ("", "auto"):
                self.losses.add("messages.content.detail")
            form = _IMAGES.get(kind) or next((name for start, name in _STARTS if media.data.startswith(start)), "")
            if not form and media.url.startswith("s3://"):
                form = _IMAGES.get(f"image/{media.url.rpartition('.')[2].lower()}", "png")
            if kind and not form:
                raise unsupported("messages", f"This model takes PNG, JPEG, GIF and WebP images, not {kind[:60]!r}.")
            return {"image": {"format": form or "png", "source": self._source(media)}}
        if media.kind == "document":
            return {"document": self._document(media, kind)}
        form = kind.partition("/")[2]
        form = _SOUNDS.get(form, form) if media.kind == "audio" or form in ("quicktime", "3gpp") else form
        return {media.kind: {"format": form or ("mp3" if media.kind == "audio" else "mp4"), "source": self._source(media)}}

    def _document(self, media: Media, kind: str) -> dict[str, Any]:
        form = "txt" if media.text else _DOCUMENTS.get(kind or "application/pdf", "txt" if kind.startswith("text/") else "")
        if not form:
            raise unsupported("messages", f"This model does not read {kind[:60]!r}. Send PDF, text or an Office document.")
        self.documents += 1
        stem = " ".join(_NAME.sub(" ", media.name.rpartition(".")[0] or media.name).split())[:150]
        said: dict[str, Any] = {"format": form, "name": f"{stem or 'document'} {self.documents}", "source": self._source(media)}
        if media.context:
            said["context"] = media.context
        if media.cites:
            said["citations"] = {"enabled": True}
        return said

    def _source(self, media: Media) -> dict[str, Any]:
        if media.text:
            return {"bytes": base64.b64encode(media.text.encode("utf-8", "replace")).decode()}
        if media.data:
            return {"bytes": media.data}
        if media.url.startswith("s3://"):
            return {"s3Location": {"uri": media.url}}
        if media.url:
            raise unsupported(
                "messages", f"This model's provider fetches no URLs. Send the {media.kind} itself, as base64, or an s3:// URL."
            )
        raise unsupported("messages", f"A file's id means nothing to this model's provider. Send the {media.kind} as base64.")

    # --- the cache ---

    def _point(self, blocks: list[dict[str, Any]], cache: Cache | None) -> None:
        """A cache point behind what is there; on models without a cache it is an error, and only advice is left out."""
        if cache is None or not (self.claude or self.nova is not None):
            return
        point = {"type": "default"}
        if cache.ttl in ("5m", "1h") and self.claude:
            point["ttl"] = cache.ttl
        blocks.append({"cachePoint": point})


def _spare(body: dict[str, Any]) -> None:
    """Of more cache points than are taken the last ones count, which cover the most."""
    tools = body["toolConfig"]["tools"] if "toolConfig" in body else []
    lists = [tools, body.get("system", []), *(turn["content"] for turn in body["messages"])]
    left = sum("cachePoint" in block for blocks in lists for block in blocks) - MARKS
    for blocks in lists:
        points = [at for at, block in enumerate(blocks) if "cachePoint" in block][: max(left, 0)]
        for at in reversed(points):
            del blocks[at]
        left -= len(points)


def _order(content: list[dict[str, Any]]) -> None:
    """Results of tools come first, each with the cache point behind it."""
    groups: list[list[dict[str, Any]]] = []
    for block in content:
        if "cachePoint" in block and groups:
            groups[-1].append(block)
        else:
            groups.append([block])
    groups.sort(key=lambda group: "toolResult" not in group[0])
    content[:] = [block for group in groups for block in group]


def _called(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The names of the tools that a history calls."""
    for turn in messages:
        yield from (block["toolUse"]["name"] for block in turn["content"] if "toolUse" in block)


def _thought(part: Thinking) -> dict[str, Any]:
    if part.hidden:
        return {"redactedContent": part.hidden}
    return {"reasoningText": {"text": part.text, "signature": part.signature}}
