"""OpenAI's chat requests, for providers, from canonical words: in the shape of OpenAI's own API, with what each host of that
shape wants otherwise.

What hosts want is known by the catalog row's `quirks` and its id (`kind`). Where nothing is known the request goes as OpenAI
would take it. Sources: vendors' API pages and litellm 1.106's adapters, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
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
    ToolChoice,
    ToolResult,
)
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.names import short_id, spoken
from aigw.protocols.translation.openai_chat.request import DIALECT
from aigw.protocols.translation.reading import unsupported

_encode = msgspec.json.encode

OPENAI = frozenset({"openai", "azure"})
"""Rows whose servers are OpenAI's own: they know every member, and refuse what a model does not take."""

_REASONS = re.compile(r"^(?:openai/)?(?:o[1-9]|gpt-[5-9](?!.*chat)|codex-)", re.IGNORECASE)
"""OpenAI's models that reason. They take an effort, and no temperature, top_p, penalties, logprobs, logit_bias or stop."""

_THINKS = re.compile(
    r"gpt-oss|gpt-[5-9]|o[1-9]\b|deepseek|qwen-?3|qwq|glm-[4-9]\.?[5-9]|kimi|gemini-(?:2\.5|[3-9])|think|reason|magistral|minimax-m",
    re.IGNORECASE,
)
"""Models of other hosts of which it is known that they take an effort. Others may answer 400 when they are sent one, so an
effort goes to them only when an OpenAI caller wrote it."""

# How hosts are told to think or not, where it is not by reasoning_effort.
_SWITCH_THINKING = frozenset(
    {"deepseek", "zhipu", "zai", "moonshot", "moonshot-intl", "kimi-code", "doubao", "xiaomi", "longcat"}
)
_SWITCH_ENABLE = frozenset({"dashscope", "dashscope-intl", "bailing", "siliconflow", "modelscope"})
_ROUTERS = frozenset({"openrouter", "requesty", "zenmux"})  # `reasoning` and `cache_control` as OpenRouter defines them

_NO_SCHEMA = frozenset(
    {"deepseek", "zhipu", "zai", "moonshot", "moonshot-intl", "minimax", "minimax-intl", "baichuan", "stepfun"}
)
"""Hosts whose response_format knows json_object and not json_schema."""

_EFFORT_OF_BUDGET = ((4096, "low"), (16384, "medium"))  # Higress's steps; above: high
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "on_demand", "performance"})
_LONGEST_USER = 64  # characters; OpenAI refuses longer ones
_MOST_STOPS = 4  # OpenAI's limit

# Members that only OpenAI's own servers are known to take.
_OPENAIS_OWN = ("store", "metadata", "verbosity", "prediction", "moderation", "modalities", "audio", "web_search_options")
# What a host that refuses unknown members takes beyond the plainest ones (Mistral's API reference).
_STRICT = frozenset(
    """model messages stream tools tool_choice parallel_tool_calls max_tokens temperature top_p stop n random_seed
    presence_penalty frequency_penalty response_format prediction metadata""".split()  # noqa: SIM905 - reads better
)

_COMPLETIONS_ONLY = frozenset({"suffix", "echo", "best_of"})
"""Members of the older completions that chat has no place for."""


def write(request: Request, toward: Toward, losses: Losses) -> bytes:
    """See `Translator.render_request`."""
    return _encode(Writing(request, toward, losses).done())


class Writing:
    """One request, being written. `body` grows member by member."""

    def __init__(self, request: Request, toward: Toward, losses: Losses) -> None:
        self.request, self.toward, self.losses = request, toward, losses
        self.own = toward.kind in OPENAI
        self.reasons = self.own and _REASONS.match(toward.model) is not None
        self.marks = toward.kind in _ROUTERS
        self.body: dict[str, Any] = {"model": toward.model}

    def done(self) -> dict[str, Any]:
        request, body = self.request, self.body
        body["messages"] = [said for message in request.messages for said in self._message(message)]
        if self.toward.stream:
            body["stream"] = True
            if self.toward.stream_usage:
                body["stream_options"] = {"include_usage": True}
        for write in SAID.values():
            if write is not None:
                write(self)
        self._extras()
        self._strictly()
        return body

    # parameters: each knows whether there is anything to say

    def tools(self) -> None:
        found = []
        for tool in self.request.tools:
            if not tool.server:
                found.append(self._tool(tool))
            elif tool.dialect != DIALECT:
                self.losses.add(f"tools.{tool.name}")
            elif isinstance(tool.value, dict) and "web_search_options" in tool.value:
                self.body.update(tool.value)
            else:
                found.append(tool.value)
        if found:
            self.body["tools"] = found

    def _tool(self, tool: Tool) -> dict[str, Any]:
        said: dict[str, Any] = {"name": spoken(tool.name)}
        if tool.description:
            said["description"] = tool.description
        if tool.custom and self.own:
            if tool.value:
                said["format"] = tool.value
            return {"type": "custom", "custom": said}
        if tool.custom:
            said["parameters"] = FREE_TEXT
        elif tool.schema is not None:
            said["parameters"] = tool.schema
        if tool.strict is not None:
            said["strict"] = tool.strict
        function: dict[str, Any] = {"type": "function", "function": said}
        if self.marks and tool.cache is not None:
            function["cache_control"] = _mark(tool.cache)
        return function

    def tool_choice(self) -> None:
        choice = self.request.tool_choice
        if choice is None or "tools" not in self.body:
            return
        self.body["tool_choice"] = self._choice(choice)

    def _choice(self, choice: ToolChoice) -> Any:
        if choice.mode == "tool":
            return self._named(choice.names[0])
        if choice.mode != "allowed":
            return choice.mode
        if self.own:
            mode = "required" if choice.must else "auto"
            return {
                "type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": [self._named(name) for name in choice.names]},
            }
        # The same is said by offering no others.
        allowed = {spoken(name) for name in choice.names}
        self.body["tools"] = [tool for tool in self.body["tools"] if tool.get("function", {}).get("name") in allowed]
        return "required" if choice.must else "auto"

    def _named(self, name: str) -> dict[str, Any]:
        custom = self.own and any(tool.custom for tool in self.request.tools if tool.name == name)
        kind = "custom" if custom else "function"
        return {"type": kind, kind: {"name": spoken(name)}}

    def parallel(self) -> None:
        if self.request.parallel is not None and "tools" in self.body:
            self.body["parallel_tool_calls"] = self.request.parallel

    def max_tokens(self) -> None:
        if self.request.max_tokens is not None:
            newer = self.own or "max-completion-tokens" in self.toward.quirks
            self.body["max_completion_tokens" if newer else "max_tokens"] = self.request.max_tokens

    def temperature(self) -> None:
        self._sampled("temperature", self.request.temperature, usual=1)

    def top_p(self) -> None:
        self._sampled("top_p", self.request.top_p, usual=1)

    def top_k(self) -> None:
        if self.request.top_k is None:
            return
        if self.own:
            self.losses.add("top_k")
        else:
            self.body["top_k"] = self.request.top_k

    def _sampled(self, name: str, value: Any, usual: Any = None) -> None:
        if value is None:
            return
        if self.reasons:
            if value != usual:
                self.losses.add(name)
            return
        self.body[name] = value

    def stop(self) -> None:
        stops = self.request.stop
        if not stops:
            return
        if self.reasons:
            self.losses.add("stop")
            return
        if self.own and len(stops) > _MOST_STOPS:
            self.losses.add("stop")
            stops = stops[:_MOST_STOPS]
        self.body["stop"] = stops

    def n(self) -> None:
        if self.request.n is not None and self.request.n != 1:
            self.body["n"] = self.request.n

    def seed(self) -> None:
        if self.request.seed is not None:
            self.body["random_seed" if self.toward.kind == "mistral" else "seed"] = self.request.seed

    def presence_penalty(self) -> None:
        self._sampled("presence_penalty", self.request.presence_penalty, 0)

    def frequency_penalty(self) -> None:
        self._sampled("frequency_penalty", self.request.frequency_penalty, 0)

    def logprobs(self) -> None:
        self._sampled("logprobs", self.request.logprobs or None)

    def top_logprobs(self) -> None:
        self._sampled("top_logprobs", self.request.top_logprobs)

    def logit_bias(self) -> None:
        self._sampled("logit_bias", self.request.logit_bias)

    def reasoning(self) -> None:
        asked = self.request.reasoning
        if asked is None or asked == Reasoning():
            return
        kind = self.toward.kind
        if kind in _ROUTERS:
            self.body["reasoning"] = _routed(asked)
        elif kind in _SWITCH_THINKING:
            self.body["thinking"] = {"type": "disabled" if asked.on is False else "enabled"}
            if asked.effort and asked.on is not False and kind == "deepseek":
                self.body["reasoning_effort"] = asked.effort
        elif kind in _SWITCH_ENABLE:
            self.body["enable_thinking"] = asked.on is not False
            if asked.budget is not None and asked.on is not False:
                self.body["thinking_budget"] = asked.budget
        else:
            self._effort(asked)

    def _effort(self, asked: Reasoning) -> None:
        model = self.toward.model
        takes = self.reasons if self.own else _THINKS.search(model) is not None
        if not takes and not (asked.effort and self.request.dialect.startswith("openai")):
            if asked.on is not False:  # what does not think needs not be told so
                self.losses.add("reasoning")
            return
        effort = "none" if asked.on is False else asked.effort
        if not effort and asked.budget is not None:
            effort = next((word for most, word in _EFFORT_OF_BUDGET if asked.budget < most), "high")
        if effort:
            self.body["reasoning_effort"] = effort

    def format(self) -> None:
        form = self.request.format
        if form is None:
            return
        if form.schema is None:
            self.body["response_format"] = {"type": "json_object"}
            return
        if self.toward.kind in _NO_SCHEMA:
            self.body["response_format"] = {"type": "json_object"}
            self.losses.add("format")
            words = f"Answer with one JSON object that matches this JSON Schema: {_encode(form.schema).decode()}"
            self.body["messages"].insert(0, {"role": "system", "content": words})
            return
        schema: dict[str, Any] = {"name": spoken(form.name or "answer"), "schema": form.schema}
        if form.description:
            schema["description"] = form.description
        if form.strict is not None:
            schema["strict"] = form.strict
        self.body["response_format"] = {"type": "json_schema", "json_schema": schema}

    def verbosity(self) -> None:
        self._plain("verbosity", self.request.verbosity)

    def modalities(self) -> None:
        self._plain("modalities", self.request.modalities)

    def audio(self) -> None:
        self._plain("audio", self.request.audio)

    def user(self) -> None:
        user = self.request.user
        if len(user) > _LONGEST_USER:  # it tells people apart, and a hash does so too
            user = sha256(user.encode("utf-8", "replace")).hexdigest()
        self._plain("user", user)

    def metadata(self) -> None:
        self._plain("metadata", self.request.metadata)

    def service_tier(self) -> None:
        tier = self.request.service_tier
        if tier in _TIERS:
            self.body["service_tier"] = tier
        elif tier:
            self.losses.add("service_tier")

    def store(self) -> None:
        if self.request.store is not None:
            self._plain("store", self.request.store)

    def cache_key(self) -> None:
        if self.own and self.request.cache_key:
            self.body["prompt_cache_key"] = self.request.cache_key

    def _plain(self, name: str, value: Any) -> None:
        if value is not None and value not in ("", [], {}):
            self.body[name] = value

    def _extras(self) -> None:
        """What had no word goes to hosts as it came, when it came from a caller of the same shape."""
        for name, value in self.request.extras.items():
            if self.request.dialect == DIALECT and "." not in name and name not in _COMPLETIONS_ONLY:
                self.body.setdefault(name, value)
            else:
                self.losses.add(name)

    def _strictly(self) -> None:
        """Take away what this host is not known to take."""
        body = self.body
        if "strict-fields" in self.toward.quirks:
            found = [name for name in body if name not in _STRICT]
            # (a stream's options are asked for by us, and only where the row allows it)
            found = [name for name in found if name != "stream_options"]
        elif not self.own and self.request.dialect != DIALECT:
            found = [name for name in _OPENAIS_OWN if name in body]
        else:
            return
        for name in found:
            if body.pop(name) is not False:
                self.losses.add(_FIELD.get(name, name))

    # messages

    def _message(self, message: Message) -> list[dict[str, Any]]:
        if message.role == "assistant":
            return self._assistant(message)
        if message.role == "user":
            return self._user(message)
        role = message.role if self.own else "system"
        content = self._simple(message.parts)
        return [self._speaker({"role": role, "content": content}, message)] if content else []

    def _speaker(self, said: dict[str, Any], message: Message) -> dict[str, Any]:
        if message.name:
            if "strict-fields" in self.toward.quirks:
                self.losses.add("messages.name")
            else:
                said["name"] = message.name
        return said

    def _simple(self, parts: Iterable[Part]) -> Any:
        """Parts of text alone, as a string: many hosts take nothing else here. Marks for the cache need the parts."""
        texts = [part for part in parts if isinstance(part, Text) and part.text]
        rest = [self._words(part) for part in parts if not isinstance(part, Text)]
        if self.marks and any(text.cache for text in texts):
            return [self._text(text) for text in texts]
        return "\n\n".join([*[text.text for text in texts], *[words for words in rest if words]])

    def _text(self, text: Text) -> dict[str, Any]:
        said: dict[str, Any] = {"type": "text", "text": text.text}
        if self.marks and text.cache is not None:
            said["cache_control"] = _mark(text.cache)
        return said

    def _words(self, part: Part) -> str:
        """What can be said in words of something that has no place here; the rest is a loss."""
        if isinstance(part, Refusal):
            return part.text
        if isinstance(part, Media) and part.text:
            return _document(part)
        if isinstance(part, Foreign):
            self.losses.add(f"messages.content.{part.type}")
            return words_in(part.value)
        if isinstance(part, Media):
            raise unsupported(
                "messages",
                f"An image, file or recording cannot stand there for {self.toward.model}. Send it in a user's message.",
            )
        return ""

    def _user(self, message: Message) -> list[dict[str, Any]]:
        """Results of tools are messages of their own; what they show besides words follows in the user's."""
        content: list[dict[str, Any]] = []
        said = [self._result(part, content) for part in message.parts if isinstance(part, ToolResult)]
        for part in message.parts:
            if isinstance(part, Text):
                if part.text:
                    content.append(self._text(part))
            elif isinstance(part, Media):
                content.append(self._media(part))
            elif isinstance(part, Foreign | Refusal):
                words = self._words(part)
                if words:
                    content.append({"type": "text", "text": words})
        if content or not said:
            whole: Any = content
            if len(content) == 1 and content[0].keys() == {"type", "text"}:
                whole = content[0]["text"]
            said.append(self._speaker({"role": "user", "content": whole or ""}, message))
        return said

    def _result(self, result: ToolResult, shown: list[dict[str, Any]]) -> dict[str, Any]:
        words: list[str] = []
        pictured = False
        for part in result.parts:
            if isinstance(part, Text):
                words.append(part.text)
            elif isinstance(part, Media) and not part.text:
                if not pictured:
                    pictured = True
                    shown.append({"type": "text", "text": f"What the tool call {self._id(result.id)} showed:"})
                shown.append(self._media(part))
                words.append(f"(The {part.kind} follows in the next message.)")
            else:
                words.append(self._words(part))
        text = "\n".join(word for word in words if word)
        if result.is_error and not text.lower().startswith("error"):
            text = f"Error: {text}" if text else "Error"  # there is no other word for it here
        said: dict[str, Any] = {"role": "tool", "tool_call_id": self._id(result.id), "content": text}
        if self.marks and result.cache is not None:
            said["content"] = [{"type": "text", "text": text, "cache_control": _mark(result.cache)}]
        return said

    def _assistant(self, message: Message) -> list[dict[str, Any]]:
        texts: list[Text] = []
        words: list[str] = []
        thoughts: list[Thinking] = []
        calls: list[dict[str, Any]] = []
        said: dict[str, Any] = {"role": "assistant", "content": None}
        for part in message.parts:
            if isinstance(part, Text):
                texts.append(part)
                words.append(part.text)
            elif isinstance(part, Thinking):
                thoughts.append(part)
            elif isinstance(part, ToolCall):
                calls.append(self._call(part))
            elif isinstance(part, Refusal):
                said["refusal"] = part.text
            elif isinstance(part, Foreign) and part.dialect == DIALECT and part.type == "audio":
                self._spoke(part.value, said, words)
            elif isinstance(part, Media) and not part.text:
                self.losses.add(f"messages.content.{part.kind}")  # the model's own work: it need not see it again
            else:
                words.append(self._words(part))
        text = "".join(words)
        if self.marks and any(part.cache for part in texts):
            said["content"] = [self._text(part) for part in texts if part.text]
        elif text or not (calls or "refusal" in said or "audio" in said):
            said["content"] = text
        if "refusal" in said and not self.own:
            said["content"] = text + said.pop("refusal")
        if calls:
            said["tool_calls"] = calls
        self._think(thoughts, said)
        return [self._speaker(said, message)]

    def _spoke(self, audio: Any, said: dict[str, Any], words: list[str]) -> None:
        """What the model said aloud: OpenAI knows the recording by its id, others can be told its words."""
        if self.own:
            said["audio"] = {"id": audio.get("id")}
        elif isinstance(audio.get("transcript"), str):
            words.append(audio["transcript"])
        else:
            self.losses.add("messages.audio")

    def _think(self, thoughts: list[Thinking], said: dict[str, Any]) -> None:
        if "echo-reasoning" in self.toward.quirks and not self._thinks_not():
            # Without it the host refuses the conversation; any word will do.
            said["reasoning_content"] = "".join(thought.text for thought in thoughts) or " "
        elif self.toward.kind in ("moonshot", "moonshot-intl", "kimi-code") and "tool_calls" in said and not self._thinks_not():
            said["reasoning_content"] = "".join(thought.text for thought in thoughts) or " "
        elif self.toward.kind in _DETAILS:
            details = [detail for thought in thoughts if (detail := _detail(thought)) is not None]
            if details:
                said["reasoning_details"] = details

    def _thinks_not(self) -> bool:
        return self.request.reasoning is not None and self.request.reasoning.on is False

    def _call(self, call: ToolCall) -> dict[str, Any]:
        called, name = self._id(call.id), spoken(call.name)
        if call.custom and self.own:
            return {"id": called, "type": "custom", "custom": {"name": name, "input": call.arguments}}
        arguments = _encode({"input": call.arguments}).decode() if call.custom else call.arguments or "{}"
        said: dict[str, Any] = {"id": called, "type": "function", "function": {"name": name, "arguments": arguments}}
        if call.signature and call.origin in (DIALECT, "gemini") and "echo-thought-signature" in self.toward.quirks:
            said["extra_content"] = {"google": {"thought_signature": call.signature}}
        return said

    def _id(self, called: str) -> str:
        if self.toward.kind != "mistral":
            return short_id(called)
        if _NINE(called):  # it wants nine letters and digits
            return called
        return sha256(called.encode("utf-8", "replace")).hexdigest()[:9]

    def _media(self, media: Media) -> dict[str, Any]:
        said = self._shown(media)
        if media.cites or media.context:
            self.losses.add("messages.content.citations" if media.cites else "messages.content.context")
        if self.marks and media.cache is not None:
            said["cache_control"] = _mark(media.cache)
        return said

    def _shown(self, media: Media) -> dict[str, Any]:
        if media.text:
            return {"type": "text", "text": _document(media)}
        if media.file:
            if media.kind == "document" and self.request.dialect == DIALECT:
                return {"type": "file", "file": {"file_id": media.file}}
            raise unsupported(
                "messages", "A file that another provider keeps cannot be read by this one. Send its content as base64."
            )
        if media.kind == "image":
            source = {"url": media.url or f"data:{media.type or 'image/png'};base64,{media.data}"}
            if media.detail:
                source["detail"] = media.detail
            return {"type": "image_url", "image_url": source}
        if media.kind == "video":
            return {
                "type": "video_url",
                "video_url": {"url": media.url or f"data:{media.type or 'video/mp4'};base64,{media.data}"},
            }
        if media.url:
            kind = "documents" if media.kind == "document" else "recordings"
            raise unsupported(
                "messages", f"{self.toward.model} takes no {kind} by URL, and none is fetched. Send it as base64."
            )
        if media.kind == "audio":
            form = media.type.rpartition("/")[2].removeprefix("x-")
            return {
                "type": "input_audio",
                "input_audio": {"data": media.data, "format": "mp3" if form == "mpeg" else form or "wav"},
            }
        name = media.name or f"document.{(media.type.rpartition('/')[2] or 'pdf')[:10]}"
        data = f"data:{media.type or 'application/pdf'};base64,{media.data}"
        return {"type": "file", "file": {"filename": name, "file_data": data}}


SAID: dict[str, Callable[[Writing], None] | None] = {
    "dialect": None,  # (what is None is written elsewhere, or is no part of what is asked)
    "model": None,
    "messages": None,
    "stream": None,
    "tools": Writing.tools,
    "tool_choice": Writing.tool_choice,
    "parallel": Writing.parallel,
    "max_tokens": Writing.max_tokens,
    "temperature": Writing.temperature,
    "top_p": Writing.top_p,
    "top_k": Writing.top_k,
    "stop": Writing.stop,
    "n": Writing.n,
    "seed": Writing.seed,
    "presence_penalty": Writing.presence_penalty,
    "frequency_penalty": Writing.frequency_penalty,
    "logprobs": Writing.logprobs,
    "top_logprobs": Writing.top_logprobs,
    "logit_bias": Writing.logit_bias,
    "reasoning": Writing.reasoning,
    "format": Writing.format,
    "verbosity": Writing.verbosity,
    "modalities": Writing.modalities,
    "audio": Writing.audio,
    "user": Writing.user,
    "metadata": Writing.metadata,
    "service_tier": Writing.service_tier,
    "store": Writing.store,
    "cache": None,  # a hint that no host of this shape but the routers takes, and they want it on a part
    "cache_key": Writing.cache_key,
    "include_usage": None,
    "extras": None,
}
"""Every field of a canonical request, and what writes it."""

FREE_TEXT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The parameters of a tool that takes free text, for hosts that know only functions."""

_FIELD = {
    "random_seed": "seed",
    "max_completion_tokens": "max_tokens",
    "reasoning_effort": "reasoning",
    "response_format": "format",
}
_FIELD |= {"parallel_tool_calls": "parallel", "prompt_cache_key": "cache_key"}
_DETAILS = frozenset({"openrouter", "requesty", "zenmux", "minimax", "minimax-intl"})
_NINE = re.compile(r"[a-zA-Z0-9]{9}").fullmatch


def _mark(cache: Cache) -> dict[str, Any]:
    return {"type": "ephemeral", "ttl": cache.ttl} if cache.ttl else {"type": "ephemeral"}


def _routed(asked: Reasoning) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if asked.on is False:
        said["effort"] = "none"
    elif asked.effort:
        said["effort"] = asked.effort
    elif asked.budget is not None:
        said["max_tokens"] = asked.budget
    else:
        said["enabled"] = True
    if asked.shown == "omitted":
        said["exclude"] = True
    return said


def _detail(thought: Thinking) -> dict[str, Any] | None:
    """One of `reasoning_details`, as its maker wrote it."""
    if thought.origin != DIALECT or not thought.signature.startswith("{"):
        return None
    try:
        detail = msgspec.json.decode(thought.signature)
    except (ValueError, RecursionError):
        return None
    if thought.text:
        detail["summary" if detail.get("type") == "reasoning.summary" else "text"] = thought.text
    return detail if isinstance(detail, dict) else None


def _document(media: Media) -> str:
    """A plain-text document, between marks that show where it ends."""
    about = "".join(f"{line}\n" for line in (media.name, media.context) if line)
    return f"<document>\n{about}{media.text}\n</document>"


def words_in(value: Any) -> str:
    """The words of something foreign: all its `text` members, in order."""
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            return str(value["text"])
        return words_in(value.get("content"))
    if isinstance(value, list):
        return "\n".join(words for entry in value if (words := words_in(entry)))
    return ""
