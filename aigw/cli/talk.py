"""A conversation with a model on the wire: what is asked, and what comes back, in OpenAI's words or in Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from aigw.cli.reach import Answer, CallFailed, failure

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
"""The operations a conversation can be held by, the usual one first."""

ANTHROPIC_MOST = 4096
"""`max_tokens` where none was said: Anthropic's API wants one, and each of its models allows this much."""

_CUT = {"length": "max_tokens", "max_tokens": "max_tokens", "content_filter": "filter", "refusal": "filter"}


class Turn(NamedTuple):
    """What one side said: `role` is "user" or "assistant"."""

    role: str
    text: str


class Wishes(NamedTuple):
    """How it is asked; None: as the provider likes. `new_limit`: the limit is called `max_completion_tokens` (OpenAI's newer
    models refuse the old name, most others do not know the new one). `usage`: ask for token counts in streams."""

    model: str
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    stream: bool = True
    new_limit: bool = False
    usage: bool = True


def request(operation: str, wishes: Wishes, turns: Sequence[Turn]) -> dict[str, Any]:
    """The body to send for *operation*."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    body: dict[str, Any] = {"model": wishes.model}
    limit = wishes.max_tokens
    if operation == "messages":
        if wishes.system:
            body["system"] = wishes.system
        body["max_tokens"] = ANTHROPIC_MOST if limit is None else limit
    else:
        if wishes.system:
            messages.insert(0, {"role": "system", "content": wishes.system})
        if limit is not None:
            body["max_completion_tokens" if wishes.new_limit else "max_tokens"] = limit
        if wishes.stream and wishes.usage:
            body["stream_options"] = {"include_usage": True}
    if wishes.temperature is not None:
        body["temperature"] = wishes.temperature
    return body | {"messages": messages, "stream": wishes.stream}


class Reading:
    """An answer being read. Iterate over it: pieces of text, "" while the model thinks. Afterwards `input` and `output` are
    the tokens (None: not said), `ended` is "" or why it is not whole ("max_tokens", "filter")."""

    def __init__(self, operation: str, answer: Answer) -> None:
        self._messages, self._answer = operation == "messages", answer
        self.input: int | None = None
        self.output: int | None = None
        self.ended = ""

    def __iter__(self) -> Iterator[str]:
        """Raises CallFailed for an error in the stream, and when it breaks off."""
        if not self._answer.streams:
            yield self._whole(self._answer.read())
            return
        whole = False
        for event in self._answer.events():
            if event.data == "[DONE]":
                whole = True
                continue
            try:
                said = json.loads(event.data)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if said.get("error"):
                raise failure(event.data.encode("utf-8", "replace"), 0, self._answer.headers)
            whole = whole or said.get("type") == "message_stop"
            yield from self._anthropic(said) if self._messages else self._openai(said)
        if not whole:
            raise CallFailed("the answer broke off before its end", request_id=self._answer.headers.get("x-request-id", ""))

    def _openai(self, said: dict[str, Any]) -> Iterator[str]:
        self._count(said.get("usage"), "prompt_tokens", "completion_tokens")
        for choice in (said.get("choices") or [])[:1]:
            delta = choice.get("delta") or {}
            self._end(choice.get("finish_reason"))
            if isinstance(delta.get("content"), str):
                yield delta["content"]
            elif delta.get("reasoning_content") or delta.get("reasoning"):
                yield ""

    def _anthropic(self, said: dict[str, Any]) -> Iterator[str]:
        self._count((said.get("message") or {}).get("usage"), "input_tokens", "output_tokens")
        self._count(said.get("usage"), "input_tokens", "output_tokens")
        delta = said.get("delta") or {}
        self._end(delta.get("stop_reason"))
        if delta.get("type") == "text_delta":
            yield str(delta.get("text", ""))
        elif delta.get("type") == "thinking_delta":
            yield ""

    def _whole(self, content: bytes) -> str:
        try:
            said = json.loads(content)
            if self._messages:
                self._count(said.get("usage"), "input_tokens", "output_tokens")
                self._end(said.get("stop_reason"))
                return "".join(part["text"] for part in said["content"] if part.get("type") == "text")
            self._count(said.get("usage"), "prompt_tokens", "completion_tokens")
            choice = said["choices"][0]
            self._end(choice.get("finish_reason"))
            return str(choice["message"].get("content") or "")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise CallFailed(
                "the answer is not what this API promises; --json shows it",
                request_id=self._answer.headers.get("x-request-id", ""),
            ) from None

    def _count(self, usage: Any, input_name: str, output_name: str) -> None:
        if isinstance(usage, dict):
            for attribute, name in (("input", input_name), ("output", output_name)):
                if isinstance(usage.get(name), int):
                    setattr(self, attribute, usage[name])
            if self._messages and isinstance(usage.get("input_tokens"), int):  # Anthropic counts what its cache knew apart
                cached = (usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens"))
                self.input = usage["input_tokens"] + sum(one for one in cached if isinstance(one, int))

    def _end(self, reason: Any) -> None:
        if isinstance(reason, str):
            self.ended = _CUT.get(reason, "")
