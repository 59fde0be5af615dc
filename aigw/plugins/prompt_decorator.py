"""Words around what a caller says: messages before and after, and words that are replaced."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from aigw.canonical import Message, Request, Text, ToolResult
from aigw.errors import ConfigError
from aigw.hooks import Host, Plugin, View
from aigw.plugins.wording import Known, filled, is_known, variables

LONGEST = 100_000
"""Characters of a text in which patterns are looked for; longer ones are left as they are, and counted."""


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """A message. Its text may name variables: {{consumer}}, {{group}}, {{model}}, {{route}}, {{date}}, {{time}}, {{end_user}},
    {{header.NAME}}, {{tag.NAME}}."""

    text: str
    role: Literal["system", "user", "assistant"] = "system"


class Replaced(msgspec.Struct, forbid_unknown_fields=True):
    """Words to be replaced. `regex`: they are a regular expression (Python's), and `text` may name its groups (\\1)."""

    pattern: str
    text: str
    regex: bool = False
    role: Literal["", "system", "user", "assistant"] = ""  # only in messages of this one


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What is added and replaced. Replacing comes first, so what is added stays as it is written."""

    prepend: tuple[Said, ...] = ()
    append: tuple[Said, ...] = ()
    replace: tuple[Replaced, ...] = ()


class PromptDecorator(Plugin):
    """Puts messages before and after a conversation, and replaces words in it."""

    name = "prompt_decorator"
    phase = "prompt"
    reads = frozenset({"request"})
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        if not (config.prepend or config.append or config.replace):
            raise ConfigError("expected prepend, append or replace", key=key)
        for part in ("prepend", "append"):
            for number, said in enumerate(getattr(config, part)):
                for name in variables(said.text):
                    if not is_known(name):
                        raise ConfigError(f"nothing is known of the variable {name!r}", key=f"{key}.{part}[{number}].text")
        self._patterns = [_compiled(one, f"{key}.replace[{number}]") for number, one in enumerate(config.replace)]

    async def request(self, view: View) -> Request | None:
        if not view.conversation:
            return None
        request, changed = view.request, False
        for message in request.messages:
            for part in message.parts:
                if isinstance(part, Text):
                    changed |= self._replace(part, message.role)
                elif isinstance(part, ToolResult):
                    for inner in part.parts:
                        if isinstance(inner, Text):
                            changed |= self._replace(inner, "user")
        if self.config.prepend or self.config.append:
            known = Known(view)
            before = [Message(said.role, [Text(filled(said.text, known))]) for said in self.config.prepend]
            after = [Message(said.role, [Text(filled(said.text, known))]) for said in self.config.append]
            request.messages = [*before, *request.messages, *after]
            changed = True
        return request if changed else None

    def _replace(self, part: Text, role: str) -> bool:
        text = part.text
        if len(text) > LONGEST:
            self.host.count("too_long")
            return False
        for one, pattern in zip(self.config.replace, self._patterns, strict=True):
            if not one.role or one.role == role or (one.role == "system" and role == "developer"):
                text = pattern.sub(one.text, text) if one.regex else text.replace(one.pattern, one.text)
        if text == part.text:
            return False
        part.text = text
        return True


def _compiled(one: Replaced, key: str) -> re.Pattern[str]:
    if not one.pattern:
        raise ConfigError("is empty: that would be everywhere", key=f"{key}.pattern")
    try:
        pattern = re.compile(one.pattern if one.regex else re.escape(one.pattern))
        if one.regex:
            pattern.sub(one.text, "")
    except (re.error, IndexError) as error:
        raise ConfigError(f"is no regular expression: {error}", key=f"{key}.pattern") from None
    return pattern
