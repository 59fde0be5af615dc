"""Prompts by name: the caller says which one and fills in its variables; the words are the operator's.

{"model": "fast", "template": "review", "properties": {"language": "Python", "code": "..."}}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from aigw.errors import CallerError, ConfigError
from aigw.hooks import Host, Plugin, View
from aigw.plugins.wording import Known, filled, is_known, variables

SPOKEN = ("chat", "messages", "responses")
"""Operations whose requests may name a template."""

LONGEST = 200_000
"""Characters of one value."""

_VERSION = re.compile(r"(.+)@([0-9]{1,9})\Z")


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """A message; {{name}} stands for a variable."""

    content: str
    role: Literal["system", "user", "assistant"] = "user"


class Template(msgspec.Struct, forbid_unknown_fields=True):
    """One prompt. `defaults` are values of variables that the caller need not give; `model` is asked where it names none."""

    messages: tuple[Said, ...]
    defaults: dict[str, str] = {}
    model: str = ""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`templates` by name; "review@2" is version 2 of "review", and "review" alone means the highest. `required`: requests
    without a template are refused."""

    templates: dict[str, Template]
    required: bool = False


class PromptTemplate(Plugin):
    """Expands templates that requests name."""

    name = "prompt_template"
    phase = "prompt"
    reads = frozenset({"request"})
    fail = "closed"
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        self._latest: dict[str, str] = {}
        versions: dict[str, int] = {}
        for name, template in config.templates.items():
            key = f"plugins.{host.name}.templates.{name}"
            if not template.messages:
                raise ConfigError("has no messages", key=key)
            for unused in set(template.defaults) - {one for said in template.messages for one in variables(said.content)}:
                raise ConfigError(f"the default {unused!r} belongs to no variable of it", key=f"{key}.defaults")
            match = _VERSION.match(name)
            plain, number = (match[1], int(match[2])) if match else (name, -1)
            if number >= versions.get(plain, -2):
                self._latest[plain], versions[plain] = name, number

    async def body(self, view: View, body: bytes) -> bytes | None:
        if view.operation not in SPOKEN or (b'"template"' not in body and not self.config.required):
            return None
        try:
            said = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return None  # whoever reads it next says what is wrong
        if "template" not in said:
            if self.config.required:
                raise CallerError("caller_invalid_request", f"Name a `template`: {self._names()}.", param="template")
            return None
        name, template = self._template(said.pop("template"))
        values = _values(said.pop("properties", {}), template, Known(view))
        try:
            messages = [(one.role, filled(one.content, values)) for one in template.messages]
        except KeyError as missing:
            raise CallerError(
                "caller_invalid_request",
                f"The template {name!r} needs the variable {missing.args[0]!r} in `properties`.",
                param=f"properties.{missing.args[0]}",
            ) from None
        self.host.count("expanded")
        if template.model and not said.get("model"):
            said["model"] = template.model
        return msgspec.json.encode(_written(view.operation, said, messages))

    def _template(self, named: Any) -> tuple[str, Template]:
        name = named if isinstance(named, str) else ""
        found = self.config.templates.get(self._latest.get(name, name))
        if found is None:
            raise CallerError(
                "caller_invalid_request", f"No template is called that; there are {self._names()}.", param="template"
            )
        return name, found

    def _names(self) -> str:
        return ", ".join(sorted(self._latest)[:50])


def _values(given: Any, template: Template, known: Known) -> dict[str, str]:
    if not isinstance(given, dict):
        raise CallerError("caller_invalid_request", "`properties` must be an object of texts.", param="properties")
    values = dict(template.defaults)
    needed = {name for said in template.messages for name in variables(said.content)}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise CallerError(
                "caller_invalid_request",
                f"`properties.{name[:64]}` must be a text or a number.",
                param=f"properties.{name[:64]}",
            )
        if isinstance(value, str) and len(value) > LONGEST:
            raise CallerError(
                "caller_invalid_request", f"`properties.{name[:64]}` is too long.", param=f"properties.{name[:64]}"
            )
        values[name] = str(value)
    for name in needed - set(values):
        if is_known(name):
            values[name] = known[name]
    return values


def _written(operation: str, said: dict[str, Any], messages: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """*said* with the template's messages in front of what it says itself."""
    if operation == "chat":
        own = said.get("messages")
        said["messages"] = [{"role": role, "content": text} for role, text in messages] + (own if isinstance(own, list) else [])
        return said
    system = "\n\n".join(text for role, text in messages if role == "system")
    rest = [{"role": role, "content": text} for role, text in messages if role != "system"]
    if operation == "messages":
        own = said.get("messages")
        said["messages"] = rest + (own if isinstance(own, list) else [])
        if system:
            before = said.get("system")
            said["system"] = (
                f"{system}\n\n{before}"
                if isinstance(before, str) and before
                else system
                if not before
                else [{"type": "text", "text": system}, *before]
            )
        return said
    before = said.get("input")
    more = [{"role": "user", "content": before}] if isinstance(before, str) else before if isinstance(before, list) else []
    said["input"] = rest + more
    if system:
        instructions = said.get("instructions")
        said["instructions"] = f"{system}\n\n{instructions}" if isinstance(instructions, str) and instructions else system
    return said
