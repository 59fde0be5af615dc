"""Chat's usage in every host's spelling, what the walk reads of a request, and when the first token came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.errors import CallerError
from aigw.exchange import Usage
from aigw.protocols.openai_chat import OpenAIChat, reported, whole

CHAT = OpenAIChat()

DETAILS = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10, "audio_tokens": 5, "image_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 7, "image_tokens": 8},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (DETAILS, Usage(input=100, cached=40, cache_write_5m=10, audio_input=5, image_input=6, output=50, reasoning=20,
                        audio_output=7, image_output=8)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(input=3, output=4)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(input=3)),  # embeddings
        ({"total_tokens": 9}, Usage(input=9)),  # rerank
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 9}, Usage()),
        ({"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"text_tokens": 1, "image_tokens": 2}},
         Usage(input=3, output=4, image_input=2)),  # images
        ({"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 8}, Usage(input=9, cached=8, output=1)),  # Moonshot
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1},
         Usage(input=9, cached=8, output=1)),  # DeepSeek
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 8},
         Usage(input=9, output=1)),  # OpenAI's own place wins, also when it says 0
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None, "completion_tokens_details": None},
         Usage(input=9, output=1)),
        ({"prompt_tokens": 9.0, "completion_tokens": 1.0, "cost": 0.00125}, Usage(input=9, output=1, reported_cost=1_250_000)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "estimated_cost": 2},
         Usage(input=9, output=1, reported_cost=2_000_000_000)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cost": {"total_cost": 1}}, Usage(input=9, output=1)),  # Perplexity
        ({"prompt_tokens": None, "completion_tokens": 1}, Usage(output=1)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1}, Usage(input=10**30, output=1)),  # metering makes it sane
    ],
)  # fmt: skip
def test_usage(usage: dict[str, Any], expected: Usage) -> None:
    """Every spelling comes to the same words; whole answer and stream agree."""
    body = {"model": "m", "choices": [{"finish_reason": "stop"}], "usage": usage}
    assert CHAT.read_answer(json.dumps(body).encode()).usage == expected
    tap = CHAT.tap(hide_usage=False)
    tap.look(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert tap.told.usage == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}]}, Usage(input=3, output=4)),
        ({"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}, Usage(input=3, output=4)),
        ({"usage": {"prompt_tokens": 3}, "x_groq": {"usage": {"prompt_tokens": 9}}}, Usage(input=3)),
        ({"usage": {"prompt_tokens": 3}, "service_tier": "flex"}, Usage(input=3, service_tier="flex")),
        ({"meta": {"tokens": {"input_tokens": 5, "output_tokens": 0}, "billed_units": {"search_units": 1}}}, Usage(input=5)),
        ({"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 2}}}, Usage(input=5, output=2)),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"usage": None}, None),
        ({}, None),
        ({"usage": {"prompt_tokens": "3"}}, None),  # odd: an answer all the same, and its usage is not known
        ({"usage": [3]}, None),
        ({"choices": {"0": 1}}, None),
    ],
)
def test_places_of_usage(answer: dict[str, Any], expected: Usage | None) -> None:
    """Where hosts put it; an odd one is passed over."""
    assert CHAT.read_answer(json.dumps(answer).encode()).usage == expected


@pytest.mark.parametrize(
    ("fields", "limit", "user", "wants_usage"),
    [
        ({}, None, "", False),
        ({"max_tokens": 5}, 5, "", False),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7, "", False),
        ({"user": "u1", "safety_identifier": "s1"}, None, "u1", False),
        ({"safety_identifier": "s1"}, None, "s1", False),
        ({"stream_options": {"include_usage": False}}, None, "", True),
        ({"stream_options": None}, None, "", True),
    ],
)
def test_read_request(fields: dict[str, Any], limit: int | None, user: str, wants_usage: bool) -> None:
    """Limits and end users in both spellings; whoever writes `stream_options`, however, has spoken for itself."""
    asked = CHAT.read_request(json.dumps({"model": "m", **fields}).encode())
    assert (asked.max_tokens, asked.end_user, asked.wants_usage) == (limit, user, wants_usage)


def chunk(**delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("chunks", "first"),
    [
        ([chunk(role="assistant", content=""), chunk(content="x")], 1),
        ([chunk(role="assistant", content="x")], 0),
        ([chunk(role="assistant", content=None), chunk(reasoning_content="x")], 1),
        ([chunk(role="assistant", content=""), chunk(role="assistant", reasoning_content="x")], 1),
        ([chunk(role="assistant", content=""), chunk(role="assistant", content="", tool_calls=[{}])], 1),
        (
            [
                {"model": "", "choices": [], "prompt_filter_results": []},
                chunk(role="assistant", content=""),
                chunk(content="x"),
            ],
            2,
        ),
        ([chunk(content="x")], 0),
        ([{"model": "m", "choices": [{"text": "x"}]}], 0),
        ([{"type": "image_generation.partial_image", "b64_json": ""}], 0),
    ],
)
@pytest.mark.parametrize("spaced", [True, False])
def test_the_first_token(chunks: list[dict[str, Any]], first: int, spaced: bool) -> None:
    """Comes with the first chunk that can hold content: not with a role alone, nor with a filter's verdict or a comment."""
    tap = CHAT.tap(hide_usage=False)
    tap.look(b": comment\n\n")
    begun = []
    for one in chunks:
        tap.look(b"data: " + json.dumps(one, separators=None if spaced else (",", ":")).encode() + b"\n\n")
        begun.append(tap.begun)
    assert begun == [False] * first + [True] * (len(chunks) - first)


@pytest.mark.parametrize(
    ("number", "expected"), [(None, 0), (0, 0), (7, 7), (7.0, 7), (7.9, 7), (float("inf"), 0), (float("nan"), 0)]
)
def test_whole(number: float | None, expected: int) -> None:
    """A count is an integer."""
    assert whole(number) == expected


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(0.001, 1_000_000), (0, 0), (-1, None), (1e300, None), ("0.1", None), (None, None), ({}, None), (float("nan"), None)],
)
def test_reported(cost: Any, expected: int | None) -> None:
    """Dollars as nano-dollars; what is no sum of money is none."""
    assert reported(cost) == expected


def test_render_error() -> None:
    """OpenAI's shape, whole; null where there is nothing to say."""
    told = json.loads(CHAT.render_error(CallerError("caller_invalid_request", "No.", param="x"), "r"))["error"]
    assert told == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "x",
        "code": None,
        "aigw_code": "caller_invalid_request",
        "request_id": "r",
    }
