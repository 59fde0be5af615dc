"""`/v1/keys`: a lead makes keys for its own group, and for nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aigw.access import authenticate
from aigw.consumer import Consumer
from aigw.server.keys import LARGEST, MOST
from tests.data_port import HELLO, Answer, Running, serving

CONFIG = """
[server]
port = 0
[admin]
port = 0
[providers.demo]
[routes.other]
targets = [{provider = "demo", model = "demo"}]
[groups.search]
budgets = ["10 usd/day"]
deny = ["other"]
[consumers.lead]
key = "the-key-of-the-lead"
group = "search"
lead = true
[consumers.rival]
key = "the-key-of-a-rival"
group = "search"
lead = true
[consumers.ci]
key = "the-key-of-ci"
group = "search"
"""

LEAD, RIVAL, CI = "the-key-of-the-lead", "the-key-of-a-rival", "the-key-of-ci"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, CONFIG) as running:
        yield running


async def ask(port: Running, method: str, path: str, said: Any = None, key: str = LEAD) -> Answer:
    body = None if said is None else said if isinstance(said, bytes) else json.dumps(said).encode()
    return await port.ask(method, path, body, {"authorization": f"Bearer {key}"})


async def hello(port: Running, key: str, model: str = "demo") -> int:
    body = HELLO.replace(b'"demo"', json.dumps(model).encode(), 1)
    return (await port.ask("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}"})).status


async def test_its_life(port: Running) -> None:
    """Made, live at once, listed, ended at once, made again; always of the lead's group."""
    made = await ask(
        port, "POST", "/v1/keys", {"name": "ann", "rpm": 5, "budgets": ["2usd/day"], "expires": "30d", "tags": {"a": "b"}}
    )
    assert made.status == 200
    found = made.json()
    assert (found["name"], found["group"], found["terms"]) == ("lead/ann", "search", {"rpm": 5, "budgets": ["2 usd/day"]})
    assert 29 * 86400 < found["expires"] - time.time() < 31 * 86400
    assert await hello(port, found["key"]) == 200
    assert await hello(port, found["key"], "other") == 403, "the group's terms hold"
    listed = (await ask(port, "GET", "/v1/keys")).json()["data"]
    assert [one["id"] for one in listed] == [found["id"]]
    assert found["key"] not in json.dumps(listed)
    (record, *_) = await port.records(2)
    assert (record.consumer, record.group, record.tags) == ("lead/ann", "search", '{"a":"b"}')

    twice = await ask(port, "POST", "/v1/keys", {"name": "ann"})
    assert (twice.status, twice.json()["error"]["param"]) == (400, "name")
    ended = await ask(port, "DELETE", f"/v1/keys/{found['id']}")
    assert ended.json() == {"object": "key", "id": found["id"], "name": "lead/ann", "deleted": True}
    assert await hello(port, found["key"]) == 401
    assert (await ask(port, "DELETE", f"/v1/keys/{found['id']}")).status == 404
    again = (await ask(port, "POST", "/v1/keys", {"name": "ann"})).json()
    assert await hello(port, again["key"]) == 200
    assert again["terms"] == {}
    assert (await ask(port, "DELETE", "/v1/keys/lead/ann")).status == 200


async def test_who_may_not(port: Running) -> None:
    """Others of the group, those that were made, strangers; and nobody touches another lead's keys."""
    child = (await ask(port, "POST", "/v1/keys", {"name": "ann"})).json()
    for key in (CI, child["key"]):
        for method, path, said in (
            ("POST", "/v1/keys", {"name": "x"}),
            ("GET", "/v1/keys", None),
            ("DELETE", "/v1/keys/x", None),
        ):
            refused = await ask(port, method, path, said, key)
            assert (refused.status, refused.headers["x-aigw-error"]) == (403, "policy_forbidden")
    assert (await ask(port, "GET", "/v1/keys", None, "wrong")).status == 401
    assert (await ask(port, "GET", "/v1/keys", None, RIVAL)).json()["data"] == []
    assert (await ask(port, "DELETE", f"/v1/keys/{child['id']}", None, RIVAL)).status == 404
    rival = await ask(port, "POST", "/v1/keys", {"name": "ann"}, RIVAL)
    assert rival.json()["name"] == "rival/ann"
    assert await hello(port, child["key"]) == 200


@pytest.mark.parametrize(
    ("said", "param"),
    [
        (b"{", None),
        (b"[" * 60_000, None),
        ([], None),
        ({}, "name"),
        ({"name": 3}, "name"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": "a", "lead": True}, "lead"),
        ({"name": "a", "group": "other"}, "group"),
        ({"name": "a", "rpm": "many"}, None),
        ({"name": "a", "rpm": -1}, "rpm"),
        ({"name": "a", "budgets": ["5 yen/day"]}, "budgets"),
        ({"name": "a", "allow_ip": ["1.2.3.4/99"]}, "allow_ip[0]"),
        ({"name": "a", "endpoints": ["mail"]}, "endpoints[0]"),
        ({"name": "a", "models": ["@nosuch"]}, "models[0]"),
        ({"name": "a", "expires": "2001-01-01"}, "expires"),
        ({"name": "a", "expires": "soon"}, "expires"),
        ({"name": "a", "expires": True}, "expires"),
        ({"name": "a", "tags": {"x": 1}}, "tags"),
        ({"name": "a", "tags": {"x": "y" * 5000}}, "tags"),
    ],
)
async def test_what_is_wrong(port: Running, said: Any, param: str | None) -> None:
    """A 400 that names what, and nothing is made."""
    answer = await ask(port, "POST", "/v1/keys", said)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert (await ask(port, "GET", "/v1/keys")).json()["data"] == []


async def test_too_large(port: Running) -> None:
    answer = await ask(port, "POST", "/v1/keys", b" " * (LARGEST + 1))
    assert answer.status == 413


async def test_not_without_end(port: Running) -> None:
    """So many live ones, and no more."""
    directory = port.server.services.directory
    from aigw.access.consumer_keys import mint

    consumers = [
        Consumer(id=f"c{number}", name=f"lead/{number}", group="search", parent="config:lead") for number in range(MOST)
    ]
    keys = [mint(one.id, now=0.0)[1] for one in consumers]
    await authenticate.refresh(port.server.services.store, directory)
    directory.load(consumers, keys, directory.seq or 0)
    refused = await ask(port, "POST", "/v1/keys", {"name": "one-more"})
    assert (refused.status, "1000 keys" in refused.json()["error"]["message"]) == (403, True)


async def test_what_a_consumer_is_told_of_its_budgets(port: Running) -> None:
    """Its own and its group's; the tightest in money stands for its balance."""
    key = (await ask(port, "POST", "/v1/keys", {"name": "ann", "budgets": ["2usd/month", "1M tokens/total"]})).json()["key"]
    told = (await ask(port, "GET", "/v1/dashboard/billing/subscription", None, key)).json()
    assert told["hard_limit_usd"] == 2
    told = (await ask(port, "GET", "/v1/usage", None, key)).json()
    assert {(one["whose"], one["unit"], one["window"], one["left"], one["renews"] is None) for one in told["budgets"]} == {
        ("consumer", "usd", "month", 2.0, False),
        ("consumer", "tokens", "total", 1_000_000, True),
        ("group", "usd", "day", 10.0, False),
    }
    assert (await ask(port, "GET", "/v1/models/other", None, key)).status == 404
    assert (await ask(port, "GET", "/v1/models/demo", None, key)).status == 200
