"""Which key next: the order, what each failure teaches, and what a reload may not forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aigw.deployment import Allowance, ProviderKey
from aigw.errors import UpstreamError
from aigw.routing.key_pool import EXHAUSTED, FIRST, INVALID, LONG, LONGEST, PROBE, KeyPool as Pool

A, B, C = (ProviderKey(f"openai#{number}", f"sk-{number}") for number in (1, 2, 3))
SHARED = tuple(ProviderKey(f"openai#{number}", f"sk-{number}", "team") for number in (1, 2))


def limited(retry_after: float | None = None, fault: str = "account") -> UpstreamError:
    return UpstreamError("provider_rate_limited", "is busy", retry_after=retry_after, fault=fault, upstream_status=429)


def invalid() -> UpstreamError:
    return UpstreamError("provider_credentials_invalid", "says no", fault="key", upstream_status=401)


def exhausted() -> UpstreamError:
    return UpstreamError("provider_credentials_exhausted", "wants money", fault="account", upstream_status=402)


class KeyPool(Pool):
    """A pool without jitter."""

    def __init__(self, keys: Any, previous: Pool | None = None, **more: Any) -> None:
        super().__init__(keys, previous, **({"draw": lambda: 0.5} | more))


def taken(pool: Pool, now: float, tried: Sequence[str] = (), **more: Any) -> ProviderKey | None:
    """The key of a request that is over at once."""
    key = pool.pick(now, tried, **more)
    if key is not None:
        pool.let_go(key)
    return key


def labels(pool: KeyPool, now: float) -> list[str]:
    return [label for label, _, _ in pool.resting(now)]


def test_keys_take_turns() -> None:
    """Round robin, whoever asks."""
    pool = KeyPool((A, B, C))
    assert [pool.pick(0.0) for _ in range(7)] == [A, B, C, A, B, C, A]


def test_what_was_tried_is_not_picked_again() -> None:
    """Within one exchange; when all were tried there is none."""
    pool = KeyPool((A, B))
    assert pool.pick(0.0, [A.label]) is B
    assert pool.pick(0.0, [A.label, B.label]) is None
    assert pool.wait(0.0) == 0.0


def test_an_empty_pool_has_no_key_and_nothing_to_wait_for() -> None:
    """A provider that needs none gets a nameless key from the gateway; here nothing may break."""
    assert KeyPool(()).pick(0.0) is None


def test_retry_after_is_obeyed_to_the_second() -> None:
    """The key rests until then, others serve meanwhile, and real traffic is the probe."""
    pool = KeyPool((A, B))
    pool.failed(A, limited(30.0), 100.0)
    assert [pool.pick(129.9) for _ in range(3)] == [B, B, B]
    assert pool.resting(110.0) == [(A.label, 20.0, "provider_rate_limited")]
    assert {pool.pick(130.0), pool.pick(130.0)} == {A, B}
    assert pool.resting(130.0) == []


def test_no_rest_is_longer_than_the_cap() -> None:
    """A provider that says "come back in a year" is asked again within the hour."""
    pool = KeyPool((A,))
    pool.failed(A, limited(1e9), 0.0)
    assert pool.wait(0.0) == LONGEST
    assert pool.pick(LONGEST) == A


def test_without_retry_after_each_rest_doubles_until_it_works_again() -> None:
    """1, 2, 4 ... 64 seconds, and from the start after one good answer."""
    pool = KeyPool((A,))
    now, spans = 0.0, []
    for _ in range(9):
        assert taken(pool, now) == A
        pool.failed(A, limited(), now)
        spans.append(pool.wait(now))
        now += spans[-1]
    assert spans == [FIRST * factor for factor in (1, 2, 4, 8, 16, 32, 64, 64, 64)]
    key = taken(pool, now)
    assert key is not None
    pool.succeeded(key)
    pool.failed(A, limited(), now)
    assert pool.wait(now) == FIRST


def test_failures_at_the_same_time_are_one_step() -> None:
    """Ten requests in flight meet the same limit: that is one reason to rest, not ten in a row."""
    pool = KeyPool((A,))
    for _ in range(10):
        assert pool.pick(0.0) is A
    for number in range(10):
        pool.failed(A, limited(), number / 100)
    assert pool.wait(0.09) == pytest.approx(FIRST)


def test_the_longest_of_several_retry_afters_holds() -> None:
    """What comes in later may prolong a rest, never shorten it."""
    pool = KeyPool((A,))
    pool.failed(A, limited(30.0), 0.0)
    pool.failed(A, limited(5.0), 1.0)
    assert pool.wait(1.0) == 29.0
    pool.failed(A, limited(60.0), 2.0)
    assert pool.wait(2.0) == 60.0


def test_a_good_answer_from_before_the_rest_does_not_end_it() -> None:
    """A long stream that began earlier proves nothing about the limit that was met meanwhile."""
    pool = KeyPool((A,))
    assert pool.pick(0.0) is A  # the long stream
    assert pool.pick(1.0) is A
    pool.failed(A, limited(30.0), 2.0)
    pool.succeeded(A)
    assert pool.pick(3.0) is None
    assert pool.wait(2.0) == 30.0


def test_keys_of_one_account_rest_and_return_together() -> None:
    """A 429 is about the account; one good answer frees all of it."""
    first, second = SHARED
    pool = KeyPool((first, second, C))
    pool.failed(first, limited(30.0), 0.0)
    assert labels(pool, 1.0) == [first.label, second.label]
    assert [pool.pick(1.0) for _ in range(2)] == [C, C]
    picked = pool.pick(30.0, [C.label])
    assert picked is not None
    pool.failed(picked, limited(), 30.0)
    assert pool.wait(30.0) == 0.0  # C
    assert [round(left) for _, left, _ in pool.resting(30.0)] == [2, 2]
    picked = pool.pick(32.0, [C.label])
    assert picked is not None
    pool.succeeded(picked)
    pool.failed(second, limited(), 40.0)
    assert [left for _, left, _ in pool.resting(40.0)] == [FIRST, FIRST]


def test_keys_without_an_account_are_strangers() -> None:
    """Two keys whose account nobody named do not share one."""
    pool = KeyPool((A, B))
    pool.failed(A, exhausted(), 0.0)
    assert labels(pool, 1.0) == [A.label]


def test_an_invalid_key_rests_alone_and_long() -> None:
    """A 401 is about the key itself, also within an account, and the account's good answers do not excuse it."""
    first, second = SHARED
    pool = KeyPool(SHARED)
    assert pool.pick(0.0) is first
    pool.failed(first, invalid(), 0.0)
    assert labels(pool, 1.0) == [first.label]
    for moment in (1.0, 2.0, 3.0):
        assert pool.pick(moment) is second
        pool.succeeded(second)
    assert pool.resting(3.0) == [(first.label, INVALID - 3.0, "provider_credentials_invalid")]
    assert first in (pool.pick(INVALID), pool.pick(INVALID))


def test_an_empty_account_rests_long() -> None:
    """402 and quota words: minutes, not seconds, whatever Retry-After says."""
    pool = KeyPool(SHARED)
    pool.failed(SHARED[0], exhausted(), 0.0)
    assert pool.wait(0.0) == EXHAUSTED
    assert pool.resting(0.0)[1] == (SHARED[1].label, EXHAUSTED, "provider_credentials_exhausted")


@pytest.mark.parametrize("fault", ["", "deployment"])
def test_what_is_not_the_keys_fault_rests_no_key(fault: str) -> None:
    """A 500 or a timeout is the deployment's."""
    pool = KeyPool((A,))
    pool.failed(A, UpstreamError("provider_error", "fell over", fault=fault, retry_after=30.0), 0.0)
    assert pool.pick(0.0) is A


def test_a_reload_inherits_rests_by_secret() -> None:
    """A key may get another place or label; its rest goes with it. New keys start fresh, and what the old pool's last
    exchanges learn still counts."""
    old = KeyPool((A, B))
    old.failed(A, limited(30.0), 0.0)
    moved = ProviderKey("openai#2", A.secret)
    fresh = ProviderKey("openai#1", "sk-new")
    new = KeyPool((fresh, moved), old)
    assert labels(new, 1.0) == [moved.label]
    assert [new.pick(1.0) for _ in range(2)] == [fresh, fresh]
    old.failed(A, limited(90.0), 2.0)
    assert new.resting(2.0) == [(moved.label, 90.0, "provider_rate_limited")]
    probe = new.pick(92.0, [fresh.label])
    assert probe == moved
    new.succeeded(probe)
    assert labels(old, 92.0) == []


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["pick", "ok", "429", "429+", "401", "402", "500"]), st.floats(0, 20)),
        max_size=40,
    )
)
def test_no_history_locks_a_pool_for_good(history: list[tuple[int, str, float]]) -> None:
    """Whatever happened: a picked key never rests, `wait` tells when the next is back, and within the hour all are."""
    keys = (*SHARED, C)
    pool = KeyPool(keys)
    errors = {"429": limited(), "429+": limited(45.0), "401": invalid(), "402": exhausted()}
    errors["500"] = UpstreamError("provider_error", "fell over", fault="deployment")
    now = 0.0
    for index, event, span in history:
        now += span
        if event == "pick":
            key = taken(pool, now)
            assert key is None or key.label not in labels(pool, now)
            assert (key is None) == (len(labels(pool, now)) == len(keys))
            assert (key is None) == (pool.wait(now) > 0)
        elif event == "ok":
            pool.succeeded(keys[index])
        else:
            pool.failed(keys[index], errors[event], now)
    assert taken(pool, now + pool.wait(now) + 1e-6) is not None
    tried: list[str] = []
    for _ in keys:
        key = taken(pool, now + LONGEST + 1, tried)
        assert key is not None
        tried.append(key.label)
    for state in pool.view(now):
        assert state["in_flight"] == 0


def test_the_least_busy_key_by_weight() -> None:
    """Requests under way decide, in proportion to the weights; between equals the one that had the least so far."""
    heavy, light = ProviderKey("heavy", "sk-h", weight=3), ProviderKey("light", "sk-l")
    pool = KeyPool((heavy, light))
    one_by_one = [taken(pool, 0.0) for _ in range(400)]
    assert one_by_one.count(heavy) == 300
    together = [pool.pick(0.0) for _ in range(40)]
    assert together.count(heavy) == 30
    for key in together[:20]:
        if key is light:
            pool.let_go(key)
    assert pool.pick(0.0) is light


def test_one_probe_at_a_time() -> None:
    """After a rest one request finds out while the others go elsewhere; its good answer opens the key for all."""
    pool = KeyPool((A, B))
    pool.failed(A, limited(2.0), 0.0)
    picked = [pool.pick(2.5) for _ in range(5)]
    assert picked.count(A) == 1
    probe = picked[picked.index(A)]
    assert probe is not None
    pool.let_go(probe)
    pool.succeeded(probe)
    assert pool.pick(2.6) is A


def test_a_probe_that_is_lost_is_followed_by_another() -> None:
    """Its caller left, or the deployment failed: that says nothing about the key. And one that takes its time was let in."""
    pool = KeyPool((A, B))
    pool.failed(A, limited(2.0), 0.0)
    assert pool.pick(3.0, [B.label]) == A
    assert pool.pick(3.0, []) is B
    pool.let_go(pool.pick(3.0 + PROBE, [B.label]) or A)  # the first is still under way: an answer that takes long
    pool = KeyPool((A, B))
    pool.failed(A, limited(2.0), 0.0)
    lost = pool.pick(3.0, [B.label])
    assert lost is not None
    pool.let_go(lost)
    assert pool.pick(3.1, [B.label]) == A


def test_where_all_are_limited_more_than_one_may_try() -> None:
    """A pool whose only key was limited lets its waiting requests through; one that was called invalid does not."""
    pool = KeyPool((A,))
    pool.failed(A, limited(2.0), 0.0)
    assert [pool.pick(2.0) for _ in range(3)] == [A, A, A]
    pool = KeyPool((A,))
    pool.failed(A, invalid(), 0.0)
    assert [pool.pick(INVALID) for _ in range(3)] == [A, None, None]


def test_a_revoked_key_takes_those_already_out_and_no_more() -> None:
    """Fifty at once meet it; from the first answer on nobody else does."""
    pool = KeyPool((A, B))
    out = [pool.pick(0.0) for _ in range(50)]
    assert out.count(A) == 25
    pool.failed(A, invalid(), 0.1)
    for key in out:
        pool.let_go(key or B)
    assert {taken(pool, 0.2 + number / 100) for number in range(1000)} == {B}


def test_own_limits() -> None:
    """`rpm` in any minute, `tpm` with what requests really took."""
    slow = ProviderKey("slow", "sk-s", rpm=3, tpm=1000)
    pool = KeyPool((slow,))
    assert pool.counts_tokens
    assert [taken(pool, 10.0, tokens=100) for _ in range(4)] == [slow, slow, slow, None]
    assert 60 < pool.wait(10.0) <= 61
    assert pool.refusal("p", 10.0).status == 429
    assert taken(pool, 71.5, tokens=100) is slow
    pool.settle(slow, 900, 72.0)
    assert taken(pool, 73.0, tokens=100) is None


def test_models_of_a_key() -> None:
    """Names or globs; others have no key here, which is said."""
    only = ProviderKey("only", "sk-o", models=("gpt-5*",))
    pool = KeyPool((only, A))
    assert {taken(pool, 0.0, model="gpt-5-mini") for _ in range(4)} == {only, A}
    assert {taken(pool, 0.0, model="o3") for _ in range(4)} == {A}
    alone = KeyPool((only,))
    assert alone.pick(0.0, model="o3") is None
    assert alone.refusal("p", 0.0, "o3").code == "provider_credentials_invalid"


def test_what_is_left_of_the_providers_limits_counts() -> None:
    """A key that is nearly used up is asked less, one without anything left last, until its limits are back."""
    said = {b"a": Allowance(5, 100, 30.0), b"b": Allowance(90, 100, 30.0), b"none": Allowance(0, 100, 30.0)}
    pool = KeyPool((A, B), read=lambda headers, _: said[headers[0][0]])
    pool.succeeded(A, [(b"a", b"")], 1.0, "m")
    pool.succeeded(B, [(b"b", b"")], 1.0, "m")
    assert [pool.pick(1.1, model="m") for _ in range(3)] == [B, B, B]
    assert taken(pool, 1.1, ["openai#2"], model="m") is A
    pool.succeeded(A, [(b"none", b"")], 1.2, "m")
    assert {pool.pick(1.3, model="m") for _ in range(20)} == {B}
    assert taken(pool, 1.3, [B.label], model="m") is A, "nobody else is there"
    assert taken(pool, 40.0, model="m") is A
    assert pool.view(1.3)[0]["limits"]["requests_limit"] == 100


def test_affinity_is_a_hint() -> None:
    """The same conversation meets the same key, unless that one rests or is much busier than the others."""
    keys = tuple(ProviderKey(f"k#{number}", f"sk-{number}") for number in range(5))
    pool = KeyPool(keys)
    liked = taken(pool, 0.0, affinity="alice/1")
    assert liked is not None
    assert {taken(pool, 0.0, affinity="alice/1") for _ in range(10)} == {liked}
    assert len({taken(pool, 0.0, affinity=f"alice/{number}") for number in range(100)}) == 5
    assert len({pool.pick(0.0, affinity="alice/1") for _ in range(20)}) > 1
    pool = KeyPool(keys)
    pool.failed(liked, limited(9.0), 0.0)
    assert taken(pool, 1.0, affinity="alice/1") not in (None, liked)


def test_an_exhausted_pool_says_when_it_is_back() -> None:
    """The earliest of its keys, and why they are out."""
    pool = KeyPool((A, B))
    pool.failed(A, limited(30.0), 0.0)
    pool.failed(B, exhausted(), 0.0)
    error = pool.refusal("openai", 10.0)
    assert (error.code, error.status, error.retry_after) == ("provider_credentials_exhausted", 503, 20.0)
    assert error.message == (
        "No key of the provider 'openai' can be used now (1 limited, 1 out of credit); the next try is in 20 s."
    )
    pool = KeyPool((A,))
    pool.failed(A, invalid(), 0.0)
    assert pool.refusal("openai", 0.0).code == "provider_credentials_invalid"


def test_what_a_look_from_outside_does() -> None:
    """A key that is good again is used at once; one that is not is left alone longer; each is looked at once in a while."""
    pool = KeyPool((A, B))
    pool.failed(A, invalid(), 0.0)
    assert pool.to_check(1.0, 300.0) == []
    assert pool.to_check(302.0, 300.0) == [(A, "provider_credentials_invalid")]
    assert pool.to_check(303.0, 300.0) == []
    pool.still_out(A, 303.0, 600.0)
    assert labels(pool, 900.0) == [A.label]
    pool.revived(A)
    assert labels(pool, 303.0) == []
    assert {taken(pool, 303.0), taken(pool, 303.0)} == {A, B}


def test_long_rests_are_told_and_come_back() -> None:
    """Those of more than a minute, as soon as they begin."""
    told: list[int] = []
    pool = KeyPool((A, B))
    pool.on_lasting = lambda: told.append(1)
    pool.failed(A, limited(LONG - 1), 0.0)
    assert (told, pool.lasting(0.0)) == ([], [])
    pool.failed(B, invalid(), 0.0)
    [lasting] = pool.lasting(0.0)
    assert (told, lasting.key, lasting.seconds) == ([1], B, INVALID)
    fresh = KeyPool((A, B))
    fresh.restore(lasting.key, 100.0, lasting.reason, lasting.row, alone=lasting.alone, now=0.0)
    assert {taken(fresh, 99.0) for _ in range(5)} == {A}
    assert fresh.resting(0.0) == [(B.label, 100.0, "provider_credentials_invalid")]


def test_a_list_of_models_is_no_probe() -> None:
    """`peek` counts nothing."""
    pool = KeyPool((A, B))
    pool.failed(A, limited(2.0), 0.0)
    assert pool.peek(1.0) is B
    assert pool.peek(3.0) is A
    assert [state["in_flight"] for state in pool.view(3.0)] == [0, 0]


def test_what_one_pool_shows_another_can_resume() -> None:
    """The next choices are the same: rests, who is busy, whose turn it is, the limits of provider and operator."""
    keys = (*SHARED, ProviderKey("own", "sk-own", rpm=3))
    pool = KeyPool(keys)
    for _ in range(4):
        pool.pick(0.0)
    rested = pool.pick(0.0)
    assert rested is not None
    pool.failed(rested, limited(30.0, "key"), 0.0)
    again = KeyPool(keys)
    again.resume([*pool.view(1.0), {"key": "unknown"}], 101.0)
    assert [one["state"] for one in again.view(101.0)] == [one["state"] for one in pool.view(1.0)]
    assert [again.pick(101.0) for _ in range(6)] == [pool.pick(1.0) for _ in range(6)]
    assert again.wait(101.0) == pytest.approx(pool.wait(1.0), abs=1.1)


def test_what_others_hear_of_a_key() -> None:
    """A rest and its end are told, for each key of the account, and whoever hears it does the same; nothing is told on."""
    told: list[tuple[str, Any]] = []
    one, other = KeyPool(SHARED), KeyPool(SHARED)
    one.tell = lambda label, rest: told.append((label, rest))
    other.tell = lambda label, rest: pytest.fail("told on")
    one.failed(SHARED[0], limited(20.0), 100.0)
    assert [label for label, _ in told] == ["openai#1", "openai#2"]
    for label, rest in told:
        other.hear(label, (rest.seconds, rest.reason, rest.row, rest.alone), 900.0)
    assert other.pick(900.0) is None
    assert other.wait(900.0) == pytest.approx(20.0)
    told.clear()
    probe = one.pick(121.0)
    assert probe is not None
    one.succeeded(probe)
    assert told == [("openai#1", None), ("openai#2", None)]
    for label, _ in told:
        other.hear(label, None, 905.0)
    assert other.pick(905.0) is not None
    other.hear("unknown", None, 905.0)
