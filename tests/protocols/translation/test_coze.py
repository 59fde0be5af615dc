"""Coze's bots: deltas are the answer, what repeats or surrounds them is not."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from aigw.canonical import Event, Finished, Losses, Message, Request, Spent, SpentSoFar, Started, Text, TextDelta
from aigw.errors import CallerError
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.coze import Coze
from tests.providers.every_row import STREAMS

ASKED = Request(dialect="openai_chat", model="m", messages=[Message("system", [Text("s")]), Message("user", [Text("u")])])


def test_which_bot() -> None:
    """The model names it, else the setting; else nobody knows."""
    for model, settings, bot in (("bot-12", {"bot_id": "7"}, "12"), ("34", {}, "34"), ("m", {"bot_id": "7"}, "7")):
        said = json.loads(Coze().render_request(ASKED, Toward(model=model, settings=settings), Losses()))
        assert (said["bot_id"], said["stream"]) == (bot, True)
        assert [one["role"] for one in said["additional_messages"]] == ["user", "user"]
    with pytest.raises(CallerError, match="Which bot"):
        Coze().render_request(ASKED, Toward(model="m"), Losses())


def read(*blocks: bytes) -> list[Event]:
    parser = Coze().parser()
    return [event for block in blocks for event in parser.feed(block)] + parser.end()


@given(st.lists(st.integers(0, len(STREAMS["coze"])), max_size=6))
def test_a_stream_cut_anywhere(cuts: list[int]) -> None:
    """The completed message repeats its deltas and is not said twice; the bot's own tool calls are not the caller's."""
    whole = STREAMS["coze"]
    places = [0, *sorted(cuts), len(whole)]
    assert read(*(whole[start:end] for start, end in pairwise(places))) == [
        Started("z1", created=10),
        TextDelta("hi"),
        Finished("stop"),
        SpentSoFar(Spent(input=3, output=2)),
    ]


def test_a_bot_that_fails() -> None:
    """Its own words are kept."""
    parser = Coze().parser()
    parser.feed(b'event:conversation.chat.failed\ndata:{"last_error":{"code":5000,"msg":"no money"}}\n\n')
    assert b"no money" in parser.failed
