"""Which models to propose, and what a new provider's names do to those of the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aigw.cli import output
from aigw.cli.language import say
from aigw.cli.wizard.plan import Model
from aigw.errors import CallerError
from aigw.protocols.operations import OPERATIONS

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.providers.catalog import Row

_DIALOGUE = ("chat", "messages")  # the operations by which people talk to models

# what a model's name says when it is not for conversations
_OTHER_WORK = re.compile(
    r"embed|bge-|rerank|whisper|tts|audio|speech|voice|transcri|asr|ocr|dall-e|image|imagen|flux|video|veo|sora|wan\d|moderation"
    r"|guard|realtime|-live|babbage|davinci|lyria|diffusion|music",
    re.IGNORECASE,
)


def talks(model: str) -> bool:
    """Whether a model's name says nothing against a conversation with it."""
    return not _OTHER_WORK.search(model)


def proposed(row: Row, listed: Sequence[str]) -> list[str]:
    """Models of a provider for conversations, the usual one first. *listed* are those it says it has; [] when nobody asked."""
    usual = [name for name in (row.default_model, *row.models) if name]
    if not listed:
        return list(dict.fromkeys(usual))
    known = [name for name in usual if name in listed]
    return list(dict.fromkeys([*known, *filter(talks, listed)])) or list(listed)


def candidates(names: Names) -> list[Model]:
    """Models of every configured provider, each provider's usual one first."""
    from aigw.providers import catalog

    found = []
    for name, provider in names.providers.items():
        if dialogue(names, name):
            found += [Model(name, model) for model in proposed(catalog.row(provider.kind), names.listed[name])]
    return found


def dialogue(names: Names, provider: str) -> set[str]:
    """The operations of a conversation that *provider* serves: "chat" (OpenAI's), "messages" (Anthropic's)."""
    found = names.providers.get(provider)
    return {one for one in _DIALOGUE if found is not None and found.dialect_for(OPERATIONS[one]) == OPERATIONS[one].dialect}


def understood(names: Names, text: str) -> Model:
    """The model that somebody means by *text*: `provider/model`, or a name that goes to one provider. Raises ValueError with
    what to write instead."""
    provider, slash, model = text.partition("/")
    if slash and model and provider in names.providers:
        return Model(provider, model)
    try:
        target = names.table.resolve(text).targets[0]
    except CallerError:
        if len(names.providers) == 1 and text:
            return Model(next(iter(names.providers)), text)
        shown = output.safe(text[:60])
        raise ValueError(
            say(
                f"no provider here is known to have '{shown}'; if one has it: PROVIDER/MODEL",
                f"没有已知提供“{shown}”的服务商；如果确有，请写成：服务商/模型名",
            )
        ) from None
    return Model(target.provider, target.model or text)


def shadows(names: Names, new: Sequence[str]) -> list[str]:
    """What the names of the *new* providers shadow, and what shadows them: one line for each pair, safe to show."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for lost in names.table.shadowed():
        if lost.winner in new or lost.loser in new:
            pairs.setdefault((lost.winner, lost.loser), []).append(output.safe(lost.claim))
    said = []
    for (winner, loser), claims in pairs.items():
        claims.sort()
        shown, more = ", ".join(claims[:4]), len(claims) - 4
        rest = say(f" and {more} more", f" 等 {len(claims)} 个名称") if more > 0 else ""
        said.append(
            say(
                f"{shown}{rest}: asked for by that name, {winner} answers, as it stands first; {loser}/MODEL reaches {loser}",
                f"{shown}{rest}：按此名称请求时由 {winner} 应答（它在配置中靠前）；用 {loser}/模型名 可访问 {loser}",
            )
        )
    return said
