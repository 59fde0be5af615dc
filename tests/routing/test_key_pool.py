"""Which key next: the order, what each failure teaches, and what a reload may not forget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.routing.key_pool import EXHAUSTED, FIRST, INVALID, LONGEST, KeyPool

A, B, C = (ProviderKey(f"openai#{number}", f"sk-{number}") for number in (1, 2, 3))
SHARED = tuple(ProviderKey(f"openai#{number}", f"sk-{number}", "team") for number in (1, 2))


def limited(retry_after: float | None = None, fault: str = "account") -> UpstreamError:
    return UpstreamError("provider_rate_limited", "is busy", retry_after=retry_after, fault=fault, upstream_status=429)


def invalid() -> UpstreamError:
    return UpstreamError("provider_credentials_invalid", "says no", fault="key", upstream_status=401)


def exhausted() -> UpstreamError:
    return UpstreamError("provider_credentials_exhausted", "wants money", fault="account", upstream_status=402)


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
    assert pool.pick(LONGEST) is A


def test_without_retry_after_each_rest_doubles_until_it_works_again() -> None:
    """1, 2, 4 ... 64 seconds, and from the start after one good answer."""
    pool = KeyPool((A,))
    now, spans = 0.0, []
    for _ in range(9):
        assert pool.pick(now) is A
        pool.failed(A, limited(), now)
        spans.append(pool.wait(now))
        now += spans[-1]
    assert spans == [FIRST * factor for factor in (1, 2, 4, 8, 16, 32, 64, 64, 64)]
    assert pool.pick(now) is A
    pool.succeeded(A)
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
    assert new.pick(92.0, [fresh.label]) is moved
    new.succeeded(moved)
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
            key = pool.pick(now)
            assert key is None or key.label not in labels(pool, now)
            assert (key is None) == (len(labels(pool, now)) == len(keys))
            assert (key is None) == (pool.wait(now) > 0)
        elif event == "ok":
            pool.succeeded(keys[index])
        else:
            pool.failed(keys[index], errors[event], now)
    assert pool.pick(now + pool.wait(now) + 1e-6) is not None
    assert {pool.pick(now + LONGEST + 1) for _ in keys} == set(keys)
