"""What every store must do. A new one joins by a branch in `open_again`."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from aigw.consumer import Consumer, ConsumerKey, Terms
from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage import postgres, sqlite
from aigw.storage.base import Change, Store, UsageRow
from aigw.storage.open import open_store
from aigw.storage.rows import TABLES

NOON = 1_790_000_000 // 86400 * 86400 + 12 * 3600.0  # noon, UTC, of some day


@pytest.fixture(params=["sqlite", "postgres"])
async def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Store]]:
    """Another connection to the same store, as another process would have."""
    url = request.getfixturevalue("postgres") if request.param == "postgres" else "sqlite:"
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(open_store(url, tmp_path))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    return open_again()


def record(at: float = NOON, **fields: Any) -> Record:
    return Record(id=secrets.token_hex(12), at=at, **fields)


def full_record() -> Record:
    """A record with a value of its own in each field, so that no two columns can be swapped unseen."""
    values: dict[str, Any] = {}
    for number, field in enumerate(msgspec.structs.fields(Record), start=1):
        kinds: dict[Any, Any] = {str: f"{field.name} ☃ 'x'", float: NOON + 0.123456, bool: True}
        values[field.name] = kinds.get(field.type, 1000 + number)
    return Record(**values)


def exact(values: list[int], share: float) -> int:
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


async def test_a_consumer_comes_back_as_it_was_put(store: Store) -> None:
    """Every field survives; a second put replaces; both names find it."""
    consumer = Consumer(id="c1", name="ci", group="eng", tags='{"a":"b"}', terms=Terms(rpm=5, concurrency=2), disabled=True)
    await store.put_consumer(consumer)
    assert await store.consumer("ci") == await store.consumer("c1") == consumer
    plain = Consumer(id="c1", name="renamed")
    await store.put_consumer(plain)
    assert await store.consumer("c1") == plain
    assert await store.consumer("ci") is None


async def test_two_consumers_cannot_share_a_name(store: Store) -> None:
    """The second is refused, the first unchanged, and no change is announced."""
    await store.put_consumer(Consumer(id="c1", name="ci"))
    before = await store.last_change()
    with pytest.raises(StoreError, match="already called 'ci'"):
        await store.put_consumer(Consumer(id="c2", name="ci"))
    assert await store.consumer("c2") is None
    assert await store.last_change() == before


async def test_a_key_comes_back_as_it_was_put(store: Store) -> None:
    """Digest bytes, times and all; a consumer may have several."""
    first = ConsumerKey(id="k1", consumer_id="c1", digest=b"\x00\xff'" * 10, scheme="x", hint="sk-…", created=1.5, expires=2.5)
    second = ConsumerKey(id="k2", consumer_id="c1", digest=b"2", created=2.0)
    await store.put_key(first)
    await store.put_key(second)
    await store.put_key(ConsumerKey(id="k3", consumer_id="c2", digest=b"3"))
    assert await store.key("k1") == first
    assert await store.keys_of("c1") == [first, second]
    assert await store.key("nobody") is None


async def test_the_same_key_cannot_be_stored_under_two_names(store: Store) -> None:
    """Or it could not be told whose it is."""
    await store.put_key(ConsumerKey(id="k1", consumer_id="c1", digest=b"1"))
    with pytest.raises(StoreError, match="already stored"):
        await store.put_key(ConsumerKey(id="k2", consumer_id="c2", digest=b"1"))


async def test_revoking_a_key_happens_once_and_keeps_it(store: Store) -> None:
    """True for the one who did it; the key stays, with the time it was revoked."""
    await store.put_key(ConsumerKey(id="k1", consumer_id="c1", digest=b"1"))
    assert await store.revoke_key("k1", 7.0) is True
    seq = await store.last_change()
    assert await store.revoke_key("k1", 8.0) is False
    assert await store.revoke_key("nobody", 8.0) is False
    key = await store.key("k1")
    assert key is not None
    assert key.revoked == 7.0
    assert await store.last_change() == seq


async def test_other_processes_hear_of_each_edit(store: Store, open_again: Callable[[], Store]) -> None:
    """What one connection writes, another sees as numbered changes and in the next full read."""
    other = open_again()
    try:
        assert await other.consumers() == ([], [], 0)
        consumer, key = Consumer(id="c1", name="ci"), ConsumerKey(id="k1", consumer_id="c1", digest=b"1")
        await store.put_consumer(consumer)
        await store.put_key(key)
        await store.revoke_key("k1", 7.0)
        changes = await other.changes(0)
        assert [(change.kind, change.id) for change in changes] == [("consumer", "c1"), ("key", "k1"), ("key", "k1")]
        assert await other.changes(changes[0].seq) == changes[1:]
        assert await other.last_change() == changes[-1].seq
        revoked = msgspec.structs.replace(key, revoked=7.0)
        assert await other.consumers() == ([consumer], [revoked], changes[-1].seq)
        assert isinstance(changes[0], Change)
    finally:
        await other.close()


async def test_a_record_comes_back_field_by_field(store: Store) -> None:
    """All columns, text with quotes and snowmen, and an unknown cost that is not 0."""
    full, bare = full_record(), Record(id="bare", at=NOON - 1)
    assert await store.append([full, bare]) == 2
    assert await store.records() == [full, bare]
    assert (await store.records())[1].cost is None
    assert await store.records(ids=["bare"]) == [bare]
    assert await store.records(ids=["nobody"]) == []
    assert await store.records(limit=1) == [full]
    assert await store.records(since=NOON) == [full]


async def test_a_record_is_kept_and_counted_once(store: Store) -> None:
    """However often and in whatever company it is appended."""
    records = [record(NOON + number, input=1) for number in range(120)]
    assert await store.append(records[:60]) == 60
    assert await store.append(records) == 60
    assert await store.append([records[3], records[3]]) == 0
    twin = record(NOON + 500, input=1)
    assert await store.append([twin, twin]) == 1
    assert len(await store.records(limit=1000)) == 121
    [row] = await store.usage("", 0, NOON + 86400)
    assert (row.requests, row.input) == (121, 121)


async def test_a_record_with_its_line_is_the_same_record(store: Store) -> None:
    """The journal hands its lines on; new, known and odd ones come back as those without."""
    full, odd = full_record(), record(NOON + 1, cost=float("nan"), input=3)
    lines = [msgspec.json.encode(full), msgspec.json.encode(odd)]
    assert await store.append([full], lines[:1]) == 1
    assert await store.append([full, odd], lines) == 1
    assert await store.records() == [msgspec.structs.replace(odd, cost=None), full]
    [row] = await store.usage("", NOON, NOON + 3600)
    assert (row.requests, row.input) == (2, full.input + 3)


async def test_nothing_appended_is_nothing_kept(store: Store) -> None:
    """An empty batch is no error."""
    assert await store.append([]) == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"consumer": "half a \ud83d snowman"},
        {"input": 2**70},
        {"output": -(2**63)},
        {"cost": float("nan")},
        {"at": float("inf")},
        {"took": -5},
        {"model": None},
    ],
    ids=lambda odd: next(iter(odd)),
)
async def test_an_odd_record_does_not_hold_up_its_neighbours(store: Store, odd: dict[str, Any]) -> None:
    """What does not fit a column is made to fit; it and those beside it are stored."""
    strange = msgspec.structs.replace(record(), **odd)
    neighbours = [record(NOON + 1), record(NOON + 2)]
    assert await store.append([neighbours[0], strange, neighbours[1]]) == 3
    kept = {kept.id for kept in await store.records(limit=10)}
    assert kept == {strange.id, *(neighbour.id for neighbour in neighbours)}
    [row] = await store.usage("", 0, time.time() + 10**9)
    assert row.requests == 3


async def test_usage_adds_up(store: Store) -> None:
    """Requests, errors, tokens, costs by currency, what has no price; the caller hanging up is no error."""
    await store.append(
        [
            record(model="a", input=10, cached=4, output=5, cost=7),
            record(model="a", input=1, output=1, cost=2, currency="CNY"),
            record(model="a", outcome="client_closed", input=1),
            record(model="b", outcome="provider_error", abandoned_cost=3),
            record(model="b", outcome="policy_error"),
            record(model="b", cost=0),
        ]
    )
    rows = await store.usage("model", NOON - 3600, NOON + 3600)
    assert [(row.group, row.requests, row.errors) for row in rows] == [(("a",), 3, 0), (("b",), 3, 2)]
    assert (rows[0].input, rows[0].cached, rows[0].output, rows[0].unpriced) == (12, 4, 6, 1)
    assert rows[0].costs == {"USD": 7, "CNY": 2}
    assert rows[1].costs == {"USD": 3}
    assert rows[1].unpriced == 0


async def test_usage_of_nothing(store: Store) -> None:
    """No groups; the whole is one line of zeros."""
    assert await store.usage("model", 0, NOON) == []
    assert await store.usage("", 0, NOON) == [UsageRow(group=())]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("consumer", [("x",), ("y",)]),
        ("provider", [("p",), ("q",)]),
        ("route", [("fast",), ("asked",)]),
        ("group", [("",), ("g",)]),
        ("key", [("k",), ("",)]),
        ("operation", [("chat",), ("",)]),
        ("error", [("",), ("provider_timeout",)]),
        ("model,consumer", [("m", "x"), ("", "y")]),
        ("consumer,model", [("x", "m"), ("y", "")]),
        ("error,key", [("", "k"), ("provider_timeout", "")]),
    ],
)
async def test_usage_groups(store: Store, by: str, groups: list[tuple[str, ...]]) -> None:
    """Most requests first. A route is the name that was asked for, also when no route of ours was found."""
    busy = {
        "consumer": "x",
        "provider": "p",
        "route": "fast",
        "requested_model": "whatever",
        "model": "m",
        "key_id": "k",
        "operation": "chat",
    }
    rare = {"consumer": "y", "provider": "q", "requested_model": "asked", "group": "g", "error": "provider_timeout"}
    await store.append([record(**busy), record(**busy), record(**rare)])
    for until in (NOON + 60, NOON + 9999):  # from records alone, and from sums
        assert [row.group for row in await store.usage(by, 0, until)] == groups


async def test_any_two_things_in_any_window(store: Store, open_again: Callable[[], Store]) -> None:
    """Days, hours, records and what came last: all of it is counted, once, whoever wrote it, and only what was asked for."""
    chance = random.Random(11)
    other = open_again()
    records = [
        record(
            NOON + chance.uniform(-3 * 86400, 3 * 86400),
            model=chance.choice("ab"),
            consumer=chance.choice("xyz"),
            group=chance.choice("gh"),
            input=1,
            output=10,
            took=2_000_000,
            first_token=chance.choice([None, 1_000_000]),
            stream=True,
        )
        for _ in range(3000)
    ]
    try:
        for start in range(0, 3000, 500):
            await (store, other)[start // 500 % 2].append(records[start : start + 500])
        for number in range(30):
            since, until = sorted(NOON + chance.uniform(-3.2 * 86400, 3.2 * 86400) for _ in "12")
            if number % 3 == 0:
                since, until = since // 86400 * 86400, until // 86400 * 86400 + 86400
            only = chance.choice([{}, {"group": "g"}, {"consumer": "x", "group": "h"}, {"model": "nobody"}])
            inside = [
                kept
                for kept in records
                if since <= kept.at < until and all(getattr(kept, name) == value for name, value in only.items())
            ]
            for by in ("consumer,model", "group,consumer", "day,model", "model,day", "hour,group", "day", "hour", ""):
                expected: dict[tuple[str, ...], int] = {} if by else {(): 0}
                for kept in inside:
                    local = datetime.fromtimestamp(kept.at, ZoneInfo("Asia/Shanghai"))
                    times = {
                        "day": local.date().isoformat(),
                        "hour": local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes"),
                    }
                    group = tuple(times.get(name) or getattr(kept, name) for name in by.split(",") if name)
                    expected[group] = expected.get(group, 0) + 1
                rows = await store.usage(by, since, until, "Asia/Shanghai", only=only)
                assert {row.group: row.requests for row in rows} == expected
                assert all(row.input == row.requests and row.output == 10 * row.requests for row in rows)
                streams = sum(row.stream_output for row in rows)
                assert streams == 10 * sum(kept.first_token is not None for kept in inside)
                assert sum(row.stream_took for row in rows) == streams * 100_000
    finally:
        await other.close()


async def test_time_comes_in_order_and_then_the_busiest(store: Store) -> None:
    """Whichever of the two is named first."""
    busy = [record(NOON, model="b"), record(NOON, model="b"), record(NOON, model="a"), record(NOON + 86400, model="c")]
    await store.append(busy)
    days = (NOON // 86400, NOON // 86400 + 1)
    first, second = (datetime.fromtimestamp(day * 86400, UTC).date().isoformat() for day in days)
    assert [row.group for row in await store.usage("day,model", 0, NOON + 99999)] == [(first, "b"), (first, "a"), (second, "c")]
    assert [row.group for row in await store.usage("model,day", 0, NOON + 99999)] == [("b", first), ("a", first), ("c", second)]


async def test_a_trend_has_the_requests_of_each_part(store: Store) -> None:
    """From records and sums alike; its parts add up to the row's requests, and lie where they were."""
    await store.append([record(NOON + hour * 3600 + 1, model="m", consumer="c") for hour in (0, 0, 0, 1, 5)])
    for by in ("model", "model,consumer", ""):
        [row] = await store.usage(by, NOON, NOON + 6 * 3600, parts=6)
        assert row.trend == [3, 1, 0, 0, 0, 1]
        [row] = await store.usage(by, NOON, NOON + 1800, parts=3)
        assert row.trend == [3, 0, 0]
        [row] = await store.usage(by, NOON, NOON + 6 * 3600)
        assert row.trend == []


async def test_records_of_a_time_and_by_the_beginning_of_their_ids(store: Store) -> None:
    """Both ends are included; a beginning is taken as it is written, whatever signs are in it."""
    await store.append([Record(id=f"req_{number:02}", at=NOON + number, outcome="provider_error") for number in range(20)])
    assert [kept.at - NOON for kept in await store.records(since=NOON + 3, until=NOON + 5)] == [5, 4, 3]
    assert [kept.at - NOON for kept in await store.records(until=NOON + 1, failed=True)] == [1, 0]
    assert [kept.id for kept in await store.records(prefix="req_1", limit=3)] == ["req_19", "req_18", "req_17"]
    assert len(await store.records(prefix="req_", until=NOON + 4)) == 5
    assert await store.records(prefix="req%") == []
    assert await store.records(prefix="REQ_1") == []


async def test_failures_are_found_among_many(store: Store) -> None:
    """Newest first; a caller that went away is none; those of deleted records go with them."""
    kinds = ("ok", "client_closed", "provider_error", "policy_error")
    await store.append([record(NOON + number, outcome=kinds[number % 4]) for number in range(40)])
    found = await store.records(failed=True, limit=3)
    assert [(kept.at - NOON, kept.outcome) for kept in found] == [
        (39, "policy_error"),
        (38, "provider_error"),
        (35, "policy_error"),
    ]
    assert len(await store.records(failed=True, since=NOON + 30)) == 6
    await store.expire(NOON + 39, 0)
    assert [kept.at - NOON for kept in await store.records(failed=True)] == [39]
    await store.expire(NOON + 99, 0)
    assert await store.records(failed=True) == []


async def test_what_was_appended_since(store: Store, open_again: Callable[[], Store]) -> None:
    """In the order in which they came, not of their times; from the last place on; of too many the newest."""
    assert await store.appended() == ([], 0)
    await store.append([record(NOON + 5), record(NOON)])
    found, place = await store.appended()
    assert [kept.at - NOON for kept in found] == [5, 0]
    assert await store.appended(place) == ([], place)
    other = open_again()
    await other.append([record(NOON - 60), record(NOON + 1), record(NOON + 2)])
    await other.close()
    found, last = await store.appended(place, limit=2)
    assert [kept.at - NOON for kept in found] == [1, 2]
    assert last > place
    await store.expire(NOON + 9999, 0)
    _, last = await store.appended(last)
    await store.append([record(NOON + 7)])
    found, _ = await store.appended(last)
    assert [kept.at - NOON for kept in found] == [7]


async def test_an_unknown_grouping_or_zone_is_refused(store: Store) -> None:
    """In words that name what is possible."""
    for by in ("colour", "model,colour"):
        with pytest.raises(ValueError, match="not by 'colour'"):
            await store.usage(by, 0, 1)
    with pytest.raises(ValueError, match="not by 'colour'"):
        await store.usage("model", 0, 1, only={"colour": "red"})
    for by in ("model,model", "day,hour"):
        with pytest.raises(ValueError, match="each name once, and day or hour"):
            await store.usage(by, 0, 1)
    for zone in ("Mars/Base", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="time zone"):
            await store.usage("day", 0, 1, zone)


async def test_days_are_those_of_the_time_zone(store: Store) -> None:
    """The same four exchanges, seen from London, Shanghai and a zone that is half an hour off."""
    midnight = NOON - 12 * 3600
    await store.append([record(midnight + hours * 3600) for hours in (1, 15.9, 16.1, 18.6)])

    async def days(tz: str) -> list[int]:
        rows = await store.usage("day", midnight - 86400, midnight + 2 * 86400, tz)
        assert [row.group for row in rows] == sorted(row.group for row in rows)
        return [row.requests for row in rows]

    assert await days("UTC") == [4]
    assert await days("Asia/Shanghai") == [2, 2]
    assert await days("Asia/Kolkata") == [3, 1]  # its midnight is 18:30 UTC, in the middle of a roll-up


async def test_a_day_with_a_clock_change_has_its_own_length(store: Store) -> None:
    """23 and 25 hours in Berlin; the hour that comes twice is shown twice."""
    spring = 1774738800.0  # 2026-03-28T23:00Z, midnight in Berlin
    autumn = 1792879200.0  # 2026-10-24T22:00Z, midnight in Berlin
    await store.append(
        [record(start + hour * 3600 + 1) for start, hours in ((spring, 23), (autumn, 25)) for hour in range(hours)]
    )
    rows = await store.usage("day", spring - 86400, autumn + 3 * 86400, "Europe/Berlin")
    assert [(*row.group, row.requests) for row in rows] == [("2026-03-29", 23), ("2026-10-25", 25)]
    hours = [row.group[0] for row in await store.usage("hour", autumn, autumn + 25 * 3600, "Europe/Berlin")]
    assert len(hours) == len(set(hours)) == 25
    assert hours[2:4] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


async def test_any_window_counts_what_lies_in_it(store: Store) -> None:
    """Edges anywhere: roll-ups and records together give what counting by hand gives."""
    chance = random.Random(7)
    records = [record(NOON + chance.uniform(0, 10 * 3600), model=chance.choice("abc"), input=1) for _ in range(2000)]
    await store.append(records)
    for _ in range(40):
        since, until = sorted(
            NOON + chance.choice([chance.uniform(-3600, 11 * 3600), chance.randint(0, 10) * 3600]) for _ in "12"
        )
        inside = [kept for kept in records if since <= kept.at < until]
        [row] = await store.usage("", since, until)
        assert (row.requests, row.input) == (len(inside), len(inside))
        by_model = {row.group[0]: row.requests for row in await store.usage("model", since, until)}
        assert by_model == {model: count for model in "abc" if (count := sum(kept.model == model for kept in inside))}
        by_hour = await store.usage("hour", since, until)
        assert sum(row.requests for row in by_hour) == len(inside)


async def test_percentiles_are_off_by_five_percent_at_most(store: Store) -> None:
    """Against sorting, over many hours, batches and edges, for the whole time and the first token."""
    chance = random.Random(3)
    records = [
        record(
            NOON + chance.uniform(0, 5 * 3600),
            took=int(chance.lognormvariate(14, 1.5)),
            first_token=chance.choice([None, 1234]),
        )
        for _ in range(3000)
    ]
    for start in range(0, 3000, 100):
        await store.append(records[start : start + 100])
    [row] = await store.usage("", NOON + 1800, NOON + 4 * 3600 + 100)
    inside = [kept for kept in records if NOON + 1800 <= kept.at < NOON + 4 * 3600 + 100]
    took = [kept.took for kept in inside]
    assert row.requests == len(inside)
    assert row.total_p50 == pytest.approx(exact(took, 0.5), rel=0.05)
    assert row.total_p95 == pytest.approx(exact(took, 0.95), rel=0.05)
    assert row.first_token_p50 == row.first_token_p95 == pytest.approx(1234, rel=0.05)


async def test_two_processes_append_at_once(store: Store, open_again: Callable[[], Store]) -> None:
    """Neither loses a record or overwrites the other's sums."""
    other = open_again()
    try:
        batches = [[record(NOON + number, input=1, took=5000) for number in range(20)] for _ in range(40)]
        stores = (store, other)
        await asyncio.gather(*(stores[number % 2].append(batch) for number, batch in enumerate(batches)))
        [row] = await store.usage("", NOON, NOON + 3600)
        assert (row.requests, row.input) == (800, 800)
        assert row.total_p50 == pytest.approx(5000, rel=0.05)
    finally:
        await other.close()


async def test_expiry_is_bounded_and_keeps_the_sums(store: Store) -> None:
    """At most `limit` rows go at a time; old records leave their roll-ups, old roll-ups go later."""
    await store.append([record(NOON + number) for number in range(50)] + [record(NOON + 10 * 3600)])
    assert await store.expire(NOON + 3600, NOON - 86400, limit=20) == 20
    assert len(await store.records()) == 31
    assert await store.expire(NOON + 3600, NOON - 86400) == 30
    assert await store.expire(NOON + 3600, NOON - 86400) == 0
    assert [row.requests for row in await store.usage("hour", 0, NOON + 86400)] == [50, 1]
    assert await store.expire(NOON + 3600, NOON + 3600) > 0
    assert await store.expire(NOON + 3600, NOON + 3600) == 0
    assert [row.requests for row in await store.usage("hour", 0, NOON + 86400)] == [1]


async def test_an_hour_whose_records_are_gone_is_counted_once(store: Store) -> None:
    """It cannot be cut any more: the window in which it ends has all of it, the one in which it begins has none."""
    await store.append([record(NOON + minute * 60) for minute in range(0, 120, 10)])
    await store.expire(NOON + 86400, 0)
    half = NOON + 1800
    [before], [after] = await store.usage("", 0, half), await store.usage("", half, NOON + 86400)
    assert (before.requests, after.requests) == (0, 12)


async def test_appending_goes_on_after_expiry(store: Store) -> None:
    """Sums that were deleted do not come back."""
    await store.append([record()])
    await store.expire(NOON + 3600, NOON + 3600)
    await store.append([record()])
    [row] = await store.usage("", 0, NOON + 3600)
    assert row.requests == 1


async def test_values(store: Store, open_again: Callable[[], Store]) -> None:
    """Bytes in, the same bytes out, for everybody, until they expire."""
    await store.put("a", b"\x00\xff", ttl=60)
    await store.put("gone", b"x", ttl=-1)
    assert await store.get("a") == b"\x00\xff"
    assert await store.get("gone") is await store.get("nobody") is None
    other = open_again()
    assert await other.get("a") == b"\x00\xff"
    await other.put("a", b"")
    await other.close()
    assert await store.get("a") == b""
    await store.delete("a")
    await store.delete("a")
    assert await store.get("a") is None


async def test_a_lease_has_one_holder(store: Store, open_again: Callable[[], Store]) -> None:
    """Renewed by its holder, refused to others, free when it has run out."""
    other = open_again()
    assert await store.lease("job", "me", 0.3) is True
    assert await other.lease("job", "you", 60) is False
    assert await store.lease("job", "me", 0.3) is True
    await asyncio.sleep(0.35)
    assert await other.lease("job", "you", 60) is True
    assert await store.lease("job", "me", 60) is False
    assert await store.lease("other job", "me", 60) is True
    await other.close()


async def test_a_closed_store_says_so(store: Store) -> None:
    """Closing twice is fine; asking afterwards is a StoreError, not a riddle."""
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.last_change()
    with pytest.raises(StoreError, match="closed"):
        await store.records()


async def test_swap_replaces_what_was_seen_and_nothing_else(store: Store, open_again: Callable[[], Store]) -> None:
    """Of two who read the same value and change it one is told to look again; running servers hear of a change, only then."""
    other = open_again()
    assert await store.swap("doc", b"one", expected=None, change="canary") is True
    assert await other.swap("doc", b"mine", expected=None, change="canary") is False
    assert await other.swap("doc", b"two", expected=b"one") is True
    assert await store.swap("doc", b"three", expected=b"one", change="canary") is False
    assert await store.get("doc") == b"two"
    assert [(change.kind, change.id) for change in await store.changes(0)] == [("canary", "doc")]
    await store.put("brief", b"x", ttl=0.05)
    await asyncio.sleep(0.1)
    assert await store.swap("brief", b"y", expected=None) is True
    assert await store.get("brief") == b"y"


async def test_spent_is_the_sum_of_the_records(store: Store, open_again: Callable[[], Store]) -> None:
    """Exactly, whoever wrote them, however often, and whatever else happens; of a consumer and of its group."""
    chance = random.Random(5)
    other = open_again()
    records = [
        record(
            NOON + chance.uniform(-86400, 86400),
            consumer_id=chance.choice(["c1", "c2", ""]),
            group=chance.choice(["", "g"]),
            charged=chance.randrange(10**9),
            input=chance.randrange(9000),
            output=chance.randrange(900),
        )
        for _ in range(1000)
    ]
    batches = [records[start : start + 70] for start in range(0, 1000, 50)]  # some of them twice
    await asyncio.gather(*((store, other)[number % 2].append(batch) for number, batch in enumerate(batches)))
    await other.close()
    for since in (0.0, NOON - 3600, NOON, NOON + 900):
        expected: dict[str, tuple[int, int]] = {}
        for kept in records:
            for holder in (kept.consumer_id, f"g:{kept.group}" if kept.group else ""):
                if holder and kept.at >= since:
                    usd, tokens = expected.get(holder, (0, 0))
                    expected[holder] = usd + kept.charged, tokens + kept.input + kept.output
        assert await store.spent(["c1", "c2", "g:g", "nobody"], since) == expected
    assert await store.spent([], 0) == {}


async def test_spent_outlives_the_records_and_their_quarters(store: Store) -> None:
    """Deleted records stay charged; what is so old that no window begins there is still in the total."""
    now = time.time() // 900 * 900
    long_ago = now - 200 * 86400
    await store.append([record(at, consumer_id="c", charged=1, input=1) for at in (long_ago, long_ago + 5000, now, now - 900)])
    for _ in range(3):
        await store.expire(now + 9999, now + 9999)
        assert await store.spent(["c"], 0) == {"c": (4, 4)}
        assert await store.spent(["c"], now) == {"c": (1, 1)}
        assert await store.spent(["c"], now - 86400) == {"c": (2, 2)}
    await store.append([record(long_ago, consumer_id="c", charged=1)])  # a journal that was found late
    assert await store.spent(["c"], 0) == {"c": (5, 4)}


async def test_a_holder_called_by_any_name(store: Store) -> None:
    """Quotes and snowmen are names; a charge that is no number is made one, and holds up nobody."""
    names = ["o'hara", "☃", "a%b_"]
    await store.append([record(consumer_id=name, charged=3) for name in names])
    await store.append([record(consumer_id="☃", charged=2**70), record(consumer_id="☃", charged=4)])
    found = await store.spent(names, 0)
    assert found["o'hara"] == found["a%b_"] == (3, 0)
    assert found["☃"] == (3 + 10**15 + 4, 0)


async def test_edits_wake_who_waits_for_them(store: Store, open_again: Callable[[], Store]) -> None:
    """Or time does: whoever follows sees an edit either way."""
    other = open_again()
    before = await other.last_change()
    waiting = asyncio.create_task(other.changed(0.3))
    await store.put_consumer(Consumer(id="c1", name="ci"))
    await asyncio.wait_for(waiting, 10)
    assert await other.last_change() == before + 1


async def test_edits_at_once_are_numbered_in_the_order_they_are_seen(store: Store, open_again: Callable[[], Store]) -> None:
    """Whoever follows the numbers misses none, however many edit at the same moment."""
    stores = [store, open_again(), open_again()]
    follower, seen, seq = open_again(), [], 0
    edits = asyncio.gather(
        *(stores[number % 3].put_consumer(Consumer(id=f"c{number}", name=f"n{number}")) for number in range(60))
    )
    while len(seen) < 60:
        for change in await follower.changes(seq):
            seen.append(change.id)
            seq = change.seq
    await edits
    assert sorted(seen) == sorted(f"c{number}" for number in range(60))


async def test_records_page_by_page(store: Store) -> None:
    """Oldest first, each once, also of many that began at the same moment."""
    records = [Record(id=f"{number:04}", at=NOON + number // 7) for number in range(100)]
    await store.append(records)
    found, after = [], (0.0, "")
    while page := await store.records_after(after, NOON + 10, limit=9):
        found += page
        after = page[-1].at, page[-1].id
    assert found == records[:70]


async def test_everything_at_one_moment_and_all_or_nothing(store: Store) -> None:
    """A snapshot sees nothing that comes later; what is filled in is there at the end, or not at all."""
    await store.put_consumer(Consumer(id="c1", name="ci", terms=Terms(rpm=5)))
    await store.append([record(consumer_id="c1", charged=5, outcome="provider_error")])
    async with store.snapshot() as rows:
        await store.append([record()])
        await store.put("late", b"x")
        kept = {table: [row async for page in rows(table) for row in page] for table in TABLES}
    assert [len(kept[name]) for name in ("consumer", "record_line", "failure", "value", "spent")] == [1, 1, 1, 0, 1]
    assert len(kept["rollup"]) == 5
    assert len(kept["combination"]) == 2
    with pytest.raises(StoreError, match="not empty"):
        async with store.filling():
            pass
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what fails is in the middle of it
        async with store.filling(replace=True) as filling:
            await filling.put("consumer", [])
            raise ZeroDivisionError
    assert await store.consumer("ci") is not None
    before = await store.last_change()
    async with store.filling(replace=True) as filling:
        for table, lines in kept.items():
            await filling.put(table, lines)
            there = [row async for page in filling.rows(table) for row in page if row[0] != "combined"]
            assert sorted(there) == sorted(row for row in lines if row[0] != "combined")
    assert await store.last_change() > before
    assert await store.get("late") is None
    assert len(await store.records()) == 1
    assert await store.spent(["c1"], 0) == {"c1": (5, 0)}
    await store.append([record()])
    for by in ("", "consumer,model"):
        assert sum(row.requests for row in await store.usage(by, 0, NOON + 9999)) == 2


async def test_old_edits_are_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stay, with their numbers: who follows goes on where it was."""
    for module in (sqlite, postgres):
        monkeypatch.setattr(module, "KEPT_CHANGES", 5)
    for number in range(12):
        await store.put_consumer(Consumer(id="c1", name=f"n{number}"))
    last = await store.last_change()
    await store.expire(0, 0)
    assert [change.seq for change in await store.changes(0)] == [*range(last - 4, last + 1)]
    await store.put_consumer(Consumer(id="c1", name="again"))
    assert await store.last_change() == last + 1
