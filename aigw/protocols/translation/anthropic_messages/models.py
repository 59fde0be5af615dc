"""What each generation of Claude takes and refuses, told by the model's name. Of a name that is no Claude's (other vendors
serve this API, too) nothing is assumed: it is sent what was asked.

Sources: the vendor's pages on models, thinking, effort, structured outputs and mid-conversation system messages, and the types
of its SDK 2.12 (November 2026). What a page does not say about a model is taken from its elder.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

_WORDS = re.compile(r"claude-?(opus|sonnet|haiku|fable|mythos)?-?(\d{1,2})?(?:[-.](\d{1,2}))?(?!\d)(?:-(opus|sonnet|haiku))?")
_FALLBACK = 4096
"""Tokens of an answer that any model of this API can give (the smallest limit, of Claude 3)."""


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """`output`: the longest answer in tokens. `samples`: it takes temperature, top_p and top_k; `both`: the first two together.
    `budgets`: it takes thinking.budget_tokens; `adapts`: it takes adaptive thinking and effort; `thinks`: it cannot be kept
    from thinking. `forces`: a tool may be forced on it. `prefills`: its answer's beginning may be given. `formats`: it takes
    output_config.format. `interrupts`: it takes the role system after a user's turn. `extreme`: the efforts xhigh and max."""

    output: int = _FALLBACK
    samples: bool = True
    both: bool = True
    budgets: bool = True
    adapts: bool = False
    thinks: bool = False
    forces: bool = True
    prefills: bool = True
    formats: bool = False
    interrupts: bool = False
    extreme: bool = False


UNKNOWN = Traits()


@lru_cache(1024)
def traits(model: str) -> Traits:
    """Of the model that a provider calls *model* ("claude-opus-4-6", "anthropic/claude-3.5-sonnet" ...)."""
    found = _WORDS.search(model.lower())
    if found is None:
        return UNKNOWN
    family = found[1] or found[4] or ""
    if found[2] is None:
        if family != "mythos":
            return UNKNOWN
        version = (5, 0)  # claude-mythos-preview
    else:
        version = (int(found[2]), int(found[3] or 0))
    newest = version >= (5, 0)
    manual = version < (4, 7) if family == "opus" else not newest  # "budget_tokens" and sampling went together
    return Traits(
        output=_output(family, version),
        samples=manual,
        both=version < (4, 1),
        budgets=manual and version >= (3, 7),
        adapts=version >= (4, 6),
        thinks=family in ("fable", "mythos") or (version >= (5, 5) and family in ("opus", "sonnet")),
        forces=not (version >= (5, 5) and family in ("opus", "sonnet"))
        and not (version >= (5, 1) and family in ("fable", "mythos")),
        prefills=version < (4, 6),
        formats=version >= (4, 5) or (family, version) == ("opus", (4, 1)),
        interrupts=(newest and (family, version) != ("sonnet", (5, 0))) or (family == "opus" and version >= (4, 8)),
        extreme=not manual,
    )


def _output(family: str, version: tuple[int, int]) -> int:
    if version < (3, 5):
        return _FALLBACK
    if version < (3, 7):
        return 8192
    if family == "opus":
        return 128_000 if version >= (4, 6) else 64_000 if version >= (4, 5) else 32_000
    return 64_000
