"""Gemini's dialect: what is read of requests and answers, its streams in both framings, and our errors in its words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from aigw.errors import CODES, CallerError, GatewayError, InternalError, PolicyError, UpstreamError
from aigw.exchange import Usage
from aigw.protocols import DIALECTS, framing
from aigw.protocols.gemini import ArrayReader, ArrayTap, Gemini, GeminiArray, GeminiTap, rename
from tests.recordings import RECORDINGS

GEMINI = DIALECTS["gemini"]


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b"{}", None),
        (b'{"contents":[],"generationConfig":{"maxOutputTokens":100}}', 100),
        (b'{"generation_config":{"max_output_tokens":100.0}}', 100),
        (b'{"generationConfig":null,"x":1e400}', None),
    ],
)
def test_a_request_is_read(body: bytes, limit: int | None) -> None:
    """Its body says neither model nor stream: the path does. The limit is found in both spellings."""
    asked = GEMINI.read_request(body)
    assert (asked.model, asked.stream, asked.max_tokens) == ("", False, limit)


@pytest.mark.parametrize("body", [b"", b"[]", b"hunter2", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":"\xff"'])
def test_a_wrong_request(body: bytes) -> None:
    """Is refused without repeating it."""
    with pytest.raises(CallerError) as caught:
        GEMINI.read_request(body)
    assert caught.value.code == "caller_invalid_json"
    assert "hunter2" not in caught.value.message


def test_a_wrong_limit() -> None:
    """Is named."""
    with pytest.raises(CallerError) as caught:
        GEMINI.read_request(b'{"generationConfig":{"maxOutputTokens":"many"}}')
    assert caught.value.param == "generationConfig.maxOutputTokens"


def test_usage_counts_thoughts_beside_the_candidates_unless_the_total_says_otherwise() -> None:
    """The Gemini API counts them beside, some servers inside; tools' tokens are part of the prompt."""
    beside = b'{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":18}}'
    inside = b'{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":15}}'
    tools = (
        b'{"usageMetadata":{"promptTokenCount":10,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"totalTokenCount":22}}'
    )
    assert GEMINI.read_answer(beside).usage == Usage(input=10, output=8, reasoning=3)
    assert GEMINI.read_answer(inside).usage == Usage(input=10, output=5, reasoning=3)
    assert GEMINI.read_answer(tools).usage == Usage(input=17, output=5)


def test_usage_by_modality() -> None:
    """Audio and images are counted apart, too."""
    details = [
        {"modality": "AUDIO", "tokenCount": 4},
        {"modality": "IMAGE", "tokenCount": 5},
        {"modality": "TEXT", "tokenCount": 1},
    ]
    made = [{"modality": "IMAGE", "tokenCount": 6}]
    body = {"promptTokenCount": 10, "candidatesTokenCount": 6, "promptTokensDetails": details, "candidatesTokensDetails": made}
    usage = GEMINI.read_answer(json.dumps({"usageMetadata": body}).encode()).usage
    assert usage == Usage(input=10, audio_input=4, image_input=5, output=6, image_output=6)


def test_a_count_of_tokens_is_free() -> None:
    """What it counts was not used."""
    assert GEMINI.read_answer(b'{"totalTokens":31}').usage == Usage()
    assert GEMINI.read_answer(b'{"embedding":{"values":[1]}}').usage is None


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"null", b'{"a":', b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_no_answer(body: bytes) -> None:
    """What is no JSON object is no answer."""
    with pytest.raises(ValueError, match="JSON"):
        GEMINI.read_answer(body)


def test_a_new_name_for_the_model_reaches_every_place_that_has_one() -> None:
    """Top level, requests of a batch, a count's inner request; other bodies keep their bytes."""
    body = b'{"model":"models/a","requests":[{"model":"models/a","x":1}],"generateContentRequest":{"model":"models/a"}}'
    renamed = json.loads(rename(body, "b"))
    assert renamed["model"] == renamed["requests"][0]["model"] == renamed["generateContentRequest"]["model"] == "models/b"
    assert rename(b'{"contents" : []}', "b") == b'{"contents" : []}'


# --- streams ---

STREAMS = [recording for recording in RECORDINGS if recording.dialect == "gemini"]


def array_of(stream: bytes) -> bytes:
    """A recorded stream as Gemini writes it without `alt=sse`."""
    return b"[" + b",\r\n".join(framing.data(event) for event in framing.split(stream)) + b"\n]"


@pytest.mark.parametrize("recording", STREAMS, ids=lambda recording: recording.name)
@given(st.data())
def test_an_array_tells_what_its_events_would(recording, data) -> None:  # type: ignore[no-untyped-def]
    """Cut anywhere: bytes go through untouched, the same is told, an error is found before it has passed."""
    whole = array_of(recording.stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    tap = ArrayTap()
    sent = b""
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        sent += tap.look(whole[start:end])
        if tap.failed:
            break
    assert tap.told.usage == recording.usage
    assert (tap.told.model, tap.told.finish_reason) == (recording.model, recording.finish_reason)
    if recording.error_event is None:
        assert sent + tap.last == whole
        assert tap.last.endswith(b"]")
    else:
        assert json.loads(tap.failed)["error"]["status"] == "UNAVAILABLE"
        assert b"overloaded" not in sent


def test_an_array_with_brackets_and_quotes_in_its_strings() -> None:
    """They are no structure."""
    element = json.dumps({"text": 'a]}[{"\\', "more": ["[", {"x": []}]}).encode()
    reader = ArrayReader()
    found = [one for byte in b"[" + element + b" , " + element + b"]" for one, _ in reader.feed(bytes([byte]))]
    assert found == [element, element, b""]
    assert reader.ended


def test_an_element_without_end_is_passed_on() -> None:
    """Nothing is held beyond bounds."""
    tap = ArrayTap()
    piece = b"x" * (8 * 1024 * 1024)
    sent = len(tap.look(b'[{"a":"')) + sum(len(tap.look(piece)) for _ in range(10))
    assert sent == 7 + 10 * len(piece)


def test_the_first_token_is_content() -> None:
    """Neither a block nor an empty beginning is."""
    tap = GeminiTap()
    tap.look(b'data: {"usageMetadata":{"promptTokenCount":1}}\n\n')
    assert not tap.begun
    tap.look(b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n')
    assert tap.begun


# --- our errors ---


def an_error(code: str, **more: object) -> GatewayError:
    kind = {"caller": CallerError, "policy": PolicyError, "provider": UpstreamError, "gateway": InternalError}
    return kind[code.partition("_")[0]](code, 'It said "no".\n海', **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dialect", [Gemini(), GeminiArray()], ids=["events", "array"])
def test_every_error_is_rendered(code: str, dialect: Gemini) -> None:
    """As an answer and as the end of a stream: number, message, google.rpc's status, our code, our request id."""
    error = an_error(code)
    inner = json.loads(dialect.render_error(error, "req_1"))["error"]
    assert (inner["code"], inner["message"], inner["status"]) == (error.status, error.message, CODES[code].gemini_status)
    assert (inner["aigw_code"], inner["request_id"]) == (code, "req_1")
    event = dialect.render_error_event(error, "req_1")
    if isinstance(dialect, GeminiArray):
        assert json.loads(b'[{"a":1}' + event)[1]["error"] == inner
    else:
        tap = dialect.tap(hide_usage=False)
        assert tap.look(event) == b""
        assert json.loads(tap.failed)["error"] == inner


def test_when_to_come_back_is_said_as_google_does() -> None:
    """Its SDKs and its CLI read RetryInfo."""
    inner = json.loads(GEMINI.render_error(an_error("policy_rate_limited", retry_after=7.4), "r"))["error"]
    assert inner["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]


def test_a_providers_own_status_and_details_are_kept() -> None:
    """Callers branch on them; but what concerns our credentials is never theirs."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "X"}]
    body = json.dumps([{"error": {"code": 400, "status": "FAILED_PRECONDITION", "details": details}}]).encode()
    inner = json.loads(GEMINI.render_error(an_error("provider_rejected", body=body), "r"))["error"]
    assert (inner["status"], inner["details"]) == ("FAILED_PRECONDITION", details)
    inner = json.loads(GEMINI.render_error(an_error("provider_credentials_invalid", body=body), "r"))["error"]
    assert (inner["status"], inner["details"]) == ("UNAVAILABLE", [])


@pytest.mark.parametrize("body", [b"x", b"[]", b'"x"', b"null", b'{"error":"t"}', b'{"error":null}', b'{"error":{"status":7}}'])
def test_a_providers_own_error_of_any_kind(body: bytes) -> None:
    """Nothing it may send keeps the caller from an answer."""
    inner = json.loads(GEMINI.render_error(an_error("provider_rejected", body=body), "r"))["error"]
    assert inner["status"] == "INVALID_ARGUMENT"
