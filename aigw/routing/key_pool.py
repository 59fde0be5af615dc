"""Which provider key next: round robin over those that do not rest. Every answer is a judgement on the key it came for.

A 429 rests the key's account until the provider's own Retry-After (at most `LONGEST`), else a little longer each time; an
invalid key (401) rests alone and long; an exhausted account (402) rests long. When a rest is over real traffic is the probe,
and a good answer ends the matter. Answers to requests that went out before the rest teach nothing new: ten that meet one limit
together are one reason to rest, and a stream that ends well meanwhile is none to return.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError

FIRST = 1.0
"""Seconds of the first rest after a 429 that named no time; doubles with each one in a row."""

LONGEST = 3600.0
"""Seconds a rest lasts at most, whatever a provider says."""

INVALID = 600.0
"""Seconds between two tries of a key that the provider called invalid."""

EXHAUSTED = 900.0
"""Seconds between two tries of an account that is out of credit."""


class Rest:
    """What is known of one key: until when it rests (monotonic seconds), and how often in a row it had to. `alone`: for what is
    wrong with the key itself, so no other key's success excuses it. `probed`: it was picked again after its rest."""

    __slots__ = ("alone", "probed", "reason", "row", "until")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.until = 0.0
        self.row = 0
        self.reason = ""
        self.alone = self.probed = False


class KeyPool:
    """The keys of one provider. Not thread-safe: one event loop."""

    def __init__(self, keys: Sequence[ProviderKey], previous: KeyPool | None = None) -> None:
        """*previous* is the pool before a reload: keys with the same secret inherit its rests."""
        self.keys = tuple(keys)
        known = previous.rests_by_secret() if previous is not None else {}
        self._rests = [known.get(key.secret) or Rest() for key in self.keys]
        self._next = 0
        self._rest_of = {key.label: rest for key, rest in zip(self.keys, self._rests, strict=True)}

    def rests_by_secret(self) -> dict[str, Rest]:
        """What a new pool inherits after a reload."""
        return {key.secret: rest for key, rest in zip(self.keys, self._rests, strict=True)}

    def pick(self, now: float, tried: Collection[str] = ()) -> ProviderKey | None:
        """The next key that neither rests nor is in *tried* (labels); None when there is none."""
        count = len(self.keys)
        if count == 1:
            rest, key = self._rests[0], self.keys[0]
            if rest.until > now or key.label in tried:
                return None
            rest.probed = True
            return key
        for step in range(count):
            index = (self._next + step) % count
            rest = self._rests[index]
            if rest.until <= now:
                key = self.keys[index]
                if not tried or key.label not in tried:
                    self._next = (index + 1) % count
                    rest.probed = True
                    return key
        return None

    def wait(self, now: float) -> float:
        """Seconds until the first resting key is back; 0 when one is there."""
        return max(0.0, min((rest.until for rest in self._rests), default=now) - now)

    def succeeded(self, key: ProviderKey) -> None:
        """*key* gave a good answer: it is well again, and its account too, when it was picked after its rest."""
        rest = self._rest_of.get(key.label)
        if rest is None or not rest.row or not rest.probed:
            return
        rest.clear()
        for other, mate in zip(self.keys, self._rests, strict=True):
            if mate.row and not mate.alone and key.account and other.account == key.account:
                mate.clear()

    def failed(self, key: ProviderKey, error: UpstreamError, now: float) -> None:
        """Rest what *error* says is at fault: the key, its account, or nothing."""
        if error.fault not in ("key", "account"):
            return
        for other, rest in zip(self.keys, self._rests, strict=True):
            same = other is key or (error.fault == "account" and other.account and other.account == key.account)
            if not same:
                continue
            if rest.until <= now:
                rest.row += 1
            rest.probed = False
            rest.alone = rest.alone or error.fault == "key"
            if error.code == "provider_credentials_exhausted":
                span = EXHAUSTED
            elif error.code == "provider_credentials_invalid":
                span = INVALID
            elif error.retry_after is not None:
                span = error.retry_after
            else:
                span = FIRST * 2 ** min(rest.row - 1, 6)
            until = now + min(span, LONGEST)
            if until >= rest.until:
                rest.until, rest.reason = until, error.code

    def resting(self, now: float) -> list[tuple[str, float, str]]:
        """Label, seconds left and reason of each key that rests."""
        pairs = zip(self.keys, self._rests, strict=True)
        return [(key.label, rest.until - now, rest.reason) for key, rest in pairs if rest.until > now]
