"""Chat streams: every host's way of writing them gives the same events, however the network cuts them; ours are such as
OpenAI's own types take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from openai.types.chat import ChatCompletionChunk

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finished,
    Media,
    MediaPart,
    RefusalDelta,
    Request,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
    Tool,
    unseal,
)
from aigw.protocols.translation.assembly import Assembly
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.openai_chat.request import LEGACY
from aigw.protocols.translation.openai_chat.stream import ChatParser, ChatRenderer
from tests.recordings import RECORDINGS, Recording

CHAT = [recording for recording in RECORDINGS if recording.dialect == "openai_chat" and recording.name != "images"]
NAMES = [recording.name for recording in CHAT]


def said(*chunks: dict[str, Any] | str) -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps({"id": "c", "model": "m"} | chunk) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def delta(finish: str | None = None, at: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": at, "delta": fields, "finish_reason": finish}]}


def read(stream: bytes) -> tuple[list[Event], ChatParser]:
    parser = ChatParser()
    events = parser.feed(stream)
    return events + parser.end(), parser


def calls(events: list[Event]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    found = [(event.call, event.id, event.name) for event in events if isinstance(event, CallStarted)]
    return [
        (called, name, "".join(e.arguments for e in events if isinstance(e, CallDelta) and e.call == number))
        for number, called, name in found
    ]


def reply(*tools: Tool, usage: bool = True) -> Reply:
    request = Request(dialect="openai_chat", model="asked", messages=[], tools=list(tools))
    return Reply(request=request, id="req_7", model="", now=1234.5, include_usage=usage)


def written(*events: Event, to: Reply | None = None) -> list[dict[str, Any]]:
    """The chunks that a caller gets, each of which OpenAI's own type takes."""
    renderer = ChatRenderer(to or reply())
    stream = b"".join(renderer.render([event]) for event in events) + renderer.end()
    *chunks, last = [line.removeprefix("data: ") for line in stream.decode().split("\n\n")[:-1]]
    assert last == "[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate(json.loads(chunk))
    return [json.loads(chunk) for chunk in chunks]


def joined(chunks: list[dict[str, Any]], name: str) -> str:
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("recording", CHAT, ids=NAMES)
def test_facts_of_every_host_are_those_the_passthrough_reads(recording: Recording) -> None:
    """Usage in the finish chunk, in each chunk, in the choice, in x_groq, in a chunk of its own; no [DONE]; CRLF; errors."""
    events, parser = read(recording.stream)
    assert parser.told.usage == recording.usage
    assert parser.told.finish_reason == recording.finish_reason
    assert bool(parser.failed) == (recording.error_event is not None)
    if recording.usage is not None and not parser.failed:
        spent = [event.spent for event in events if isinstance(event, SpentSoFar)]
        assert [one.input for one in spent] == [recording.usage.input], "told once, so never counted twice"


@pytest.mark.parametrize("recording", CHAT, ids=NAMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_stream_cut_anywhere_gives_the_same_events(recording: Recording, data: st.DataObject) -> None:
    stream = b"\xef\xbb\xbf: a comment\n\n" + recording.stream
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, events = ChatParser(), []
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        events += parser.feed(stream[start:end])
    assert events + parser.end() == read(stream)[0]


def test_fed_byte_by_byte() -> None:
    stream = said(delta(content="wörd 🎈"), delta("stop"), "[DONE]").replace(b"\n", b"\r\n")
    parser, events = ChatParser(), []
    for place in range(len(stream)):
        events += parser.feed(stream[place : place + 1])
    assert TextDelta("wörd 🎈") in events
    assert parser.done


def test_data_without_a_space_and_garbage_between_events() -> None:
    """`data:{...}` (envoyproxy/ai-gateway 2470); what is no JSON is skipped."""
    stream = said(delta(content="a")).replace(b"data: ", b"data:") + b"data: {garbage\n\n\xff\xfe\n\n" + said(delta("stop"))
    events, parser = read(stream)
    assert [type(event) for event in events] == [Started, TextDelta, Finished]
    assert parser.told.finish_reason == "stop"


def test_usage_in_a_last_chunk_with_choices_is_not_dropped() -> None:
    """BerriAI/litellm 36168: the same prompt billed four times."""
    events, parser = read(
        said(delta(content="a"), delta("stop") | {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, "[DONE]")
    )
    assert parser.told.usage is not None
    assert (parser.told.usage.input, parser.told.usage.output) == (5, 2)
    assert [event for event in events if isinstance(event, SpentSoFar)] == [SpentSoFar(Spent(input=5, output=2))]


def test_heartbeats_after_the_finish_end_the_stream() -> None:
    """maximhq/bifrost 6799: without [DONE] the caller would hang as long as they come."""
    parser = ChatParser()
    parser.feed(said(delta(content="a"), delta("stop")))
    assert not parser.done, "its usage may still come"
    assert parser.feed(b": ping\n\n") == []
    assert parser.done


def test_half_an_event_after_the_finish_is_no_heartbeat() -> None:
    usage = said({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    parser = ChatParser()
    parser.feed(said(delta(content="a"), delta("stop")))
    parser.feed(usage[:20])
    assert not parser.done
    parser.feed(usage[20:])
    assert parser.told.usage is not None


def test_parallel_calls_by_index_with_pieces_in_between() -> None:
    events, _ = read(
        said(
            delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]),
            delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]),
            delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}, {"index": 0, "function": {"arguments": ":1}"}}]),
            delta("tool_calls"),
        )
    )
    assert calls(events) == [("b", "g", "{}"), ("a", "f", '{"x":1}')]


@pytest.mark.parametrize("index", [None, 0])
def test_whole_calls_without_an_index_or_with_the_same_one_are_told_apart(index: int | None) -> None:
    """Gemini's OpenAI layer; agentgateway 2971."""
    one, two = ({"id": name, "function": {"name": "f", "arguments": f'{{"n":"{name}"}}'}} for name in "ab")
    if index is not None:
        one["index"] = two["index"] = index  # type: ignore[assignment]
    events, _ = read(said(delta(tool_calls=[one]), delta(tool_calls=[two]), delta("stop")))
    assert calls(events) == [("a", "f", '{"n":"a"}'), ("b", "f", '{"n":"b"}')]
    assert events[-1] == Finished("tool_calls"), "although the host says stop"


def test_ids_and_names_repeated_with_each_piece_are_one_call() -> None:
    piece = lambda text: delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": text}}])  # noqa: E731
    events, _ = read(said(piece('{"x"'), piece(":1}"), delta("")))
    assert calls(events) == [("a", "f", '{"x":1}')]


def test_a_new_id_for_each_piece_is_one_call() -> None:
    piece = lambda called, text: delta(tool_calls=[{"index": 0, "id": called, "function": {"arguments": text}}])  # noqa: E731
    start = delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f"}}])
    events, _ = read(said(start, piece("b", '{"x"'), piece("c", ":1}"), "[DONE]"))
    assert calls(events) == [("a", "f", '{"x":1}')]


def test_arguments_as_an_object() -> None:
    events, _ = read(said(delta("tool_calls", tool_calls=[{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}])))
    assert calls(events) == [("a", "f", '{"x":1}')]


def test_an_empty_finish_reason_is_none() -> None:
    events, parser = read(said(delta("", content="a"), delta("null", content="b"), "[DONE]"))
    assert [event for event in events if isinstance(event, Finished)] == [Finished("stop")]
    assert parser.done


def test_an_error_object_in_the_stream() -> None:
    events, parser = read(said(delta(content="a"), {"error": {"message": "no"}}, delta(content="b")))
    assert json.loads(parser.failed)["error"] == {"message": "no"}
    assert TextDelta("b") not in events


def test_a_host_that_ends_for_want_of_resources_has_failed() -> None:
    """DeepSeek's insufficient_system_resource is no end of an answer."""
    _, parser = read(said(delta(content="a"), delta("insufficient_system_resource")))
    assert b"insufficient_system_resource" in parser.failed


def test_nothing_but_a_role_is_no_beginning() -> None:
    """Until content came, another provider may be tried."""
    parser = ChatParser()
    parser.feed(said({"choices": [], "prompt_filter_results": []}, delta(role="assistant", content="")))
    assert not parser.begun
    parser.feed(said(delta(content="a")))
    assert parser.begun


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_in_every_spelling(name: str) -> None:
    events, _ = read(said(delta(**{name: "hm"}), delta(content="a")))
    assert events[1:] == [ThinkingDelta("hm", origin="openai_chat"), TextDelta("a")]


def test_reasoning_details_are_not_told_twice_and_keep_their_proof() -> None:
    detail = {"type": "reasoning.text", "text": "hm", "signature": "S", "format": "anthropic-claude-v1", "index": 0}
    events, _ = read(said(delta(reasoning="hm", reasoning_details=[detail])))
    assert isinstance(events[1], ThinkingDelta)
    assert "".join(event.text for event in events if isinstance(event, ThinkingDelta)) == "hm"
    proof = [event.signature for event in events if isinstance(event, ThinkingDelta) and event.signature]
    assert [json.loads(one)["signature"] for one in proof] == ["S"]


def test_think_tags_are_text() -> None:
    events, _ = read(said(delta(content="<think>hm</think>a")))
    assert events[1] == TextDelta("<think>hm</think>a")


def test_several_answers_audio_images_citations_refusal_logprobs() -> None:
    note = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    logged = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]}
    events, _ = read(
        said(
            logged,
            delta(at=1, content="b"),
            delta(annotations=[note], images=[image], refusal="no"),
            delta(audio={"id": "au", "data": "AA"}),
            delta(audio={"data": "BB", "transcript": "hi"}),
            delta("stop"),
            delta("length", at=1),
        )
    )
    assert events[1:] == [
        TextDelta("a", logprobs={"content": [{"token": "a"}]}),
        TextDelta("b", 1),
        RefusalDelta("no"),
        CitationDelta(Citation("u", "t", "", 0, 1)),
        MediaPart(Media("image", "AAAA", type="image/png")),
        TextDelta("hi"),
        MediaPart(Media("audio", "AABB", name="au")),
        Finished("content_filter"),
        Finished("length", choice=1),
    ]


def test_odd_types_cost_nothing_but_themselves() -> None:
    odd = {"choices": [{"index": "0", "delta": {"content": "a", "tool_calls": "none"}}], "usage": "soon", "created": "now"}
    events, _ = read(said(odd, delta("stop")))
    assert TextDelta("a") in events


def test_an_event_of_eight_megabytes() -> None:
    text = "x" * 8_000_000
    stream, parser, events = said(delta(content=text), delta("stop")), ChatParser(), []
    for start in range(0, len(stream), 65536):
        events += parser.feed(stream[start : start + 65536])
    assert events[1] == TextDelta(text)


# --- written ---


def test_the_order_that_callers_expect() -> None:
    chunks = written(
        Started("c1", "m1", 99),
        TextDelta("wörd"),
        TextDelta('"\n'),
        Finished("stop"),
        SpentSoFar(Spent(input=10, cached=4, output=3, reasoning=1, cache_write_1h=2)),
    )
    assert chunks[0]["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    assert joined(chunks, "content") == 'wörd"\n'
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 3, 13)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4, "audio_tokens": 0, "cache_write_tokens": 2}
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks} == {("c1", "m1", 99)}


def test_usage_only_where_it_was_asked_for() -> None:
    assert not any("usage" in chunk for chunk in written(TextDelta("a"), SpentSoFar(Spent(1)), to=reply(usage=False)))


def test_what_has_no_id_is_named_by_the_request() -> None:
    chunks = written(CallStarted(0, "", "f"), CallStarted(1, "", "g"), Finished("tool_calls"))
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-7"}
    assert {chunk["model"] for chunk in chunks} == {"asked"}
    made = [call["id"] for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert made == ["call_7_0", "call_7_1"]


def test_a_call_in_pieces() -> None:
    chunks = written(CallStarted(0, "a", "f", signature="c2ln", origin="gemini"), CallDelta(0, '{"x"'), CallDelta(0, ":1}"))
    pieces = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"x":1}'
    sealed = pieces[0]["extra_content"]["google"]["thought_signature"]
    assert unseal(sealed, "openai_chat") == ("gemini", "c2ln")


def test_who_offered_functions_gets_a_function_call() -> None:
    to = reply(Tool("f", dialect=LEGACY))
    chunks = written(CallStarted(0, "a", "f"), CallDelta(0, "{}"), Finished("tool_calls"), to=to)
    assert [chunk["choices"][0]["delta"].get("function_call") for chunk in chunks][1:3] == [
        {"name": "f", "arguments": ""},
        {"arguments": "{}"},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_signed_thoughts_come_whole_with_a_place_in_their_list() -> None:
    """OpenAI's SDK joins the lists of deltas by `index`, and raises where there is none."""
    chunks = written(
        ThinkingDelta("h", origin="anthropic_messages"),
        ThinkingDelta("m", "c2ln", origin="anthropic_messages"),
        ThinkingDelta(hidden="aGlk", origin="anthropic_messages"),
        TextDelta("a"),
    )
    assert joined(chunks, "reasoning_content") == "hm"
    blocks = [
        block for chunk in chunks for block in chunk["choices"][0]["delta"].get("thinking_blocks", ()) if chunk["choices"]
    ]
    assert [(block["type"], block["index"]) for block in blocks] == [("thinking", 0), ("redacted_thinking", 1)]
    assert blocks[0]["thinking"] == "hm"
    assert unseal(blocks[0]["signature"], "openai_chat") == ("anthropic_messages", "c2ln")
    assert unseal(blocks[1]["data"], "openai_chat") == ("anthropic_messages", "aGlk")


def test_the_sdk_puts_our_stream_together() -> None:
    """OpenAI's own accumulator, as `client.chat.completions.stream` uses it."""
    from openai.lib.streaming.chat._completions import ChatCompletionStreamState

    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    chunks = written(
        Started("c1", "m1"),
        ThinkingDelta("h", "c2ln", origin="anthropic_messages"),
        ThinkingDelta("m", "c2ln", origin="anthropic_messages"),
        TextDelta("Hello"),
        CitationDelta(Citation("u", "t")),
        CitationDelta(Citation("v", "w")),
        CallStarted(0, "a", "f"),
        CallDelta(0, '{"x":1}'),
        CallStarted(1, "b", "g"),
        CallDelta(1, "{}"),
        Finished("tool_calls"),
        SpentSoFar(Spent(3, output=4)),
    )
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.get_final_completion().choices[0].message
    assert message.content == "Hello"
    assert [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]


def test_what_is_written_is_read_again() -> None:
    events: list[Event] = [
        Started("c1", "m1", 5),
        ThinkingDelta("hm", origin="openai_chat"),
        TextDelta("a"),
        TextDelta("b", logprobs={"content": [{"token": "b"}]}),
        RefusalDelta("no"),
        CallStarted(0, "a", "f"),
        CallDelta(0, "{}"),
        TextDelta("c", 1),
        Finished("tool_calls"),
        Finished("length", choice=1),
        SpentSoFar(Spent(input=3, cached=1, output=4, reasoning=2)),
    ]
    renderer = ChatRenderer(reply())
    stream = renderer.render(events) + renderer.end()
    again, parser = read(stream)
    assert again == events
    assert parser.done


def test_put_together_it_is_the_same_as_a_whole_answer() -> None:
    recording = next(one for one in CHAT if one.name == "tool_calls")
    assembly = Assembly()
    assembly.add(read(recording.stream)[0])
    answer = assembly.done()
    assert answer.choices[0].finish == "tool_calls"
    assert recording.usage is not None
    assert answer.spent is not None
    assert answer.spent.input == recording.usage.input
