"""What would become of a request, from a config alone, and with what a server tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.decision import Question, explain
from aigw.cli.locations import Locations
from aigw.cli.names import understood
from aigw.config.load import load_text
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS

TEXT = """
[providers.one]
kind = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
keys = ["sk-of-one-1", {key = "sk-of-one-2", label = "spare"}]
[providers.claude]
kind = "anthropic"
keys = ["sk-ant-of-a-test"]
[routes.pair]
strategy = "priority"
targets = [{provider = "one", model = "m"}, {provider = "claude", model = "c", when = {consumer = "vip"}}]
fallback = [{provider = "claude", model = "c"}]
[routes.night]
strategy = "priority"
targets = [{provider = "claude", model = "c", when = {time = "22:00-06:00", tz = "UTC"}}, {provider = "one", model = "m"}]
[routes.lot]
targets = [{provider = "one", model = "m", weight = 75}, {provider = "claude", model = "c", weight = 25}]
[consumers.vip]
key = "vip-key-0123456789abcdef"
rpm = 5
"""

ASK = {"messages": [{"role": "user", "content": "hello"}]}


async def decided(tmp_path: Path, model: str, *, state: Any = None, operation: str = "chat", **more: Any) -> dict[str, Any]:
    body = json.dumps({"model": model, **ASK, **more.pop("body", {})}).encode()
    where = Locations()
    where.data_dir = str(tmp_path / "none")
    names = understood(load_text(TEXT, Path("c.toml")), tmp_path, {})
    return await explain(where, names, Question(OPERATIONS[operation], "", body, **more), state)


def places(facts: dict[str, Any]) -> list[str]:
    return [one["deployment"] for one in facts["attempts"]]


async def test_the_order_and_the_reasons(tmp_path: Path) -> None:
    """Each attempt with its key and its dialect; who is not asked, and why; who asks makes a difference."""
    facts = await decided(tmp_path, "pair")
    assert places(facts) == ["one/m", "claude/c"]
    assert facts["attempts"][0]["request"] == "POST http://127.0.0.1:9/v1/chat/completions"
    assert facts["attempts"][1]["dialect"] == "anthropic_messages"
    assert facts["attempts"][1]["translated"]
    assert [one["not_tried"] for one in facts["candidates"]] == ["", "", "when: consumer = vip"]
    known = await decided(tmp_path, "pair", consumer="vip")
    assert [one["not_tried"] for one in known["candidates"]][:2] == ["", ""]
    assert known["limits"] == [{"kind": "requests a minute", "limit": 5, "used": None}]


async def test_losses_belong_to_the_attempt(tmp_path: Path) -> None:
    """What one place's API cannot say is lost there, and nowhere else."""
    facts = await decided(tmp_path, "pair", body={"seed": 3}, down=("one",))
    by_place = {one["deployment"]: one["losses"] for one in facts["attempts"]}
    assert by_place == {"claude/c": ["seed"], "one/m": []}
    assert places(facts) == ["claude/c", "one/m"], "what is down comes last"
    assert facts["first"] == "claude/c"


async def test_time_windows(tmp_path: Path) -> None:
    """As if it were then."""
    assert (await decided(tmp_path, "night", at=1_790_035_200.0 // 86400 * 86400 + 23 * 3600))["first"] == "claude/c"
    assert (await decided(tmp_path, "night", at=1_790_035_200.0 // 86400 * 86400 + 12 * 3600))["first"] == "one/m"


async def test_shares_of_a_lot(tmp_path: Path) -> None:
    """By weight, the likely one first; never another one the next time."""
    for _ in range(5):
        facts = await decided(tmp_path, "lot")
        assert [one["share"] for one in facts["candidates"]] == [0.75, 0.25]
        assert places(facts) == ["one/m", "claude/c"]


async def test_what_the_server_tells(tmp_path: Path) -> None:
    """Resting keys are not picked, open circuits come last, another config is noticed."""
    key = {"key": "one#1", "state": "resting", "seconds": 50.0, "reason": "provider_rate_limited", "in_flight": 0, "score": 0.0}
    key |= {"rpm_left": None, "tpm_left": None, "limits": None}
    state = {"pid": 1, "config": {"hash": "x"}, "providers": [{"name": "one", "pool": [key]}, {"name": "gone", "pool": []}]}
    facts = await decided(tmp_path, "pair", state=state)
    assert facts["attempts"][0]["key"] == "spare"
    assert facts["server"] == {"pid": 1, "same_config": False}
    health = {"deployment": "one/m", "circuit": "open", "seconds": 9.0, "reason": "provider_error", "row": 3, "in_flight": 0}
    state["deployments"] = [health | {"first_byte": None, "first_token": None}]
    facts = await decided(tmp_path, "pair", state=state)
    assert facts["first"] == "claude/c"
    assert facts["candidates"][1]["last_because"] == "circuit open"
    key2 = key | {"key": "spare"}
    state["providers"][0]["pool"].append(key2)  # type: ignore[index]
    facts = await decided(tmp_path, "one/m", state=state)
    assert facts["refusal"]["code"] == "provider_credentials_exhausted"
    assert facts["first"] is None


async def test_refusals(tmp_path: Path) -> None:
    """As the caller would get them; names that the operator mistyped are wrong usage."""
    assert (await decided(tmp_path, "nope"))["refusal"]["code"] == "caller_model_not_found"
    refused = await decided(tmp_path, "claude/c", operation="embeddings")
    assert refused["refusal"]["code"] == "caller_unsupported"
    with pytest.raises(ConfigError, match="did you mean vip"):
        await decided(tmp_path, "pair", consumer="vipp")
    with pytest.raises(ConfigError, match="did you mean one"):
        await decided(tmp_path, "pair", down=("onee",))
