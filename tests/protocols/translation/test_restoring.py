"""What was put otherwise for a provider comes back to the caller as the caller wrote it."""

from __future__ import annotations

from aigw.canonical import Answer, CallDelta, CallStarted, Choice, Event, Finished, Request, Text, TextDelta, Tool, ToolCall
from aigw.protocols.translation.names import spoken
from aigw.protocols.translation.restoring import free_text, restoring


def asked(*tools: Tool) -> Request:
    return Request(dialect="openai_chat", model="m", messages=[], tools=list(tools))


def test_there_is_nothing_to_undo_for_nearly_every_request() -> None:
    assert restoring(asked()) is None
    assert restoring(asked(Tool("f"))) is None
    assert restoring(object()) is None, "other families have no tools"


def test_names_come_back() -> None:
    undo = restoring(asked(Tool("a.b"), Tool("f")))
    assert undo is not None
    events: list[Event] = [TextDelta("t"), CallStarted(0, "x", spoken("a.b")), CallDelta(0, "{}"), CallStarted(1, "y", "f")]
    assert undo.events(events) == [TextDelta("t"), CallStarted(0, "x", "a.b"), CallDelta(0, "{}"), CallStarted(1, "y", "f")]
    answer = Answer(choices=[Choice([Text("t"), ToolCall("x", spoken("a.b"))])])
    undo.answer(answer)
    assert answer.choices[0].parts == [Text("t"), ToolCall("x", "a.b")]


def test_free_text_comes_out_of_its_json() -> None:
    undo = restoring(asked(Tool("g", custom=True)))
    assert undo is not None
    events = undo.events([CallStarted(0, "x", "g"), CallDelta(0, '{"inp')])
    events += undo.events([CallDelta(0, 'ut":"a\\nb"}'), Finished("tool_calls")])
    assert events == [CallStarted(0, "x", "g", True), CallDelta(0, "a\nb"), Finished("tool_calls")]
    answer = Answer(choices=[Choice([ToolCall("x", "g", '{"input":"a"}')])])
    undo.answer(answer)
    assert answer.choices[0].parts == [ToolCall("x", "g", "a", True)]


def test_what_a_provider_says_as_free_text_is_left_alone() -> None:
    undo = restoring(asked(Tool("g", custom=True)))
    assert undo is not None
    events: list[Event] = [CallStarted(0, "x", "g", True), CallDelta(0, "a"), Finished("tool_calls")]
    assert undo.events(list(events)) == events


def test_arguments_without_the_text_stay_as_they_are() -> None:
    assert free_text("plain") == "plain"
    assert free_text('{"other":1}') == '{"other":1}'
