"""Pieces make the whole, and the whole makes pieces again."""

from __future__ import annotations

from aigw.canonical import (
    Answer,
    CallDelta,
    CallStarted,
    Choice,
    Citation,
    CitationDelta,
    Event,
    Finished,
    Foreign,
    ForeignPart,
    Media,
    MediaPart,
    Refusal,
    RefusalDelta,
    Spent,
    SpentSoFar,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)
from aigw.protocols.translation.assembly import Assembly, events_of

FULL = Answer(
    id="i",
    model="m",
    created=5,
    service_tier="flex",
    spent=Spent(3, output=4),
    choices=[
        Choice(
            [
                Thinking("hm", "s", origin="o"),
                Thinking(hidden="h", origin="o"),
                Text("a", citations=[Citation("u")]),
                Media("image", "AA"),
                Text("b", signature="s", origin="o"),
                Foreign("d", "t", {}),
                ToolCall("x", "f", '{"a":1}'),
                ToolCall("y", "g", "free", True, "s", "o"),
                Refusal("no"),
            ],
            "tool_calls",
        ),
        Choice([Text("c")], "stop", 1, "END", {"content": [{"token": "c"}]}),
    ],
)


def assembled(*events: Event) -> Answer:
    assembly = Assembly()
    for event in events:
        assembly.add([event])
    return assembly.done()


def test_taken_apart_and_put_together_it_is_the_same() -> None:
    assert assembled(*events_of(FULL)) == FULL


def test_pieces_grow_into_one_part() -> None:
    answer = assembled(
        Started("i", "m"),
        ThinkingDelta("h"),
        ThinkingDelta("m"),
        ThinkingDelta("", "sig", origin="o"),
        TextDelta("a"),
        TextDelta("b"),
        CitationDelta(Citation("u")),
        RefusalDelta("n"),
        RefusalDelta("o"),
        Finished("stop"),
    )
    assert answer.choices[0].parts == [Thinking("hm", "sig", origin="o"), Text("ab", citations=[Citation("u")]), Refusal("no")]


def test_calls_in_turns_keep_their_own_pieces() -> None:
    answer = assembled(
        CallStarted(0, "x", "f"),
        CallStarted(1, "y", "g"),
        CallDelta(1, '{"b"'),
        CallDelta(0, '{"a"'),
        CallDelta(1, ":2}"),
        CallDelta(0, ":1}"),
    )
    assert answer.choices[0].parts == [ToolCall("x", "f", '{"a":1}'), ToolCall("y", "g", '{"b":2}')]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert assembled(CallStarted(0, "x", "f")).choices[0].parts == [ToolCall("x", "f", "{}")]


def test_choices_come_in_their_order_and_the_last_usage_counts() -> None:
    answer = assembled(TextDelta("b", 1), TextDelta("a"), SpentSoFar(Spent(1)), SpentSoFar(Spent(2)))
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.spent == Spent(2)


def test_media_and_foreign_parts_stand_where_they_came() -> None:
    media, foreign = Media("image", "AA"), Foreign("d", "t", 1)
    answer = assembled(TextDelta("a"), MediaPart(media), ForeignPart(foreign), TextDelta("b"))
    assert answer.choices[0].parts == [Text("a"), media, foreign, Text("b")]


def test_two_signed_thoughts_are_two() -> None:
    answer = assembled(ThinkingDelta("a", "1"), ThinkingDelta("b", "2"))
    assert [part.text for part in answer.choices[0].parts if isinstance(part, Thinking)] == ["a", "b"]
