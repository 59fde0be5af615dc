from __future__ import annotations

from math import inf

from aigw.storage.base import Claim, Permit
from aigw.storage.redis_away import Away

NOW = 1_790_000_000.0


async def holds(away: Away, claim: Claim, times: int, nodes: int) -> list[Permit]:
    found = [await away.hold([claim], NOW, nodes) for _ in range(times)]
    return [permit for permit in found if permit.refused is None and not permit.unknown]


async def test_each_of_n_nodes_has_its_share() -> None:
    """Of windows, of places, and of what was left of a period when it was last seen; never none of what is a limit at all."""
    away = Away()
    away.see("usd:a:day", 40)
    assert len(await holds(away, Claim("rpm:a", 1, 30), 50, 3)) == 10
    assert len(await holds(away, Claim("concurrency:a", 1, 2, 0), 50, 3)) == 1
    assert len(await holds(away, Claim("usd:a:day", 2, 100, ends=inf), 50, 3)) == 10
    assert not await holds(away, Claim("rpm:none", 1, 0), 5, 3)


async def test_a_large_request_fits_into_a_fresh_share() -> None:
    """Tokens of a request may be more than a minute's share: then it takes all of it."""
    assert len(await holds(Away(), Claim("tpm:a", 900, 1000), 5, 3)) == 1


async def test_a_refusal_names_the_claim_that_was_asked() -> None:
    """With the limit as the operator wrote it, not the share."""
    away = Away()
    claim = Claim("rpm:a", 1, 3)
    await holds(away, claim, 1, 3)
    assert (await away.hold([claim], NOW, 3)).refused == claim


async def test_what_was_used_is_told_once() -> None:
    """Settled, not held; added; and nothing twice."""
    away = Away()
    claim = Claim("usd:a:day", 10, 1000, ends=inf)
    assert (await away.hold([claim], NOW, 2)).unknown == ["usd:a:day"]
    await away.prime({"usd:a:day": (100, inf)})
    await away.prime({"usd:a:day": (7, inf)})
    first, second = await holds(away, claim, 2, 2)
    away.settle(first, {"usd:a:day": 25})
    away.settle(first, {"usd:a:day": 25})
    away.add({"usd:a:day": 5, "usd:b:day": 1, "usd:c:day": 0})
    assert await away.read(["usd:a:day", "usd:z:day"]) == [135, None]
    assert away.take() == {"usd:a:day": 30, "usd:b:day": 1}
    assert away.take() == {}
    away.settle(second, {})
    assert away.take() == {"usd:a:day": 10}
    away.forget()
    assert await away.read(["usd:a:day"]) == [None]
