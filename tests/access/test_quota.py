"""Hold, settle, release: through the real walk, with a provider that plays scripts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from aigw.access.periods import period
from aigw.access.quota import OUTPUT, Quota
from aigw.consumer import NANO, Budget, Caller, Consumer, ConsumerKey, OnBudget, Terms
from aigw.errors import PolicyError, StoreError
from aigw.exchange import Receiver, Record, UpstreamRequest, Usage
from aigw.protocols.operations import OPERATIONS
from aigw.routing.retry import Rules
from aigw.storage.base import Claim, Counters
from aigw.storage.counters import MemoryCounters
from aigw.storage.spent import charges
from tests.walk import (
    ANSWER,
    DONE,
    GOOD,
    KEY,
    USAGE_EVENT,
    Near,
    Play,
    Walk,
    answers,
    chunk,
    fails,
    hangs,
    hangs_after_a_chunk,
    says,
    streams,
    unreachable,
)

NOON = 1_800_000_000.0

CONFIG = f"""
[consumers.ci]
key = "{KEY}"
group = "eng"

[providers.openai]
keys = ["sk-one"]

[providers.deepseek]
keys = ["sk-deep"]

[routes.fast]
targets = [{{provider = "openai", model = "gpt-fast"}}]

[routes.yuan]
targets = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.unknown]
targets = [{{provider = "openai", model = "mystery"}}]

[routes.half]
targets = [{{provider = "openai", model = "mystery"}}]
fallback = [{{provider = "deepseek", model = "deepseek-chat"}}]

[routes.free]
targets = [{{provider = "deepseek", model = "free"}}]

[prices."openai/gpt-fast"]
input = 1
output = 10

[prices."deepseek/deepseek-chat"]
input = 2
output = 20
currency = "CNY"

[prices."deepseek/free"]
input = 0
"""

ASK = {"model": "fast", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 10}
COST = 100 * 1000 + 10 * 10_000  # of ANSWER at fast, in billionths of a dollar


@pytest.fixture(autouse=True)
def within_a_minute() -> None:
    """Windows of a minute are counted: none may end in the middle of a test."""
    while time.time() % 60 > 57:
        time.sleep(0.1)


def terms(*budgets: Budget, **more: Any) -> dict[str, Terms]:
    return {"ci": Terms(budgets=budgets, **more)}


def usd(nano: int, window: str = "total") -> Budget:
    return Budget(nano, "usd", window)


def tokens(amount: int, window: str = "total") -> Budget:
    return Budget(amount, "tokens", window)


def size(body: Mapping[str, Any], output: int = 10, price: tuple[int, int] = (1000, 10_000)) -> int:
    """What a request holds of money."""
    prompt = (len(json.dumps(body)) + 3) // 4
    return prompt * price[0] + output * price[1]


async def used(walk: Walk, *keys: str) -> list[int | None]:
    return await walk.counters.read(keys)


def nothing_held(walk: Walk) -> bool:
    counters = walk.counters
    assert isinstance(counters, MemoryCounters)
    return not counters._gauges and not walk.limits.waiting


# --- requests a minute, and at once ---------------------------------------------------------------------------------------


def caller(name: str = "alice", rpm: int | None = None, concurrency: int | None = None, key: str = "k") -> Caller:
    consumer = Consumer(id=f"id-{name}", name=name, terms=Terms(rpm=rpm, concurrency=concurrency))
    return Caller(consumer, ConsumerKey(id=key, consumer_id=consumer.id, digest=b""))


async def test_requests_a_minute() -> None:
    """The limit lets so many in and refuses the next with when to try again; another consumer is not touched, two keys of
    one consumer count together, and a minute later it begins anew."""
    quota = Quota(Terms(rpm=3), {}, MemoryCounters())
    for key in ("k1", "k2", "k1"):
        quota.release(await quota.admit(caller(key=key), NOON))
    with pytest.raises(PolicyError) as caught:
        await quota.admit(caller(key="k2"), NOON)
    error = caught.value
    assert (error.code, error.status) == ("policy_rate_limited", 429)
    assert error.message.startswith("rate limit of consumer 'alice': 3 requests a minute; try again in ")
    assert error.retry_after is not None
    assert 0 < error.retry_after < 61
    assert await quota.admit(caller("bob"), NOON) is not None
    assert await quota.admit(caller(), NOON + 121) is not None


async def test_requests_at_once() -> None:
    """So many run at once; the place of one that ended is free for the next. Who is refused has used nothing."""
    quota = Quota(Terms(concurrency=2, rpm=5), {}, MemoryCounters())
    first, second = await quota.admit(caller(), NOON), await quota.admit(caller(), NOON)
    for _ in range(9):
        with pytest.raises(PolicyError) as caught:
            await quota.admit(caller(), NOON)
        assert (caught.value.code, caught.value.status) == ("policy_concurrency_limited", 429)
        assert caught.value.message == "limit of consumer 'alice': 2 requests at once; wait until one of them has ended"
        assert caught.value.retry_after
    quota.release(first)
    third = await quota.admit(caller(), NOON)
    quota.release(second)
    quota.release(third)


@pytest.mark.parametrize(
    ("defaults", "who", "claims"),
    [
        (Terms(), caller(), ()),
        (Terms(rpm=0, concurrency=0), caller(), ()),
        (Terms(rpm=5), caller(rpm=0), ()),
        (Terms(rpm=5), caller(), (Claim("rpm:id-alice", 1, 5, 60),)),
        (Terms(rpm=5), caller(rpm=9), (Claim("rpm:id-alice", 1, 9, 60),)),
        (Terms(), caller(concurrency=4), (Claim("concurrency:id-alice", 1, 4, 0),)),
    ],
)
def test_whose_limit_holds(defaults: Terms, who: Caller, claims: tuple[Claim, ...]) -> None:
    """A consumer's own limit beats the operator's, also by taking it away; 0 and unset are none."""
    assert Quota(defaults, {}, MemoryCounters()).claims(who) == claims


async def test_without_limits_nobody_counts() -> None:
    """Where nothing limits a caller the counters are not asked at all."""
    quota = Quota(Terms(), {}, cast("Counters", None))
    assert await quota.admit(caller(), NOON) is None
    assert quota.plan(caller().consumer, NOON) is None
    quota.release(None)


async def test_a_changed_consumer_has_its_new_limits_at_once() -> None:
    """Plans are remembered by who the consumer is, not by its name alone."""
    quota = Quota(Terms(), {}, MemoryCounters())
    assert quota.claims(caller(rpm=3)) == (Claim("rpm:id-alice", 1, 3, 60),)
    assert quota.claims(caller(rpm=4)) == (Claim("rpm:id-alice", 1, 4, 60),)
    assert quota.claims(caller()) == ()


async def test_counters_out_of_reach(caplog: pytest.LogCaptureFixture) -> None:
    """Counters that are down refuse nobody; it is said once, and once that they are back."""
    caplog.set_level("INFO", "aigw.access")

    class Failing(MemoryCounters):
        down = True

        async def hold(self, *arguments: Any) -> Any:
            if self.down:
                raise StoreError("no route to the counters")
            return await super().hold(*arguments)

    failing = Failing()
    quota = Quota(Terms(rpm=1), {}, failing)
    assert await quota.admit(caller(), NOON) is None
    assert await quota.admit(caller(), NOON) is None
    failing.down = False
    assert await quota.admit(caller(), NOON) is not None
    assert [record.getMessage() for record in caplog.records] == [
        "limits: no route to the counters; requests are let in uncounted",
        "limits: the counters answer again",
    ]


async def test_a_group_and_its_consumer_both_hold() -> None:
    """The group's limit is one for all of it; a batch may fill nine tenths of it."""
    groups = {"eng": Terms(rpm=10, concurrency=20)}
    quota = Quota(Terms(rpm=4), groups, MemoryCounters())
    eng = Consumer(id="a", name="a", group="eng")
    batch = Consumer(id="b", name="b", group="eng", terms=Terms(priority="batch"))
    key = ConsumerKey(id="k", consumer_id="a", digest=b"")
    claims = quota.claims(Caller(eng, key))
    assert claims == (Claim("rpm:a", 1, 4), Claim("rpm:g:eng", 1, 10), Claim("concurrency:g:eng", 1, 20, 0))
    assert [claim.limit for claim in quota.claims(Caller(batch, key))] == [4, 9, 18]


# --- on the walk ----------------------------------------------------------------------------------------------------------


async def test_a_budget_is_held_and_settled() -> None:
    """While a request runs its estimate is held, of the consumer's and of the group's budgets; then what it cost."""
    walk = Walk(
        CONFIG,
        hangs_after_a_chunk,
        GOOD,
        terms=terms(usd(NANO), tokens(10_000)),
        groups={"eng": Terms(budgets=(usd(NANO, "day"),))},
    )
    keys = ("usd:config:ci:total", "tokens:config:ci:total")
    task, _ = walk.begin(ASK | {"stream": True})
    while not walk.transport.running:
        await asyncio.sleep(0)
    held = size(ASK | {"stream": True})
    assert (await used(walk, *keys))[0] == held
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (cut,) = walk.journal.records
    assert (cut.outcome, cut.estimated) == ("client_closed", True)
    assert await used(walk, *keys) == [cut.charged, cut.input + cut.output]
    assert 0 < cut.charged < held
    _, record = await walk.ask(ASK)
    assert (record.charged, record.cost) == (COST, COST)
    day = period("day", "", record.at).label
    assert await used(walk, *keys, f"usd:g:eng:{day}") == [
        cut.charged + COST,
        cut.input + cut.output + 110,
        cut.charged + COST,
    ]
    assert nothing_held(walk)


async def test_what_fails_is_released() -> None:
    """A provider that cannot be reached costs nothing; neither does a refusal of the caller's request."""
    walk = Walk(CONFIG, fails(unreachable()), terms=terms(usd(NANO), tpm=10_000, rpm=10))
    near, record = await walk.ask(ASK)
    assert (near.status, record.charged) == (502, 0)
    assert await used(walk, "usd:config:ci:total") == [0]
    permit = await walk.counters.hold([Claim("tpm:config:ci", 0, 100), Claim("rpm:config:ci", 0, 10)], time.time())
    assert list(permit.left) == [100, 9]
    await walk.ask(b"{")
    await asyncio.sleep(0)
    permit = await walk.counters.hold([Claim("rpm:config:ci", 0, 10)], time.time())
    assert list(permit.left) == [8]  # what fails before anything is held counts as a request all the same
    assert nothing_held(walk)


async def test_a_thousand_for_a_hundred() -> None:
    """A budget for a hundred of them: a hundred pass, the others hear why, and when to come again."""
    body = ASK | {"max_tokens": 10}
    one = size(body)

    async def slowly(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(0.05)
        await answers(ANSWER | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}})(request, receiver)

    walk = Walk(CONFIG, slowly, terms=terms(usd(100 * one, "day")))
    tasks = [walk.begin(body) for _ in range(1000)]
    walk.journal.near = None
    await asyncio.gather(*(task for task, _ in tasks))
    statuses = [near.status for _, near in tasks]
    assert (statuses.count(200), statuses.count(429)) == (100, 900)
    refused = next(near for _, near in tasks if near.status == 429)
    assert refused.error["aigw_code"] == "policy_budget_exhausted"
    assert refused.error["code"] == "insufficient_quota"
    assert refused.headers[b"x-should-retry"] == b"false"
    assert 0 < int(refused.headers[b"retry-after"]) <= 86400
    assert "the budget of consumer 'ci' is used up, or held by requests under way" in refused.error["message"]
    total = sum(record.charged for record in walk.journal.records)
    day = period("day", "", walk.journal.records[0].at).label
    assert await used(walk, f"usd:config:ci:{day}") == [total]
    assert walk.limits.refused == 900


async def test_the_ledger_primes_a_window() -> None:
    """What was used before this process counted: read once, however many ask at the same time."""
    asked: list[tuple[frozenset[str], float]] = []

    async def spent(holders: Iterable[str], since: float) -> dict[str, tuple[int, int]]:
        asked.append((frozenset(holders), since))
        await asyncio.sleep(0.01)
        return {"config:ci": (NANO - COST, 5), "g:eng": (7, 9)}

    walk = Walk(
        CONFIG, GOOD, spent=spent, terms=terms(usd(NANO, "month")), groups={"eng": Terms(budgets=(tokens(1000, "month"),))}
    )
    tasks = [walk.begin(ASK) for _ in range(5)]
    walk.journal.near = None
    await asyncio.gather(*(task for task, _ in tasks))
    month = period("month", "", time.time())
    assert asked == [(frozenset({"config:ci", "g:eng"}), month.starts)]
    assert sorted(near.status for _, near in tasks) == [200, 429, 429, 429, 429]
    assert await used(walk, f"usd:config:ci:{month.label}", f"tokens:g:eng:{month.label}") == [NANO, 9 + 110]


async def test_a_ledger_that_cannot_be_read_stops_nobody() -> None:
    """Counting begins; what was used before is added when it can be read again, and nothing twice."""
    away = True
    journal: list[Record] = []

    async def spent(holders: Iterable[str], since: float) -> dict[str, tuple[int, int]]:
        if away:
            raise StoreError("the database does not answer")
        mine = [charged for (holder, _), charged in charges(journal).items() if holder == "config:ci"]
        return {"config:ci": (1000 + sum(usd for usd, _ in mine), 50)}

    walk = Walk(CONFIG, GOOD, spent=spent, terms=terms(usd(NANO)))
    journal = walk.journal.records
    near, _ = await walk.ask(ASK)
    assert near.status == 200
    await walk.limits.catch_up()
    assert await used(walk, "usd:config:ci:total") == [COST]
    away = False
    await walk.ask(ASK)
    await walk.limits.catch_up()
    await walk.limits.catch_up()
    assert await used(walk, "usd:config:ci:total") == [1000 + 2 * COST]


# --- estimates ------------------------------------------------------------------------------------------------------------


async def held_by(walk: Walk, body: Mapping[str, Any], operation: str = "chat", **fields: Any) -> list[int | None]:
    """What a request holds of the budgets of money and of tokens."""
    task, _ = walk.begin(dict(body), operation, **fields)
    while not walk.transport.running and not task.done():
        await asyncio.sleep(0)
    found = await used(walk, "usd:config:ci:total", "tokens:config:ci:total")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (ASK, 10),
        ({"model": "fast", "messages": []}, OUTPUT),
        (ASK | {"max_tokens": 10**18}, OUTPUT),
        (ASK | {"max_tokens": 0}, OUTPUT),
        (ASK | {"max_tokens": -5}, OUTPUT),
    ],
)
async def test_the_answer_is_taken_to_be_so_long(body: dict[str, Any], output: int) -> None:
    """The caller's maximum, or 4,000 tokens; a claim beyond all reason changes nothing."""
    walk = Walk(CONFIG, hangs, terms=terms(usd(NANO), tokens(10**6)))
    prompt = (len(json.dumps(body)) + 3) // 4
    assert await held_by(walk, body) == [prompt * 1000 + output * 10_000, prompt + output]


async def test_embeddings_have_no_answer_to_speak_of() -> None:
    """And counting tokens, moderating and looking at what is kept use nothing."""
    walk = Walk(CONFIG, hangs, terms=terms(usd(NANO), tokens(10**6)))
    body = {"model": "fast", "input": "a text"}
    prompt = (len(json.dumps(body)) + 3) // 4
    assert await held_by(walk, body, "embeddings") == [prompt * 1000, prompt]


async def test_a_models_answers_are_learned() -> None:
    """After some the estimate is what 95 of 100 stay below, at the share of the prompt that comes from the cache."""
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 50}}
    plays: list[Play] = [answers(ANSWER | {"usage": usage})] * 40
    config = CONFIG.replace("input = 1\n", "input = 1\ncache_read = 0\n")
    walk = Walk(config, *plays, hangs, terms=terms(usd(NANO), tokens(10**6)))
    body = {"model": "fast", "messages": []}
    for _ in range(40):
        await walk.ask(body)
    before = await used(walk, "usd:config:ci:total", "tokens:config:ci:total")
    held = await held_by(walk, body)
    prompt = (len(json.dumps(body)) + 3) // 4
    assert None not in (*before, *held)
    money, count = (int(after or 0) - int(earlier or 0) for after, earlier in zip(held, before, strict=True))
    assert count == prompt + 7
    assert money < prompt * 600 + 7 * 10_000


async def test_currencies_become_dollars() -> None:
    """Charged at the fixed rate; the cost stays in its own currency."""
    walk = Walk(CONFIG + "\n[currencies]\nCNY = 0.5\n", GOOD, terms=terms(usd(NANO)))
    _, record = await walk.ask(ASK | {"model": "yuan"})
    cost = 100 * 2000 + 10 * 20_000
    assert (record.cost, record.currency, record.charged) == (cost, "CNY", cost // 2)
    assert await used(walk, "usd:config:ci:total") == [cost // 2]


# --- refusals -------------------------------------------------------------------------------------------------------------


async def test_what_never_fits_is_a_400() -> None:
    """A prompt larger than a whole minute's tokens, or than a whole budget: waiting would not help."""
    body = ASK | {"messages": [{"role": "user", "content": "word " * 3000}]}
    for one in (terms(tpm=2000), terms(tokens(2000)), terms(usd(2_000_000))):
        walk = Walk(CONFIG, GOOD, terms=one)
        near, record = await walk.ask(body)
        assert (near.status, record.error) == (400, "policy_request_too_large")
        assert "about " in near.error["message"]
        assert nothing_held(walk)
        near, _ = await walk.ask(ASK | {"max_tokens": 4000})  # only its answer is: nobody knows that it will be so long
        assert near.status == 200


async def test_tokens_a_minute() -> None:
    """Held at the estimate, settled to the use: the next one is refused while the first is under way, and fits afterwards."""
    walk = Walk(CONFIG, hangs, GOOD, terms=terms(tpm=4200))
    body = {"model": "fast", "messages": []}
    task, _ = walk.begin(body)
    while not walk.transport.running:
        await asyncio.sleep(0)
    near, record = await walk.ask(body)
    assert (near.status, record.error) == (429, "policy_rate_limited")
    assert "tokens a minute" in near.error["message"]
    assert near.headers[b"x-ratelimit-limit-tokens"] == b"4200"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    near, _ = await walk.ask(body)
    assert near.status == 200
    prompt = (len(json.dumps(body)) + 3) // 4
    assert near.headers[b"x-ratelimit-remaining-tokens"] == b"%d" % (4200 - prompt - OUTPUT)
    assert near.headers[b"x-ratelimit-reset-tokens"].endswith(b"s")


async def test_a_model_without_a_price() -> None:
    """A money budget cannot pay for it: said so, with the command that helps; places with a price are left; or it may pass."""
    walk = Walk(CONFIG, GOOD, terms=terms(usd(NANO)))
    near, record = await walk.ask(ASK | {"model": "unknown"})
    assert (near.status, record.error) == (400, "policy_price_unknown")
    assert "aigw prices set 'openai/mystery'" in near.error["message"]
    assert nothing_held(walk)
    _, record = await walk.ask(ASK | {"model": "half"})
    assert record.provider == "deepseek"
    for one in (terms(usd(NANO), unpriced="allow"), terms(tokens(10**6))):
        walk = Walk(CONFIG, GOOD, terms=one)
        near, record = await walk.ask(ASK | {"model": "unknown"})
        assert (near.status, record.charged) == (200, 0)


async def test_what_is_free_passes_when_the_money_is_gone() -> None:
    """A budget in money is no obstacle to what costs nothing."""
    walk = Walk(CONFIG, GOOD, terms=terms(usd(100)))
    near, _ = await walk.ask(ASK)
    assert near.status == 400  # more than all of it
    near, record = await walk.ask(ASK | {"model": "free"})
    assert (near.status, record.charged) == (200, 0)


# --- near the end ---------------------------------------------------------------------------------------------------------


async def test_events_at_80_and_100_percent() -> None:
    """Each told once, with the figures and the day it ends; the caller sees how full it is."""
    walk = Walk(CONFIG, GOOD, terms=terms(usd(10 * COST, "month")))
    for _ in range(7):
        near, _ = await walk.ask(ASK)
        assert b"x-aigw-budget" not in near.headers
    assert walk.events == []
    near, _ = await walk.ask(ASK)
    near, _ = await walk.ask(ASK)
    assert near.headers[b"x-aigw-budget"].startswith(b"month;unit=usd;used=0.")
    (event,) = walk.events
    assert (event.kind, event.subject, event.step.rpartition(" ")[2]) == ("budget", "consumer 'ci'", "0.8")
    assert event.facts["used"] == 0.8
    assert (event.facts["unit"], event.facts["window"], event.facts["holder"]) == ("usd", "month", "config:ci")
    await walk.ask(ASK)
    for _ in range(3):
        near, _ = await walk.ask(ASK)
        assert near.status == 429
    assert [event.step.rpartition(" ")[2] for event in walk.events] == ["0.8", "1.0"]
    assert walk.limits.events == 2
    assert walk.events[0].text.startswith("80% of the budget of consumer 'ci' is used")


async def test_a_nearly_used_budget_goes_a_cheaper_way() -> None:
    """From the share on that the terms name, and only conversations."""
    one = terms(usd(10 * COST), on_budget=OnBudget(0.5, "yuan"))
    walk = Walk(CONFIG, GOOD, terms=one)
    went = []
    for _ in range(7):
        _, record = await walk.ask(ASK)
        went.append(record.provider)
    assert went[:4] == ["openai"] * 4
    assert went[-1] == "deepseek"
    assert went == sorted(went, reverse=True)
    assert json.loads(walk.transport.requests[-1].body)["model"] == "deepseek-chat"
    assert walk.journal.records[-1].requested_model == "fast"
    _, record = await walk.ask({"model": "fast", "input": "x"}, "embeddings")
    assert record.provider == "openai"


# --- hard -----------------------------------------------------------------------------------------------------------------


async def words(request: UpstreamRequest, receiver: Receiver) -> None:
    await streams(*[chunk("word " * 8) for _ in range(400)], USAGE_EVENT, DONE)(request, receiver)


async def test_a_hard_cap_ends_a_stream() -> None:
    """As the dialect ends one that is as long as it may be, with its usage and our code; a little over the budget at most."""
    body = {"model": "fast", "messages": [], "stream": True}
    prompt = (len(json.dumps(body)) + 3) // 4
    walk = Walk(CONFIG, words, terms=terms(tokens(prompt + 300), hard=True))
    near, record = await walk.ask(body)
    assert (near.status, near.ended, near.aborted) == (200, True, False)
    assert near.body.endswith(b"data: [DONE]\n\n")
    last = json.loads(near.body.split(b"\n\n")[-3].removeprefix(b"data: "))
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["aigw_error"]["code"] == "policy_budget_exhausted"
    assert last["usage"]["completion_tokens"] == record.output
    assert (record.error, record.outcome, record.status, record.estimated) == (
        "policy_budget_exhausted",
        "policy_error",
        200,
        True,
    )
    assert 300 < record.output < 345
    assert walk.transport.cancelled == 1
    assert await used(walk, "tokens:config:ci:total") == [record.input + record.output]
    near, _ = await walk.ask(body)
    assert near.status == 429


async def test_a_hard_budget_holds_the_worst_case() -> None:
    """What is no stream cannot be cut: it must fit whole, or is refused."""
    prompt = (len(json.dumps(ASK)) + 3) // 4
    walk = Walk(CONFIG, GOOD, terms=terms(tokens(prompt + 200), hard=True))
    near, _ = await walk.ask(ASK | {"max_tokens": 5000})
    assert (near.status, near.error["aigw_code"]) == (400, "policy_request_too_large")
    near, _ = await walk.ask(ASK | {"max_tokens": 150})
    assert near.status == 200


# --- waiting for a place --------------------------------------------------------------------------------------------------


async def test_a_request_waits_for_a_place() -> None:
    """As long as the operator says; a place that becomes free is taken at once, one that does not ends in a 429."""

    async def briefly(request: UpstreamRequest, receiver: Receiver) -> None:
        await asyncio.sleep(0.02)
        await GOOD(request, receiver)

    walk = Walk(CONFIG + "\n[limits]\nqueue = 20\n", briefly, terms=terms(concurrency=1))
    tasks = [walk.begin(ASK) for _ in range(6)]
    walk.journal.near = None
    await asyncio.gather(*(task for task, _ in tasks))
    assert [near.status for _, near in tasks] == [200] * 6
    assert nothing_held(walk)
    walk = Walk(CONFIG + "\n[limits]\nqueue = 0.3\n", hangs, terms=terms(concurrency=1))
    task, _ = walk.begin(ASK)
    while not walk.transport.running:
        await asyncio.sleep(0)
    near, record = await walk.ask(ASK)
    assert (near.status, record.error) == (429, "policy_concurrency_limited")
    assert record.took > 250_000
    gone, _ = walk.begin(ASK)
    while not walk.limits.waiting:
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert walk.limits.waiting == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert nothing_held(walk)


# --- the property ---------------------------------------------------------------------------------------------------------

PLAYS: dict[str, Play] = {
    "good": GOOD,
    "dear": answers(ANSWER | {"usage": {"prompt_tokens": 4000, "completion_tokens": 9000}}),
    "mute": answers({name: value for name, value in ANSWER.items() if name != "usage"}),
    "stream": streams(chunk("Ray"), chunk("leigh."), USAGE_EVENT, DONE),
    "breaks": streams(chunk("Ray"), then=unreachable()),
    "fails": fails(unreachable()),
    "refuses": says(400),
    "hangs": hangs,
    "hangs later": hangs_after_a_chunk,
    "garbage": answers(b"not json"),
    "bug": fails(RuntimeError("a bug")),
}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(PLAYS)), st.booleans(), st.integers(0, 12), st.sampled_from(["fast", "yuan", "nowhere"])
        ),
        max_size=12,
    ),
    st.integers(1, 40),
)
def test_the_ledger_is_the_sum_of_the_records(schedule: list[tuple[str, bool, int, str]], budget: int) -> None:
    """Whatever is asked, fails, breaks off or is hung up on, at whatever moment: what budgets have used is exactly what the
    records were charged, and nothing stays held."""

    async def run() -> None:
        turns = iter(schedule)

        async def next_play(request: UpstreamRequest, receiver: Receiver) -> None:
            await PLAYS[next(turns, ("good",))[0]](request, receiver)

        one = terms(usd(budget * COST), tokens(10**6), concurrency=8, rpm=100, tpm=10**6)
        group = Terms(budgets=(usd(NANO, "day"), tokens(10**7, "week")), concurrency=9, tpm=10**6)
        walk = Walk(CONFIG, next_play, terms=one, groups={"eng": group})
        walk.pipeline.failover.rules = Rules(attempts=1)
        tasks: list[asyncio.Task[None]] = []
        for number, (_, stream, wait, model) in enumerate(schedule):
            near = Near()
            task = asyncio.get_running_loop().create_task(
                walk.pipeline.serve(
                    walk.exchange(), near, _giving(ASK | {"stream": stream, "model": model, "user": str(number)})
                )
            )
            tasks.append(task)
            for _ in range(wait + 1):  # one that never began is none
                await asyncio.sleep(0)
            if wait % 3 == 0:
                task.cancel()
        for _ in range(40):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        records = walk.journal.records
        assert len(records) == len(schedule)
        now = records[0].at if records else time.time()
        money = sum(record.charged for record in records)
        count = sum(record.input + record.output for record in records)
        day, week = period("day", "", now).label, period("week", "", now).label
        keys = ("usd:config:ci:total", "tokens:config:ci:total", f"usd:g:eng:{day}", f"tokens:g:eng:{week}")
        for found, expected in zip(await used(walk, *keys), (money, count, money, count), strict=True):
            assert found == expected or (found is None and not expected)
        ledger = charges(records)
        assert sum(value for (holder, _), (value, _) in ledger.items() if holder == "config:ci") == money
        assert nothing_held(walk)

    asyncio.run(run())


def _giving(body: dict[str, Any]) -> Any:
    async def give() -> bytes:
        await asyncio.sleep(0)
        return json.dumps(body).encode()

    return give


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2000), st.one_of(st.none(), st.integers(-3, 10**6)), st.integers(0, 200))
def test_the_quick_way_comes_to_the_same(length: int, most: int | None, seen: int) -> None:
    """What is like most is measured by a shorter way, with the same result to the billionth."""
    walk = Walk(CONFIG, GOOD, terms=terms(usd(10**6 * NANO), tokens(10**9)))
    quota, exchange = walk.limits, walk.exchange()
    exchange.body, exchange.requested_model, exchange.max_tokens = b"x" * length, "fast", most
    route = walk.table.resolve("fast")
    plan = quota.plan(Consumer(id="c", name="c", terms=terms(usd(10**6 * NANO), tokens(10**9))["ci"]), time.time())
    assert plan is not None
    learned = quota._known_place(("openai", "gpt-fast")).learned
    for number in range(seen % 40):
        learned.add(Usage(input=100, cached=number, output=seen))
    quick = quota._quick(exchange, plan, route.places[0], "chat")
    _, careful = quota._sized(exchange, plan, route, OPERATIONS["chat"])
    assert quick is not None
    assert (quick.tokens, quick.nano, quick.output) == (careful.tokens, careful.nano, careful.output)


async def test_of_two_limits_the_tighter_one_is_told() -> None:
    """The consumer's own, or its group's, which others use as well."""
    walk = Walk(CONFIG, GOOD, terms=terms(rpm=10, tpm=100_000), groups={"eng": Terms(rpm=100, tpm=50_000)})
    near, _ = await walk.ask(ASK)
    assert near.headers[b"x-ratelimit-limit-requests"] == b"10"
    assert near.headers[b"x-ratelimit-remaining-requests"] == b"9"
    assert near.headers[b"x-ratelimit-limit-tokens"] == b"50000"
    await walk.counters.hold([Claim("rpm:g:eng", 95, 100)], time.time())
    near, _ = await walk.ask(ASK)
    assert near.headers[b"x-ratelimit-limit-requests"] == b"100"


async def test_windows_that_are_forgotten_at_once_refuse_nobody() -> None:
    """Counters that lose what they were told: the request goes on, uncounted, instead of asking for ever."""

    class Forgetful(MemoryCounters):
        async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
            """Nothing is kept."""

    walk = Walk(CONFIG, GOOD, counters=Forgetful(), terms=terms(usd(NANO)))
    near, record = await walk.ask(ASK)
    assert (near.status, record.charged) == (200, COST)
