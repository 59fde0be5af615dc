"""What a pool knows of one provider key: how busy it is, whether it rests and why, what the provider lets it do."""

from __future__ import annotations

from aigw.deployment import Allowance, ProviderKey
from aigw.routing.window import Window

LOW = 0.2
"""Share of a limit that is left from which on a key is used less."""

BELIEVED = 5.0
"""Seconds that what is left of a limit is believed, when the provider does not say when it is all back."""

MOST_MODELS = 64
"""Models whose limits are remembered for one account: providers limit each of theirs by itself, and callers choose names."""

BUSY = 1e9
"""What a request under way weighs against the requests a key has had before: those only decide between keys equally busy."""


class Left:
    """What is left of a provider's limits for one model: `share` of the tighter one, until `until` (monotonic seconds)."""

    __slots__ = ("requests", "requests_limit", "share", "tokens", "tokens_limit", "until")

    def __init__(self, said: Allowance, now: float) -> None:
        self.requests, self.requests_limit = said.requests, said.requests_limit
        self.tokens, self.tokens_limit = said.tokens, said.tokens_limit
        shares = [
            (left / limit if limit else (0.0 if left < 1 else 1.0), reset)
            for left, limit, reset in (said[:3], said[3:])
            if left is not None
        ]
        self.share, reset = min(shares, key=lambda one: one[0]) if shares else (1.0, None)
        self.until = now + (BELIEVED if reset is None else reset)

    @property
    def spent(self) -> bool:
        return (self.requests is not None and self.requests < 1) or (self.tokens is not None and self.tokens < 1)

    def take(self) -> None:
        """One more request goes out."""
        if self.requests is not None:
            self.requests -= 1
            if self.requests_limit:
                self.share = min(self.share, self.requests / self.requests_limit)


class KeyState:
    """One key. `until`: when its rest is over (monotonic seconds); `row`: how often in a row it had to rest, 0 when it is well.
    `alone`: what is wrong is the key itself, so no other key's success excuses it. `probe` is what was handed out since the
    rest, to be told from what went out before; `probing` that it is under way.

    `score` says how busy it is: the pool takes the lowest.
    """

    __slots__ = (
        "alone",
        "checked",
        "in_flight",
        "limits",
        "look_at",
        "probe",
        "probed_at",
        "probing",
        "reason",
        "requests",
        "row",
        "score",
        "step",
        "tokens",
        "turn",
        "unit",
        "until",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.turn = self.score = 0.0
        self.unit = self.step = 1.0
        self.requests: Window | None = None
        self.tokens: Window | None = None
        self.limits: dict[str, Left] = {}
        self.look_at = self.checked = 0.0
        self.clear()

    def clear(self) -> None:
        """It is well again."""
        self.until = self.probed_at = 0.0
        self.row = 0
        self.reason = ""
        self.alone = self.probing = False
        self.probe: ProviderKey | None = None

    def configure(self, key: ProviderKey, turn: float, limits: dict[str, Left]) -> None:
        """The weight and limits that the config has now. What was counted stays counted."""
        weight = max(key.weight, 1)
        self.unit, self.step, self.turn, self.limits = BUSY / weight, 1.0 / weight, turn, limits
        self.score = self.in_flight * self.unit + turn
        self.requests = _window(self.requests, key.rpm)
        self.tokens = _window(self.tokens, key.tpm)

    def remember(self, model: str, said: Allowance, now: float) -> Left:
        if len(self.limits) >= MOST_MODELS and model not in self.limits:
            del self.limits[next(iter(self.limits))]
        left = self.limits[model] = Left(said, now)
        return left


def _window(old: Window | None, limit: int) -> Window | None:
    if not limit:
        return None
    if old is None:
        return Window(limit)
    old.limit = limit
    return old
