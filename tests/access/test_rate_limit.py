from __future__ import annotations

from typing import Any, cast

import pytest

from aigw.access.rate_limit import RateLimit
from aigw.config.schema import Limits
from aigw.consumer import Caller, Consumer, ConsumerKey, Terms
from aigw.errors import PolicyError, StoreError
from aigw.storage.base import Claim, Counters
from aigw.storage.open import open_counters

NOON = 1_800_000_000.0


def caller(name: str = "alice", rpm: int | None = None, concurrency: int | None = None, key: str = "k") -> Caller:
    consumer = Consumer(id=f"id-{name}", name=name, terms=Terms(rpm=rpm, concurrency=concurrency))
    return Caller(consumer, ConsumerKey(id=key, consumer_id=consumer.id, digest=b""))


async def test_requests_a_minute() -> None:
    """The limit lets so many in and refuses the next with when to try again; another consumer is not touched, two keys of
    one consumer count together, and a minute later it begins anew."""
    limit = RateLimit(Limits(rpm=3), open_counters("memory"))
    for key in ("k1", "k2", "k1"):
        limit.release(await limit.admit(caller(key=key), NOON))
    with pytest.raises(PolicyError) as caught:
        await limit.admit(caller(key="k2"), NOON)
    error = caught.value
    assert (error.code, error.status) == ("policy_rate_limited", 429)
    assert error.message.startswith("rate limit of consumer 'alice': 3 requests a minute; try again in ")
    assert error.retry_after is not None
    assert 0 < error.retry_after < 61
    assert await limit.admit(caller("bob"), NOON) is not None
    assert await limit.admit(caller(), NOON + 121) is not None


async def test_requests_at_once() -> None:
    """So many run at once; the place of one that ended is free for the next."""
    limit = RateLimit(Limits(concurrency=2), open_counters("memory"))
    first, second = await limit.admit(caller(), NOON), await limit.admit(caller(), NOON)
    with pytest.raises(PolicyError) as caught:
        await limit.admit(caller(), NOON)
    assert (caught.value.code, caught.value.status) == ("policy_concurrency_limited", 429)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    assert caught.value.message == "limit of consumer 'alice': 2 requests at once; wait until one of them has ended"
    limit.release(first)
    third = await limit.admit(caller(), NOON)
    limit.release(second)
    limit.release(third)


async def test_a_refusal_takes_nothing() -> None:
    """Who is refused for one limit has used nothing of the other."""
    counters = open_counters("memory")
    limit = RateLimit(Limits(rpm=2, concurrency=1), counters)
    running = await limit.admit(caller(), NOON)
    for _ in range(5):
        with pytest.raises(PolicyError):
            await limit.admit(caller(), NOON)
    limit.release(running)
    assert await limit.admit(caller(), NOON) is not None


@pytest.mark.parametrize(
    ("limits", "who", "claims"),
    [
        (Limits(), caller(), ()),
        (Limits(rpm=0, concurrency=0), caller(), ()),
        (Limits(rpm=5), caller(rpm=0), ()),
        (Limits(rpm=5), caller(), (Claim("rpm:id-alice", 1, 5, 60),)),
        (Limits(rpm=5), caller(rpm=9), (Claim("rpm:id-alice", 1, 9, 60),)),
        (Limits(), caller(concurrency=4), (Claim("concurrency:id-alice", 1, 4, 0),)),
        (Limits(rpm=5, concurrency=6), caller(), (Claim("rpm:id-alice", 1, 5, 60), Claim("concurrency:id-alice", 1, 6, 0))),
    ],
)
def test_whose_limit_holds(limits: Limits, who: Caller, claims: tuple[Claim, ...]) -> None:
    """A consumer's own limit beats the operator's, also by taking it away; 0 and unset are none."""
    assert RateLimit(limits, open_counters("memory")).claims(who) == claims


async def test_without_limits_nobody_counts() -> None:
    """Where nothing limits a caller the counters are not asked at all."""
    limit = RateLimit(Limits(), cast("Counters", None))
    assert await limit.admit(caller(), NOON) is None
    limit.release(None)


async def test_counters_out_of_reach(caplog: pytest.LogCaptureFixture) -> None:
    """Counters that are down refuse nobody; it is said once, and once that they are back."""
    caplog.set_level("INFO", "aigw.access")
    real = open_counters("memory")

    class Failing:
        down = True

        async def hold(self, *arguments: Any) -> Any:
            if self.down:
                raise StoreError("no route to the counters")
            return await real.hold(*arguments)

    failing = Failing()
    limit = RateLimit(Limits(rpm=1), cast("Counters", failing))
    assert await limit.admit(caller(), NOON) is None
    assert await limit.admit(caller(), NOON) is None
    failing.down = False
    assert await limit.admit(caller(), NOON) is not None
    assert [record.getMessage() for record in caplog.records] == [
        "limits: no route to the counters; requests are let in uncounted",
        "limits: the counters answer again",
    ]
