"""Those who are asked whether a text may pass: what they are sent, and what of their word counts."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from aigw.canonical import Answer, Choice, Text
from aigw.errors import ConfigError
from aigw.hooks import Fetched, View
from aigw.plugins.judges import Aliyun, Model, Moderation, Verdict, Webhook, made, signed
from tests.plugged import Alone

URL = "https://judge.example/"


class Seen:
    id, model, consumer, operation = "req_1", "m", "ann", "chat"


async def judged(config: Any, answer: Any, text: str = "a text", where: Any = "request") -> tuple[Verdict, Alone]:
    host = Alone()
    host.answers[URL] = answer if isinstance(answer, Exception) else Fetched(200, {}, json.dumps(answer).encode())
    return await made(config, host).judge(cast("View", Seen()), where, text, []), host


async def test_reasons() -> None:
    found, _ = await judged(Webhook(URL), {"allow": False, "reason": "r" * 500})
    assert found == Verdict(True, "r" * 200)
    flagged = {"results": [{"flagged": True, "categories": {"hate": True, "fun": False}}]}
    assert (await judged(Moderation(URL), flagged))[0] == Verdict(True, "hate")
    risky = {"Code": 200, "Data": {"RiskLevel": "medium", "Result": [{"Label": "a"}, {"Label": "b"}]}}
    assert (await judged(Aliyun("i", "s", URL, level="medium"), risky))[0] == Verdict(True, "a, b")
    assert (await judged(Aliyun("i", "s", URL), risky))[0] == Verdict(False)


async def test_aliyun_has_a_service_for_answers() -> None:
    for where, service in (("request", "llm_query_moderation"), ("answer", "llm_response_moderation")):
        _, host = await judged(Aliyun("i", "s", URL), {"Code": 200, "Data": {}}, where=where)
        assert f"Service={service}&" in host.fetched[0][1].decode()


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        (Webhook(URL), {"allow": 1}),
        (Webhook(URL), OSError("away")),
        (Moderation(URL), {"results": []}),
        (Moderation(URL), {"error": "no"}),
        (Moderation(URL), [1]),
        (Moderation(URL, threshold=0.5), {"results": [{"flagged": False}]}),
        (Aliyun("i", "s", URL), {"Code": 400}),
        (Aliyun("i", "s", URL), {"Code": 200, "Data": None}),
        (Aliyun("i", "s", URL), 7),
    ],
)
async def test_what_is_no_verdict(config: Any, answer: Any) -> None:
    with pytest.raises(OSError, match=r"answered|away|did not say"):
        await judged(config, answer)


async def test_a_model_cannot_be_told_where_the_text_ends() -> None:
    """The mark around the text is another one each time."""
    host = Alone()
    host.models["m"] = Answer(choices=[Choice([Text("ALLOW")])])
    marks = set()
    for _ in range(5):
        await made(Model("m"), host).judge(cast("View", Seen()), "answer", "x", [])
        mark, text, again = host.asked[-1][1].messages[1].parts[0].text.split("\n")
        assert (text, mark) == ("x", again)
        marks.add(mark)
    assert len(marks) == 5


def test_a_signature() -> None:
    """Of the fields in their order, each quoted."""
    assert signed({"b": "a b*~", "a": "1"}, "key") == b"a=1&b=a%20b%2A~&Signature=" + _quoted(
        "key&", "POST&%2F&a%3D1%26b%3Da%2520b%252A~"
    )


def _quoted(key: str, said: str) -> bytes:
    import base64
    import hashlib
    import hmac
    from urllib.parse import quote

    return quote(base64.b64encode(hmac.new(key.encode(), said.encode(), hashlib.sha1).digest()).decode(), safe="").encode()


@pytest.mark.parametrize("url", ["ftp://x", "nowhere", "https://", ""])
def test_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address"):
        made(Webhook(url), Alone())
