"""Answers that are the JSON which was asked for: checked against the schema, mended where that is plain, asked for again where
it is not.

Where a request wants JSON (`response_format` and its kin in the other dialects), the caller gets nothing until the whole answer
was looked at.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from aigw.canonical import Answer, Choice, Format, Message, Part, Request, Text, Thinking, ToolCall
from aigw.errors import ConfigError, UpstreamError
from aigw.hooks import AskAgain, Host, Plugin, View
from aigw.plugins import json_schema

_FENCE = "```"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`again`: how often the model is asked once more, and told what was wrong. `otherwise`: what follows when that did not
    help; "pass" hands the answer on as it is."""

    again: int = 1
    otherwise: Literal["error", "pass"] = "error"


class JsonAnswer(Plugin):
    """Checks answers that are to be JSON."""

    name = "json_answer"
    phase = "prompt"
    reads = frozenset({"request", "answer"})
    buffers = True
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        if not 0 <= config.again <= 5:
            raise ConfigError("expected 0 to 5", key=f"plugins.{host.name}.again")

    async def request(self, view: View) -> None:
        if not view.conversation or view.request.format is None:
            view.done()
            return
        view.state = 0  # times asked again

    async def answer(self, view: View, answer: Answer) -> Answer | None:
        wanted = view.request.format
        if wanted is None:
            return None
        problems: list[str] = []
        changed = False
        choices = []
        for choice in answer.choices:
            found = self._looked_at(choice, wanted, problems)
            changed = changed or found is not choice
            choices.append(found)
        if problems:
            self.host.count("invalid")
            if view.state < self.config.again:
                view.state += 1
                self.host.count("asked_again")
                raise AskAgain(_again(view.request, answer, problems))
            if self.config.otherwise == "error":
                raise UpstreamError(
                    "provider_bad_response",
                    f"{view.served_model!r} answered with something that is not the JSON that was asked for: {problems[0]}",
                    fault="deployment",
                )
            return None
        if changed:
            self.host.count("mended")
            return replace(answer, choices=choices)
        return None

    def _looked_at(self, choice: Choice, wanted: Format, problems: list[str]) -> Choice:
        """*choice*, mended where that is plain; what is wrong with it is added to *problems*."""
        if choice.finish == "content_filter" or any(isinstance(part, ToolCall) for part in choice.parts):
            return choice  # no answer yet, or none at all
        text = "".join(part.text for part in choice.parts if isinstance(part, Text))
        if choice.finish == "length":
            problems.append("it was cut off: it is longer than max_tokens")
            return choice
        value, mended = _value(text)
        if value is _NOTHING:
            problems.append("it is no JSON")
            return choice
        if wanted.schema is None:
            if not isinstance(value, (dict, list)):
                problems.append("expected an object")
        else:
            try:
                problems += json_schema.errors(value, wanted.schema)
            except (ValueError, TypeError, RecursionError):
                pass  # the schema is none: whoever reads the answer knows better
        if mended is None:
            return choice
        parts: list[Part] = [part for part in choice.parts if isinstance(part, Thinking)]
        return replace(choice, parts=[*parts, Text(mended)])


_NOTHING: Any = object()


def _value(text: str) -> tuple[Any, str | None]:
    """The JSON value in *text*, and its text where that is not all of it."""
    bare = text.strip()
    try:
        return msgspec.json.decode(bare), None
    except (msgspec.MsgspecError, RecursionError):
        pass
    inner = _fenced(bare) or _between(bare)
    try:
        return msgspec.json.decode(inner), inner
    except (msgspec.MsgspecError, RecursionError):
        return _NOTHING, None


def _fenced(text: str) -> str:
    """What stands in the only block of code."""
    start = text.find(_FENCE)
    line = text.find("\n", start)
    end = text.rfind(_FENCE)
    if (
        start < 0
        or not start < line < end
        or text.count(_FENCE) != 2
        or text[start + 3 : line].strip().lower() not in ("", "json")
    ):
        return ""
    return text[line:end].strip()


def _between(text: str) -> str:
    """From the first brace or bracket to the last one of its kind."""
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if not starts:
        return ""
    start = min(starts)
    end = text.rfind("}" if text[start] == "{" else "]")
    return text[start : end + 1]


def _again(request: Request, answer: Answer, problems: list[str]) -> Request:
    """The request once more, with the answer that will not do and why."""
    parts: list[Part] = [part for part in answer.choices[0].parts if isinstance(part, Text)] if answer.choices else []
    said = "\n".join(f"- {problem}" for problem in problems[: json_schema.MOST])
    ask = f"That is not the JSON that was asked for:\n{said}\nAnswer again, with the JSON alone and nothing around it."
    more = [Message("assistant", parts)] if parts else []
    return replace(request, messages=[*request.messages, *more, Message("user", [Text(ask)])])
