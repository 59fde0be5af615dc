"""What plugins may ask for, and that it is theirs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aigw.canonical import Message, Request, Text
from aigw.errors import UpstreamError
from aigw.plugins.entry import Counts
from aigw.plugins.host import MOST_WORDS, PluginHost, Ways
from tests.plugged import Values


class World:
    def __init__(self, folder: Path, answer: bytes = b"{}") -> None:
        self.asked: list[Any] = []
        self.values = Values()
        self.answer = answer
        self.ways = Ways(
            folder / "data", folder, self.values, self.fetch, self.ask, lambda reference, key: f"{key}:{reference}"
        )
        self.counts = Counts()

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, within: float
    ) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((method, url, headers, body, within))
        return 200, {"a": "b"}, b"ok"

    async def ask(self, plugin: str, operation: str, model: str, body: bytes, within: float) -> bytes:
        self.asked.append((plugin, operation, model, json.loads(body), within))
        return self.answer

    def host(self, name: str = "one") -> PluginHost:
        return PluginHost(name, self.ways, self.counts)


async def test_values_are_its_own(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = world.host("one"), world.host("two")
    await one.kv.put("k", b"v")
    assert await one.kv.get("k") == b"v"
    assert await two.kv.get("k") is None
    await two.kv.delete("k")
    assert await one.kv.get("k") == b"v"


def test_a_folder_of_its_own(tmp_path: Path) -> None:
    """Made when it is asked for, for its owner alone, and never elsewhere."""
    host = World(tmp_path).host("../up")
    assert not (tmp_path / "data").exists()
    assert host.folder.parent == tmp_path / "data" / "plugins"
    assert host.folder.stat().st_mode & 0o777 == 0o700


async def test_asking_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    found = await world.host().fetch("https://example.org", body=b"x", within=3)
    assert (found.status, found.headers, found.body) == (200, {"a": "b"}, b"ok")
    assert world.asked == [("POST", "https://example.org", {}, b"x", 3)]
    assert world.host().secret("env:X") == "plugins.one:env:X"


async def test_asking_a_model(tmp_path: Path) -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
    world = World(tmp_path, json.dumps(answer).encode())
    request = Request(dialect="openai_chat", model="m", messages=[Message("user", [Text("Is it?")])])
    found = await world.host().complete("m", request, within=9)
    assert found.choices[0].parts == [Text("yes")]
    plugin, operation, model, body, within = world.asked[0]
    assert (plugin, operation, model, within) == ("one", "chat", "m", 9)
    assert body["messages"] == [{"role": "user", "content": "Is it?"}]
    with pytest.raises(UpstreamError):
        await World(tmp_path, b"no").host().complete("m", request)


async def test_vectors_come_in_their_order(tmp_path: Path) -> None:
    data = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}
    world = World(tmp_path, json.dumps(data).encode())
    assert await world.host().embed("e", ["a", "b"]) == [[1.0], [2.0]]
    for wrong in (b"no", b'{"data": []}'):
        with pytest.raises(UpstreamError):
            await World(tmp_path, wrong).host().embed("e", ["a"])


def test_counting_is_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(MOST_WORDS + 10):
        world.host().count(f"word-{number}")
    world.host().count("word-0", 2)
    assert len(world.counts.own) == MOST_WORDS
    assert world.counts.own["word-0"] == 3
