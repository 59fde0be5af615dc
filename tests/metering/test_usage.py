"""Tokens when a provider counts none, or counts what cannot be."""

from __future__ import annotations

import base64
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aigw.exchange import Usage
from aigw.metering.usage import AUDIO, DOCUMENT, IMAGE, IMAGE_MADE, MAX, OPAQUE, clean, estimate

ENGLISH = (
    "The gateway keeps one record for each exchange, whatever happened to it, and an operator can ask the command line who"
    " used which model, how long it took and what it cost. Prices come from a list that travels with the program. "
)
CHINESE = "网关为每次请求保留一条记录,无论结果如何。管理员可以在命令行中查看谁使用了哪个模型、耗时多少以及费用多少。"
RUSSIAN = "Шлюз хранит одну запись для каждого запроса, что бы с ним ни случилось, а цены берутся из встроенного списка. "
CODE = """\
def total(rows):
    result = 0
    for row in rows:
        if row.kind == "cost":
            result += row.nano
    return result
"""
# Tokens in o200k_base (npm gpt-tokenizer), counted once.
COUNTED = {ENGLISH: 47, CHINESE: 38, RUSSIAN: 29, CODE: 34}


def chat(*content: Any, ascii_only: bool = True) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": list(content)}]}, ensure_ascii=ascii_only
    ).encode()


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def encoded(size: int) -> str:
    """Base64 of random bytes, *size* characters long."""
    return base64.b64encode(random.Random(size).randbytes(size * 3 // 4 + 3)).decode()[:size]


BARE = estimate("chat", chat(text("x"))).input


@pytest.mark.parametrize("sample", COUNTED, ids=["English", "Chinese", "Russian", "code"])
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf-8"])
@pytest.mark.parametrize("times", [20, 20_000])
def test_text_is_within_a_third(sample: str, ascii_only: bool, times: int) -> None:
    """Against a real vocabulary, however the JSON is written, and from a sample when there is much of it."""
    usage = estimate("chat", chat(text(sample * times), ascii_only=ascii_only))
    assert usage.estimated
    assert 0.67 < (usage.input - BARE) / (COUNTED[sample] * times) < 1.5
    assert usage.output == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,@"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "@"}},
        {"type": "image", "source": {"data": "@", "media_type": "image/jpeg", "type": "base64"}},
        {"inline_data": {"mime_type": "image/webp", "data": "@"}},
        {"type": "input_image", "image_url": "data:image/png;base64,@"},
    ],
)
@pytest.mark.parametrize("size", [2_000, 60_000, 1_000_000])
@pytest.mark.parametrize("slashes", [False, True])
def test_an_image_is_a_constant(part: Any, size: int, slashes: bool) -> None:
    """In any dialect's way to write it, and also as PHP writes it (with \\/)."""
    image = encoded(size).replace("/", "\\/") if slashes else encoded(size)
    body = chat(text("What is this?"), part, text("Please be brief.")).replace(b"@", image.encode())
    usage = estimate("chat", body)
    assert usage.image_input == IMAGE
    assert IMAGE < usage.input < IMAGE + 120


def test_images_are_counted_one_by_one() -> None:
    body = chat(*({"type": "image_url", "image_url": {"url": "data:image/png;base64," + encoded(4000 + n)}} for n in range(50)))
    usage = estimate("chat", body)
    assert usage.image_input == 50 * IMAGE
    assert usage.input < 50 * (IMAGE + 40)


def test_other_data_by_its_length() -> None:
    """Sound, documents and encrypted reasoning have a rate each; a thinking block's signature is nothing."""
    data = encoded(100_000)
    sound = estimate("chat", chat({"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}))
    assert sound.audio_input == 100_000 // AUDIO + 1
    assert sound.input - sound.audio_input < 60
    paper = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
    assert 0 <= estimate("messages", chat(paper)).input - 100_000 // DOCUMENT < 60
    assert 0 <= estimate("responses", chat({"type": "reasoning", "encrypted_content": data})).input - 100_000 // OPAQUE < 60
    thought = {"type": "thinking", "thinking": "Hm.", "signature": data}
    assert estimate("messages", chat(thought)).input < 60


@pytest.mark.parametrize(
    "words",
    [
        "x" * 50_000,
        "ab1 " * 10_000,
        "deadbeef01" * 5_000,
        "你好世界" * 10_000,
        "https://example.com/A1b2/c3 " * 1000,
        "A1b2" * 20,
    ],
    ids=["one letter", "words", "hex", "Chinese escapes", "links", "a short code"],
)
def test_text_is_not_taken_for_data(words: str) -> None:
    """What only resembles base64 is counted as the text it is."""
    usage = estimate("chat", chat(text(words)))
    assert usage.image_input == usage.audio_input == 0
    escaped = len(json.dumps(words))
    assert usage.input > min(escaped / 8, len(words) * 0.7)


def test_data_pasted_into_a_text_does_not_swallow_the_text() -> None:
    words = ENGLISH * 2000
    usage = estimate("chat", chat(text(words + encoded(30_000) + " " + words)))
    assert usage.input > 0.9 * estimate("chat", chat(text(words + words))).input


def test_twenty_megabytes_are_quick() -> None:
    """Measured 2 to 10 ms; the limit here only catches a change of kind (decoding the JSON takes 100 ms and more)."""
    bodies = [
        chat({"type": "image_url", "image_url": {"url": "data:image/png;base64," + encoded(20_000_000)}}),
        chat(text(ENGLISH * 90_000)),
        chat(text(CHINESE * 130_000), ascii_only=False),
        b'"' * 20_000_000,
    ]
    for body in bodies:
        best = 9.0
        for _ in range(3):
            start = time.perf_counter()
            estimate("chat", body)
            best = min(best, time.perf_counter() - start)
        assert best < 0.08


def test_embeddings_of_token_ids() -> None:
    """Lists of numbers are tokens already."""
    assert estimate("embeddings", json.dumps({"model": "m", "input": [[1, 22, 333], [4]]}).encode()).input == 4
    assert estimate("embeddings", json.dumps({"model": "m", "input": list(range(5000))}).encode()).input == 5000
    assert estimate("embeddings", json.dumps({"model": "m", "input": [ENGLISH]}).encode(), b'{"data":[]}').output == 0


def openai_stream(words: str) -> bytes:
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        event | {"choices": [{"index": 0, "delta": {"content": words[at : at + 5]}, "finish_reason": None}]}
        for at in range(0, len(words), 5)
    ]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def anthropic_stream(words: str) -> bytes:
    events = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words[at : at + 20]}}
        for at in range(0, len(words), 20)
    ]
    return b"".join(b"event: content_block_delta\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events)


def responses_stream(words: str) -> bytes:
    events: list[Any] = [{"type": "response.output_text.delta", "delta": words[at : at + 5]} for at in range(0, len(words), 5)]
    events += [
        {"type": "response.output_text.done", "text": words},
        {"type": "response.completed", "output": [{"text": words}]},
    ]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("chat", openai_stream(ENGLISH * 10)),
        ("messages", anthropic_stream(ENGLISH * 10)),
        ("responses", responses_stream(ENGLISH * 10)),
        ("chat", json.dumps({"id": "1", "choices": [{"message": {"role": "assistant", "content": ENGLISH * 10}}]}).encode()),
        ("completions", json.dumps({"choices": [{"text": ENGLISH * 10}]}).encode()),
        (
            "chat",
            json.dumps({"choices": [{"message": {"content": None, "tool_calls": [{"arguments": ENGLISH * 10}]}}]}).encode(),
        ),
    ],
    ids=["openai stream", "anthropic stream", "responses stream", "whole", "completion", "tool call"],
)
def test_what_was_said_is_counted_without_its_wrapping(operation: str, answer: bytes) -> None:
    """The text in the events, not the events; and from the beginning of an answer as from the whole of it."""
    real = COUNTED[ENGLISH] * 10
    whole = estimate(operation, b"{}", answer).output
    assert 0.8 * real < whole < 1.5 * real
    part = estimate(operation, b"{}", answer[: len(answer) // 2], len(answer)).output
    assert 0.75 * whole < part < 1.6 * whole


def test_an_answer_without_words_is_none() -> None:
    assert estimate("chat", b"{}", b"<html>Bad gateway</html>").output == 0
    assert estimate("chat", b"{}").output == 0
    assert estimate("speech", b'{"input":"hello"}', encoded(5000).encode()).output == 0


def test_images_made() -> None:
    """A constant for each image asked for, once there is an answer."""
    body = b'{"prompt": "a cat", "n": 3}'
    usage = estimate("images", body, b'{"data":[{"b64_json":"...')
    assert usage.output == usage.image_output == 3 * IMAGE_MADE
    assert estimate("images", b'{"prompt":"a cat"}', b"{").output == IMAGE_MADE
    assert estimate("images", body).output == 0


def test_counting_tokens_is_free() -> None:
    assert estimate("count_tokens", chat(text(ENGLISH)), b'{"input_tokens": 5}') == Usage(estimated=True)


@given(
    st.binary(max_size=3000), st.binary(max_size=2000), st.integers(0, 10**6), st.sampled_from(["chat", "embeddings", "images"])
)
def test_any_bytes_are_estimated(body: bytes, answer: bytes, size: int, operation: str) -> None:
    """Garbage gives a number, never an error, and one that clean() has nothing to say about."""
    usage = estimate(operation, body, answer, size)
    assert clean(usage) is usage
    assert 0 <= usage.input <= len(body) * 2 + IMAGE
    assert usage.estimated


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        (Usage(input=-5, output=3), Usage(input=0, output=3, estimated=True)),
        (Usage(input=10, output=MAX + 1), Usage(input=10, estimated=True)),
        (Usage(input=10, cached=90, output=5), Usage(input=100, cached=90, output=5, estimated=True)),
        (
            Usage(input=3, cached=2, cache_write_5m=1, cache_write_1h=1),
            Usage(input=7, cached=2, cache_write_5m=1, cache_write_1h=1, estimated=True),
        ),
        (Usage(output=10, reasoning=30), Usage(output=40, reasoning=30, estimated=True)),
        (Usage(input=5, audio_input=4, image_input=4), Usage(input=13, audio_input=4, image_input=4, estimated=True)),
        (Usage(input=5, cached=-1), Usage(input=5, estimated=True)),
        (Usage(input=5, reported_cost=-1), Usage(input=5)),
        (Usage(input=5, reported_cost=MAX + 1), Usage(input=5)),
    ],
)
def test_what_cannot_be_is_corrected(given: Usage, cleaned: Usage) -> None:
    """And says so; the original is left alone."""
    before = Usage(**{name: getattr(given, name) for name in given.__struct_fields__})
    assert clean(given) == cleaned
    assert given == before


def test_what_can_be_is_left_alone() -> None:
    usage = Usage(
        input=100, cached=50, cache_write_5m=30, cache_write_1h=20, output=10, reasoning=10, audio_input=100, reported_cost=5,
        service_tier="flex",
    )  # fmt: skip
    assert clean(usage) is usage


counts = st.integers(-(2**70), 2**70) | st.integers(-5, 50) | st.sampled_from([MAX, MAX + 1, MAX // 2, MAX // 8, MAX // 8 + 1])


@given(st.builds(Usage, **{name: counts for name in Usage.__struct_fields__ if name not in {"estimated", "service_tier"}}))
def test_cleaning_is_done_once(usage: Usage) -> None:
    """Whatever came in, the result is possible: no count below 0, no part larger than its whole, and clean() agrees."""
    result = clean(usage)
    assert clean(result) is result
    assert result.cached + result.cache_write_5m + result.cache_write_1h <= result.input
    assert result.audio_input + result.image_input <= result.input
    assert result.reasoning + result.audio_output + result.image_output <= result.output
    assert all(getattr(result, name) >= 0 for name in Usage.__struct_fields__ if name not in {"service_tier", "reported_cost"})
