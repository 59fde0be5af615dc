"""A bad key costs its sender more than us: every 401 looks alike, and too many of them end in late 429s without a record."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigw.access.consumer_keys import mint
from tests.e2e.world import DEMO, HELLO, Gateway, eventually

LIMIT = 20


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    config = (
        f'{DEMO}[auth]\nfailures_per_minute = {LIMIT}\n[consumers.ci]\nkey = "the-key-of-ci"\n[storage]\nclient_ip = false\n'
    )
    made = Gateway(tmp_path, config).start()
    made.key = "the-key-of-ci"
    try:
        yield made
    finally:
        made.close()


def test_a_401_is_a_401(gateway: Gateway) -> None:
    """Unknown, mistyped, foreign, revoked, of a known id or not, or none: the same headers and the same size."""
    known = gateway.create_key("alice")["key"]
    eventually(lambda: gateway.ask(HELLO, key=known).status == 200, every=0.4)
    revoked = gateway.create_key("bob")["key"]
    eventually(lambda: gateway.ask(HELLO, key=revoked).status == 200, every=0.4)
    assert gateway.aigw("keys", "revoke", "bob", "--yes").returncode == 0
    eventually(lambda: gateway.ask(HELLO, key=revoked).status == 401, every=0.4)
    shapes = set()
    for key in (known[:-1], known[:20] + "x" * 45, mint("x", now=0.0)[0], "sk-proj-another", "", revoked):
        got = gateway.ask(HELLO, key=key)
        assert got.status == 401
        assert key[:20] not in got.body.decode() or not key
        shapes.add((*sorted(name for name in got.headers), got.headers["content-length"], len(got.headers["x-aigw-error"])))
    listing = gateway.ask(None, "/v1/models", method="GET", key="nonsense")
    assert (listing.status, listing.headers["content-length"]) == (401, "640")
    assert len(shapes) == 1, shapes


def test_who_tries_keys_is_throttled(gateway: Gateway) -> None:
    """From so many failures on, the same address gets a late 429 that leaves no record, on every path; valid keys are served
    at once meanwhile; metrics and one line of the log tell (without the address, where records may not have it either)."""
    for number in range(LIMIT):
        assert gateway.ask(HELLO, key=f"guess-{number}").status == 401
    began = time.monotonic()
    refused = gateway.ask(HELLO, key="guess-again")
    assert 0.9 < time.monotonic() - began < 3
    assert (refused.status, refused.error["aigw_code"]) == (429, "policy_rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    assert gateway.ask(None, "/v1/models", method="GET", key="guess-again").status == 429

    others = [threading.Thread(target=gateway.ask, args=(HELLO,), kwargs={"key": f"flood-{n}"}) for n in range(12)]
    for other in others:
        other.start()
    began = time.monotonic()
    assert gateway.ask(HELLO).status == 200
    assert gateway.ask(HELLO, key="", headers={"x-api-key": gateway.key}).status == 200
    assert time.monotonic() - began < 0.9
    for other in others:
        other.join()

    told = gateway.metrics()
    assert told["aigw_auth_failures_total"] == LIMIT + 14
    assert LIMIT + 14 - told["aigw_auth_throttled_total"] in (LIMIT, LIMIT + 1)  # a place in the minute may have come free
    assert told["aigw_auth_addresses"] == 1
    listened = LIMIT + 14 - int(told["aigw_auth_throttled_total"])
    eventually(lambda: len(gateway.records("outcome = 'ok'")) == 2)
    assert len(gateway.records("outcome = 'policy_error'")) == listened
    lines = [line for line in gateway.lines if "wrong keys within a minute" in line]
    assert len(lines) == 1
    assert "from one address" in lines[0]
