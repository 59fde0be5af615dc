"""Which provider key next: the least busy one that may be used. Every answer is a judgement on the key it came for.

**Busy** is a key by its requests under way, relative to its weight; between keys equally busy the one that had the least in
proportion takes its turn. A key whose limits are nearly used up, as the provider's own headers say, counts as busier; one whose
limits are gone comes last. `affinity` (who talks about what) prefers one key, so that a provider's prompt cache is met again:
a hint, which a key that is much busier than the others, or rests, does not follow.

**Rests.** A 429 rests the key's account until the provider's own Retry-After (at most `LONGEST`), else a little longer each
time; an invalid key (401) rests alone and long; an exhausted account (402) rests long. When a rest is over, one real request
is the probe while the others go elsewhere (where all rest, those that were only limited let more through), and a good answer to
it ends the matter. Answers to requests that went out before the rest teach nothing new: ten that meet one limit together are
one reason to rest, and a stream that ends well meanwhile is none to return.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from aigw.config import patterns
from aigw.deployment import Allowance, ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import Headers
from aigw.routing.key_state import LOW, KeyState, Left

FIRST = 1.0
"""Seconds of the first rest after a 429 that named no time; doubles with each one in a row."""

LONGEST = 3600.0
"""Seconds a rest lasts at most, whatever a provider says."""

INVALID = 600.0
"""Seconds until a key that the provider called invalid is tried again; doubles with each time."""

EXHAUSTED = 900.0
"""Seconds until an account that is out of credit is tried again; doubles with each time."""

LONG = 60.0
"""Seconds of a rest that a restart should remember."""

PROBE = 2.0
"""Seconds after which a probe that is still under way counts as let in: keys are refused at once, answers take their time."""

LOOK = 0.25
"""Seconds between two looks at a key's limits in the headers of its answers, while there is plenty left."""

LOOK_ALONE = 5.0
"""The same where nothing depends on it: the only key, or a provider that does not tell."""

POINTS = 32
"""Places of a key on the ring that affinity looks at; more share more evenly."""

ReadAllowance = Callable[[Headers, float], Allowance | None]
"""What an answer's headers say of a key's limits; the time is seconds since the epoch."""

_score = attrgetter("score")


class _Weather:
    """Shared by a pool and those that replace it: whether a choice takes more than a look at who is busy."""

    __slots__ = ("rough", "tight_until")

    def __init__(self) -> None:
        self.rough = False
        self.tight_until = 0.0


class Lasting(NamedTuple):
    """A long rest, for those who write it down: the key, seconds left, and what `KeyPool.restore` wants back."""

    key: ProviderKey
    seconds: float
    reason: str
    row: int
    alone: bool


class KeyPool:
    """The keys of one provider. Not thread-safe: one event loop. Times are monotonic seconds.

    Whoever gets a key from `pick` gives it back by `let_go`, whatever happens, and tells `succeeded` or `failed` how it was.
    """

    def __init__(
        self,
        keys: Sequence[ProviderKey],
        previous: KeyPool | None = None,
        *,
        read: ReadAllowance | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """*previous* is the pool before a reload: keys with the same secret inherit all that is known of them. *read* reads
        limits off an answer's headers; *draw* (0 to 1) is for the jitter of rests."""
        self.keys = tuple(keys)
        self.on_lasting: Callable[[], None] | None = None
        """Called when a rest of more than `LONG` begins or ends."""
        self.tell: Callable[[str, Lasting | None], None] | None = None
        """Called with a key's label when its rest begins or, with None, when it is well again: others use it, too."""
        self._read, self._draw = read, draw
        self._weather: _Weather = _Weather() if previous is None else previous._weather  # noqa: SLF001 - its successor
        known: dict[str, KeyState] = {}
        if previous is not None:
            known = {key.secret: state for key, state in previous._key_of_pairs()}  # noqa: SLF001
        self._states: list[KeyState] = [(known.pop(key.secret) if key.secret in known else KeyState()) for key in self.keys]
        turn = max((state.turn for state in self._states), default=0.0)
        accounts: dict[str, dict[str, Left]] = {}
        for key, state in zip(self.keys, self._states, strict=True):
            state.configure(key, turn, accounts.setdefault(key.account, state.limits) if key.account else state.limits)
        self._key_of = dict(zip(self._states, self.keys, strict=True))
        self._state_of = {key.label: state for key, state in self._key_of_pairs()}
        self._patterns = [tuple(map(patterns.compiled, key.models)) for key in self.keys]
        self._single = self._states[0] if len(self._states) == 1 else None
        self._free = bool(self.keys) and not any(key.rpm or key.tpm or key.models for key in self.keys)
        self._look = LOOK_ALONE if self._single is not None else LOOK
        self._slack = 4 * max((state.unit for state in self._states), default=0.0)
        self._ring: tuple[list[int], list[int]] | None = None
        self.counts_tokens = any(key.tpm for key in self.keys)
        """Whether `pick` wants to know a request's tokens."""

    def _key_of_pairs(self) -> Iterator[tuple[ProviderKey, KeyState]]:
        return zip(self.keys, self._states, strict=True)

    # choosing

    def pick(
        self, now: float, tried: Collection[str] = (), model: str = "", affinity: str = "", tokens: int = 0
    ) -> ProviderKey | None:
        """The key for a request to *model*, which is not in *tried* (labels); None when there is none. *tokens*: what the
        request may take, where `counts_tokens`. To be given back by `let_go`."""
        if self._free and not self._weather.rough and not affinity:
            state = self._single or min(self._states, key=_score)
            key = self._key_of[state]
            if not tried or key.label not in tried:
                state.in_flight += 1
                state.turn += state.step
                state.score += state.unit + state.step
                return key
        return self._choose(now, tried, model, affinity, tokens)

    def _choose(self, now: float, tried: Collection[str], model: str, affinity: str, tokens: int) -> ProviderKey | None:
        best = spent = waiting = None
        least = spent_least = waiting_least = inf
        ready: list[KeyState] = []
        weather = self._weather
        rough = weather.tight_until > now
        for state, key, wanted in zip(self._states, self.keys, self._patterns, strict=True):
            score = state.score
            if state.row:
                rough = True
                if state.until > now:
                    continue
            if tried and key.label in tried:
                continue
            if wanted and not any(one.search(model) for one in wanted):
                continue
            if state.requests is not None and not state.requests.fits(1, now):
                continue
            if state.tokens is not None and not state.tokens.fits(tokens, now) and state.tokens.total:
                continue
            if state.row and state.probing and now - state.probed_at < PROBE:
                if state.reason == "provider_rate_limited" and score < waiting_least:
                    waiting, waiting_least = state, score
                continue
            left = state.limits.get(model)
            if left is not None and left.share < LOW and left.until > now:
                if left.spent:
                    if score < spent_least:
                        spent, spent_least = state, score
                    continue
                score += (1 - left.share / LOW) * 4 * state.unit
            if affinity:
                ready.append(state)
            if score < least:
                best, least = state, score
        weather.rough = rough
        chosen = best or spent or waiting
        if chosen is None:
            return None
        if affinity and best is not None:
            liked = self._liked(affinity)
            if liked is not chosen and liked in ready and liked.score <= 2 * least + self._slack:
                chosen = liked
        return self._take(chosen, now, model, tokens)

    def _take(self, state: KeyState, now: float, model: str, tokens: int) -> ProviderKey:
        state.in_flight += 1
        state.turn += state.step
        state.score += state.unit + state.step
        left = state.limits.get(model)
        if left is not None:
            left.take()
        if state.requests is not None:
            state.requests.add(1, now)
        if state.tokens is not None:
            state.tokens.add(tokens, now)
        key = self._key_of[state]
        if not state.row:
            return key
        if state.probe is None:
            state.probe = msgspec.structs.replace(key)  # a copy of its own, by which its answer is known
        if not state.probing:
            state.probing, state.probed_at = True, now
        return state.probe

    def _liked(self, affinity: str) -> KeyState:
        """The key that *affinity* belongs to: the same one as long as the pool has it, whatever the others."""
        if self._ring is None:
            most = max(key.weight for key in self.keys)
            points = sorted(
                (crc32(f"{number}/{key.label}".encode()), index)
                for index, key in enumerate(self.keys)
                for number in range(max(1, POINTS * key.weight // most))
            )
            self._ring = [point for point, _ in points], [index for _, index in points]
        places, owners = self._ring
        return self._states[owners[bisect_right(places, crc32(affinity.encode("utf-8", "replace"))) % len(owners)]]

    def peek(self, now: float) -> ProviderKey | None:
        """A key that does not rest, for what is no exchange (the list of models): nothing is counted, nothing is a probe."""
        return next((key for key, state in self._key_of_pairs() if state.until <= now), None)

    # what became of it

    def let_go(self, key: ProviderKey) -> None:
        """*key* came back from its request, whatever became of that."""
        state = self._state_of[key.label]
        state.in_flight -= 1
        state.score -= state.unit
        if key is state.probe:
            state.probing = False

    def settle(self, key: ProviderKey, tokens: int, now: float) -> None:
        """A request took *tokens* more (or, below 0, less) than `pick` was told."""
        window = self._state_of[key.label].tokens
        if window is not None:
            window.add(tokens, now)

    def succeeded(self, key: ProviderKey, headers: Headers | None = None, now: float = 0.0, model: str = "") -> None:
        """*key* gave a good answer: it is well again, and its account too, when it went out after the rest. *headers* are the
        provider's."""
        state = self._state_of[key.label]
        if state.row and key is state.probe:
            self._well(state, key)
        if now >= state.look_at and headers and self._read is not None:
            self._note(state, self._read(headers, time.time()), now, model)

    def _note(self, state: KeyState, said: Allowance | None, now: float, model: str) -> None:
        if said is None:
            state.look_at = now + LOOK_ALONE
            return
        left = state.remember(model, said, now)
        state.look_at = now + self._look
        if left.share < LOW and self._single is None:
            state.look_at = now
            weather = self._weather
            weather.rough, weather.tight_until = True, max(weather.tight_until, left.until)

    def _well(self, state: KeyState, key: ProviderKey) -> None:
        lasted = state.reason
        # It had no share while it rested; nor shall it make up for that now.
        turn = max(one.turn for one in self._states)
        for other, mate in self._key_of_pairs():
            if mate is state or (mate.row and not mate.alone and key.account and other.account == key.account):
                mate.clear()
                mate.score += turn - mate.turn
                mate.turn = turn
                if self.tell is not None:
                    self.tell(other.label, None)
        if lasted and self.on_lasting is not None:
            self.on_lasting()

    def failed(self, key: ProviderKey, error: UpstreamError, now: float) -> None:
        """Rest what *error* says is at fault: the key, its account, or nothing."""
        if error.fault not in ("key", "account"):
            return
        self._weather.rough = True
        longest = 0.0
        jitter = 0.75 + self._draw() / 2
        for other, state in self._key_of_pairs():
            same = other.label == key.label or (error.fault == "account" and other.account and other.account == key.account)
            if not same:
                continue
            if state.until <= now:
                state.row += 1
            state.probe, state.probing = None, False
            state.alone = state.alone or error.fault == "key"
            further = min(state.row - 1, 6)
            if error.code == "provider_credentials_exhausted":
                span = EXHAUSTED * 2**further
            elif error.code == "provider_credentials_invalid":
                span = INVALID * 2**further
            elif error.retry_after is not None:
                span = error.retry_after
            else:
                span = FIRST * 2**further * jitter
            until = now + min(span, LONGEST)
            if until >= state.until:
                state.until, state.reason = until, error.code
            longest = max(longest, state.until - now)
            if self.tell is not None:
                self.tell(other.label, Lasting(other, state.until - now, state.reason, state.row, state.alone))
        if longest > LONG and self.on_lasting is not None:
            self.on_lasting()

    # what others found out

    def hear(self, label: str, rest: tuple[float, str, int, bool] | None, now: float) -> None:
        """Somebody else who uses this key found that it must rest (seconds, reason, row, alone), or that it is well."""
        state = self._state_of.get(label)
        if state is None:
            return
        if rest is None:
            if state.row:
                turn = max(one.turn for one in self._states)
                state.clear()
                state.score += turn - state.turn
                state.turn = turn
        else:
            seconds, reason, row, alone = rest
            until = now + min(seconds, LONGEST)
            state.row, state.alone = max(state.row, row), state.alone or alone
            state.probe, state.probing = None, False
            if until >= state.until:
                state.until, state.reason = until, reason
            self._weather.rough = True
        if self.on_lasting is not None and (rest is None or rest[0] > LONG):
            self.on_lasting()

    # what a look from outside finds out

    def revived(self, key: ProviderKey) -> None:
        """A check says that *key*, which was called invalid, is good."""
        state = self._state_of[key.label]
        if state.row:
            self._well(state, msgspec.structs.replace(key, account=""))

    def still_out(self, key: ProviderKey, now: float, span: float) -> None:
        """A check says that nothing has changed: no request need find that out within *span* seconds."""
        state = self._state_of[key.label]
        if state.row:
            state.until = max(state.until, now + span)
            if self.on_lasting is not None:
                self.on_lasting()

    def to_check(self, now: float, every: float) -> list[tuple[ProviderKey, str]]:
        """Keys that were called invalid or out of credit, with the reason, and were not looked at for *every* seconds; from now
        on they were."""
        found = []
        if self._weather.rough:
            for key, state in self._key_of_pairs():
                if state.row and state.reason.startswith("provider_credentials") and not state.probing:
                    if not state.checked:
                        state.checked = now  # it was found out just now
                    elif now - state.checked >= every:
                        state.checked = now
                        found.append((key, state.reason))
                elif not state.row:
                    state.checked = 0.0
        return found

    def lasting(self, now: float) -> list[Lasting]:
        """The long rests."""
        return [
            Lasting(key, state.until - now, state.reason, state.row, state.alone)
            for key, state in self._key_of_pairs()
            if state.row and state.until - now > LONG
        ]

    def restore(self, key: ProviderKey, seconds: float, reason: str, row: int, *, alone: bool, now: float) -> None:
        """What was known of *key* before a restart. What was learnt since counts more."""
        state = self._state_of[key.label]
        if not state.row and seconds > 0:
            state.until, state.reason = now + min(seconds, LONGEST), reason
            state.row, state.alone = max(1, row), alone
            self._weather.rough = True

    # what is said of it

    def wait(self, now: float, model: str = "") -> float:
        """Seconds until the first key is back that may be used for *model*; 0 when one is there, or none ever is."""
        waits = [
            max(
                state.until - now,
                state.requests.wait(1, now) if state.requests is not None else 0.0,
                state.tokens.wait(1, now) if state.tokens is not None else 0.0,
                0.0,
            )
            for state, wanted in zip(self._states, self._patterns, strict=True)
            if not wanted or any(one.search(model) for one in wanted)
        ]
        return min(waits, default=0.0)

    def refusal(self, provider: str, now: float, model: str = "") -> UpstreamError:
        """What to say when `pick` found nothing: that all keys are out, why, and when the first is back."""
        serving = [
            (key, state)
            for key, state, wanted in zip(self.keys, self._states, self._patterns, strict=True)
            if not wanted or any(one.search(model) for one in wanted)
        ]
        if not serving:
            return UpstreamError(
                "provider_credentials_invalid",
                f"No key of the provider {provider!r} may be used for this model; its operator says so in `keys`.",
                sent=False,
                may_retry=True,
            )
        reasons = [state.reason if state.until > now else "provider_rate_limited" for _, state in serving]
        words = {
            "provider_rate_limited": "limited",
            "provider_credentials_exhausted": "out of credit",
            "provider_credentials_invalid": "not accepted",
        }
        told = ", ".join(f"{reasons.count(one)} {word}" for one, word in words.items() if one in reasons)
        wait = self.wait(now, model)
        invalid = all(one == "provider_credentials_invalid" for one in reasons)
        return UpstreamError(
            "provider_credentials_invalid" if invalid else "provider_credentials_exhausted",
            f"No key of the provider {provider!r} can be used now ({told}); the next try is in {max(1, -int(-wait // 1))} s.",
            status=429 if all(one == "provider_rate_limited" for one in reasons) else None,
            retry_after=wait or None,
            sent=False,
            may_retry=True,
        )

    def resume(self, seen: Iterable[Mapping[str, Any]], now: float) -> None:
        """Be as another pool was when it gave its `view`, as far as choices depend on it; unknown keys are left out."""
        for one in seen:
            state = self._state_of.get(one["key"])
            if state is None:
                continue
            state.in_flight, state.score, state.reason = one["in_flight"], one["score"], one["reason"]
            if one["state"] in ("resting", "probing"):
                state.row, state.until = 1, now + one["seconds"]
                state.probing, state.probed_at = one["state"] == "probing" and state.in_flight > 0, now
                self._weather.rough = True
            for window, left in ((state.requests, one["rpm_left"]), (state.tokens, one["tpm_left"])):
                if window is not None and left is not None:
                    window.add(window.limit - left, now)
            limits = one["limits"]
            if limits is not None:
                reset = limits["reset"]
                said = Allowance(
                    limits["requests"], limits["requests_limit"], reset, limits["tokens"], limits["tokens_limit"], reset
                )
                left = state.remember(limits["model"], said, now)
                self._weather.rough = self._weather.rough or left.share < LOW
                self._weather.tight_until = max(self._weather.tight_until, left.until if left.share < LOW else 0.0)

    def resting(self, now: float) -> list[tuple[str, float, str]]:
        """Label, seconds left and reason of each key that rests."""
        return [(key.label, state.until - now, state.reason) for key, state in self._key_of_pairs() if state.until > now]

    def view(self, now: float) -> list[dict[str, Any]]:
        """Each key as it is now, for people: no secret is in it. `state` is ready, resting, probing (a request finds out) or
        full (the operator's own limit)."""
        return [self._view(key, state, now) for key, state in self._key_of_pairs()]

    def _view(self, key: ProviderKey, state: KeyState, now: float) -> dict[str, Any]:
        full = (state.requests is not None and state.requests.left(now) < 1) or (
            state.tokens is not None and state.tokens.left(now) < 1
        )
        known = [(model, left) for model, left in state.limits.items() if left.until > now]
        model, tightest = min(known, key=lambda one: one[1].share, default=("", None))
        return {
            "key": key.label,
            "account": key.account,
            "state": "resting" if state.until > now else "probing" if state.row else "full" if full else "ready",
            "in_flight": state.in_flight,
            "seconds": round(max(0.0, state.until - now), 1),
            "reason": state.reason,
            "weight": key.weight,
            "score": state.score,
            "rpm_left": None if state.requests is None else max(0, state.requests.left(now)),
            "tpm_left": None if state.tokens is None else max(0, state.tokens.left(now)),
            "limits": None
            if tightest is None
            else {
                "model": model,
                "requests": tightest.requests,
                "requests_limit": tightest.requests_limit,
                "tokens": tightest.tokens,
                "tokens_limit": tightest.tokens_limit,
                "reset": round(tightest.until - now, 1),
            },
        }
