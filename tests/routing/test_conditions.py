"""What a request must be for a target to get it."""

from __future__ import annotations

import calendar
from typing import Any

import pytest

from aigw.config import schema
from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.exchange import Exchange
from aigw.routing.conditions import Conditions, Facts, Hours

CI = Consumer(id="c1", name="ci-nightly", group="build", tags='{"team": "core"}')


def holds(body: bytes = b"{}", headers: dict[str, str] | None = None, at: float = 0.0, **when: Any) -> bool:
    caller = Caller(CI, ConsumerKey(id="k", consumer_id="c1", digest=b""))
    exchange = Exchange("r", at, operation="chat", headers=headers or {}, body=body, caller=caller)
    facts = Facts(exchange)
    return all(condition.holds(facts) for condition in Conditions().of(schema.When(**when)))


@pytest.mark.parametrize(
    ("when", "truth"),
    [
        ({"consumer": "ci-nightly"}, True),
        ({"consumer": "someone, ci-*"}, True),
        ({"consumer": "ci"}, False),
        ({"group": "build"}, True),
        ({"group": "b"}, False),
        ({"tags": {"team": "co*"}}, True),
        ({"tags": {"team": "core", "floor": "2"}}, False),
        ({"consumer": "ci-*", "group": "other"}, False),
    ],
)
def test_who(when: dict[str, Any], truth: bool) -> None:
    """Names, groups and tags, with globs; all of them at once."""
    assert holds(**when) is truth


@pytest.mark.parametrize(
    ("body", "name", "truth"),
    [
        (b'{"tools": [{"type":"function"}]}', "tools", True),
        (b'{"functions":[{"name":"f"}]}', "tools", True),
        (b'{"tools": []}', "tools", False),
        (b'{"messages":[{"content":"I have \\"tools\\""}]}', "tools", False),
        (b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}', "images", True),
        (b'{"messages":[{"content":[{"type": "image","source":{}}]}]}', "images", True),
        (b'{"contents":[{"parts":[{"inline_data":{"mime_type":"image/png"}}]}]}', "images", True),
        (b'{"messages":[{"content":"an image"}]}', "images", False),
        (b'{"messages":[{"content":[{"type":"input_audio","input_audio":{}}]}]}', "audio", True),
        (b'{"modalities":["text","audio"]}', "audio", True),
        (b'{"messages":[]}', "audio", False),
    ],
)
def test_what(body: bytes, name: str, truth: bool) -> None:
    """True asks for it, false for its absence."""
    assert holds(body, **{name: True}) is truth
    assert holds(body, **{name: False}) is not truth


def test_length() -> None:
    """A quarter of a token a byte, where nobody counts better."""
    body = b'{"x":"' + b"a" * 4000 + b'"}'
    assert holds(body, prompt_tokens=">1000")
    assert not holds(body, prompt_tokens="<=1000")
    assert holds(body, prompt_tokens="900-1100")
    assert not holds(b"{}", prompt_tokens=">=8000")


def test_headers() -> None:
    """By name in any case, values may be globs."""
    assert holds(headers={"x-tier": "gold-1"}, header={"X-Tier": "gold-*"})
    assert not holds(headers={}, header={"x-tier": "*"})


def test_hours_over_midnight_and_zones() -> None:
    """From is included, until is not; a zone is the one that is written."""
    night = Hours("22:00-06:00", "UTC")
    moment = {
        text: calendar.timegm((2026, 1, 5, int(text[:2]), int(text[3:]), 0)) for text in ("21:59", "22:00", "05:59", "06:00")
    }
    assert {text: night.includes(at) for text, at in moment.items()} == {
        "21:59": False,
        "22:00": True,
        "05:59": True,
        "06:00": False,
    }
    assert Hours("06:00-07:00", "Asia/Shanghai").includes(moment["22:00"])


def test_the_same_condition_is_asked_once() -> None:
    """Ten targets with one condition: the body is read once."""
    conditions = Conditions()
    assert conditions.of(schema.When(tools=True))[0] is conditions.of(schema.When(tools=True, audio=True))[0]
