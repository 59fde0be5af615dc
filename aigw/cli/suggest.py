"""What was probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from aigw.cli.output import safe

_LONGEST = 128  # characters compared: names come from outside, and the comparison is quadratic


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three of *names* that look like *name*, nearest first; case makes no difference. [] when none does."""
    folded: dict[str, str] = {}
    for one in names:
        folded.setdefault(one.casefold()[:_LONGEST], one)
    wanted = name.casefold()[:_LONGEST]
    found = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.6)
    if not found and len(wanted) >= 2:  # "deep" for deepseek: too short to look alike, yet plainly meant
        found = [one for one in folded if one.startswith(wanted)][:3]
    return [folded[one] for one in found]


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """The message for a *name* that no *kind* ("provider", "route") has, with those that are near: "no provider 'opnai': did
    you mean openai?". Safe to show."""
    near = [safe(one) for one in nearest(name, names)]
    hint = f": did you mean {', '.join(near[:-1])}{' or ' if near[:-1] else ''}{near[-1]}?" if near else ""
    return f"no {kind} '{safe(name[:_LONGEST])}'{hint}"
