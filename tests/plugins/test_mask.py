"""What may not be sent is not sent; the caller sees what it wrote."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from aigw.canonical import CallDelta, CallStarted, Event, Finished, Started, TextDelta
from aigw.errors import ConfigError
from aigw.plugins.mask import Mask, Masked, Restoring
from tests.plugged import Alone, entry, manager
from tests.walk import ANSWER, CONFIG, DONE, GOOD, USAGE_EVENT, Walk, answers, chunk, streams

ANN, PHONE, CARD = "ann@example.org", "13812345678", "4111 1111 1111 1111"
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def ask(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": text}]} | more


def says(text: str) -> dict[str, Any]:
    return ANSWER | {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


async def asked(said: dict[str, Any], *plays: Any, operation: str = "chat", **table: Any) -> tuple[Any, str, Alone]:
    host = Alone("mask")
    walk = Walk(CONFIG, *(plays or (GOOD,)), plugins=manager(entry(Mask, table, host=host)))
    near, _ = await walk.ask(said, operation)
    return near, walk.transport.requests[0].body.decode() if walk.transport.requests else "", host


async def test_there_and_back() -> None:
    """The same value is the same placeholder; answers are put back, whole and in pieces."""
    text = f"Write to {ANN} or {PHONE}; again: {ANN}"
    near, sent, host = await asked(ask(text), answers(says("Dear <EMAIL_1> (<PHONE_1>, <EMAIL_2>)")))
    assert json.loads(sent)["messages"][0]["content"] == "Write to <EMAIL_1> or <PHONE_1>; again: <EMAIL_1>"
    assert json.loads(near.body)["choices"][0]["message"]["content"] == f"Dear {ANN} ({PHONE}, <EMAIL_2>)"
    assert host.counts == {"email": 2, "phone": 1}
    pieces = [chunk(piece) for piece in ("Dear <", "EMA", "IL_1", ">, a < b", " <PHONE_1", ">")]
    near, _, _ = await asked(ask(text, stream=True), streams(*pieces, END, USAGE_EVENT, DONE))
    said = [json.loads(line[6:]) for line in near.body.decode().split("\n\n") if line.startswith("data: {")]
    whole = "".join(one["choices"][0]["delta"].get("content") or "" for one in said if one["choices"])
    assert whole == f"Dear {ANN}, a < b {PHONE}"


async def test_everywhere_in_a_request() -> None:
    """Lists of parts, results and arguments of tools, the system's words; in another dialect as well."""
    messages = [
        {"role": "system", "content": f"You are {ANN}"},
        {"role": "user", "content": [{"type": "text", "text": f"Call {PHONE}"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": ANN})}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": f"sent to {CARD}"},
    ]
    _, sent, _ = await asked({"model": "fast", "messages": messages})
    for value in (ANN, PHONE, CARD):
        assert value not in sent
    told = {"model": "fast", "max_tokens": 9, "system": f"I am {ANN}", "messages": [{"role": "user", "content": PHONE}]}
    _, sent, _ = await asked(told, operation="messages")
    assert ANN not in sent
    assert PHONE not in sent


async def test_nothing_found_costs_the_answer_nothing() -> None:
    near, sent, _ = await asked(ask("Why is the sky blue?"))
    assert near.body == json.dumps(ANSWER).encode()
    assert json.loads(sent) == ask("Why is the sky blue?") | {"model": "gpt-fast"}


async def test_embeddings() -> None:
    _, sent, _ = await asked({"model": "fast", "input": [ANN, f"call {PHONE}"]}, operation="embeddings")
    assert json.loads(sent)["input"] == ["<EMAIL_1>", "call <PHONE_1>"]


async def test_what_it_cannot_look_into_does_not_pass() -> None:
    near, sent, _ = await asked({"model": "fast", "input": "x", "voice": "y"}, operation="speech")
    assert (near.status, sent) == (403, "")


async def test_modes() -> None:
    near, sent, host = await asked(ask(f"Write to {ANN}"), mode="report")
    assert (near.status, ANN in sent, host.counts) == (200, True, {"email": 1})
    near, sent, _ = await asked(ask(f"Write to {ANN}"), mode="deny")
    assert (near.status, sent) == (400, "")
    assert near.headers[b"x-aigw-error"] == b"policy_content_blocked"
    assert ANN not in near.body.decode()
    _, sent, _ = await asked(ask(f"Write to {ANN}"), replacement="fixed")
    assert "Write to ***" in sent
    _, sent, _ = await asked(ask(f"{ANN} {ANN}"), replacement="hash")
    first, second = json.loads(sent)["messages"][0]["content"].split()
    assert first == second
    assert first.startswith("<EMAIL_")


async def test_placeholders_that_a_caller_wrote() -> None:
    """They are its own words, in the answer too."""
    near, sent, _ = await asked(ask(f"<EMAIL_1> is not {ANN}"), answers(says("<EMAIL_1> and <EMAIL_2>")))
    assert "<EMAIL_1> is not <EMAIL_2>" in sent
    assert f"<EMAIL_1> and {ANN}" in near.body.decode()


async def test_words_of_ones_own() -> None:
    custom = [{"name": "PROJECT", "words": ["Blue Moon", "Blue"]}, {"name": "TICKET", "pattern": "T-[0-9]+"}]
    near, sent, _ = await asked(ask("Blue Moon, Blue, T-42"), answers(says("<PROJECT_1> <TICKET_1>")), custom=custom)
    assert "<PROJECT_1>, <PROJECT_2>, <TICKET_1>" in sent
    assert "Blue Moon T-42" in near.body.decode()


def test_tool_arguments_only_when_asked() -> None:
    """As JSON: a quote in a value stays one."""
    masked = Masked(lambda value, kind, number: f"<{kind}_{number}>")
    masked.stands_for('a "b"', "NAME")
    for wanted, expected in ((False, '{"to":"<NAME_1>"}'), (True, '{"to":"a \\"b\\""}')):
        restoring = Restoring(masked, tool_arguments=wanted)
        events: list[Event] = [
            CallStarted(0, "c", "f"),
            *(CallDelta(0, piece) for piece in ('{"to":"<NA', 'ME_1>"}')),
            Finished("tool_calls"),
        ]
        got = [one for event in events for one in (restoring.event(event) or ([event] if restoring.event is not None else []))]
        said = "".join(one.arguments for one in got if isinstance(one, CallDelta))
        assert wanted is False or said == expected


VALUES = st.sampled_from([ANN, PHONE, CARD, "bob@example.org", "+49 30 901820", "sk-proj-abcdefghijklmnopqrstuvwx"])
WORDS = st.text(st.characters(exclude_characters="<>@0123456789", exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize("size", [200, pytest.param(10_000, marks=pytest.mark.long)])
async def test_mask_and_restore_is_the_identity(size: int) -> None:
    """For generated conversations, cut at any places: nothing of the values goes out, all of them come back."""

    @example([("+", CARD)], [])
    @settings(max_examples=size, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(WORDS, VALUES), min_size=1, max_size=6), st.lists(st.integers(0, 200), max_size=12))
    def check(pairs: list[tuple[str, str]], cuts: list[int]) -> None:
        text = " ".join(f"{word} {value} " for word, value in pairs)
        plugin = entry(Mask).plugin
        assert isinstance(plugin, Mask)
        masked = Masked(plugin._replaced)
        sent = plugin._text(text, masked) or text
        for _, value in pairs:
            assert value not in sent
        places = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
        restoring = Restoring(masked, tool_arguments=False)
        got = ""
        events: list[Event] = [
            Started(),
            *(TextDelta(sent[one:two]) for one, two in pairwise(places)),
            Finished("stop"),
        ]
        for event in events:
            made = restoring.event(event)
            got += "".join(one.text for one in ([event] if made is None else made) if isinstance(one, TextDelta))
        assert got == text

    check()


@pytest.mark.parametrize(
    "table",
    [
        {"kinds": ["SHOE_SIZE"]},
        {"kinds": []},
        {"custom": [{"name": "lower", "words": ["x"]}]},
        {"custom": [{"name": "A"}]},
        {"custom": [{"name": "A", "words": ["x"], "pattern": "y"}]},
        {"custom": [{"name": "A", "pattern": "("}]},
        {"custom": [{"name": "A", "pattern": "(a+)+b"}]},
        {"mode": "maybe"},
    ],
)
def test_what_cannot_be(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(Mask, table)
