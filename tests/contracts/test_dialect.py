"""What every dialect must do. A new one joins by its line in `DIALECTS`, and by its recordings under tests/wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from aigw.errors import CODES, CallerError, GatewayError, InternalError, PolicyError, UpstreamError
from aigw.protocols import DIALECTS, framing
from aigw.protocols.dialect import Dialect
from aigw.protocols.operations import OPERATIONS, RAW
from tests.recordings import RECORDINGS, Recording

SECRET = "hunter2"  # stands in every wrong body, and may stand in no complaint


# Gemini's requests name no model and its answers call everything otherwise: tests/protocols/test_gemini.py asks it the same.
ALIKE = [name for name, dialect in DIALECTS.items() if dialect.names_model == "model"]


@pytest.fixture(params=ALIKE)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def test_names() -> None:
    """A dialect is found by its own name; every operation's dialect is there, and every dialect has recordings."""
    assert all(dialect.name == name for name, dialect in DIALECTS.items())
    assert {operation.dialect for operation in OPERATIONS.values() if operation.door} == set(DIALECTS) - {RAW.dialect}
    assert {recording.dialect for recording in RECORDINGS} == set(DIALECTS) - {
        "gemini_array",
        RAW.dialect,
    }  # no stream of events


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"m"}', "m", False),
        (b' {"stream" : true , "model" : "m"}\n', "m", True),
        (b'{"model":"m","stream":false}', "m", False),
        (b'{"model":"m","stream":null}', "m", False),
        ('{"model":"模型/🐟"}'.encode(), "模型/🐟", False),
        (b'{"mod\\u0065l":"m","\\u0073tream":true}', "m", True),
        (b'{"model":"a\\/b"}', "a/b", False),
        (b'{"model":"m","messages":[{"model":"x","stream":true}],"n":1e400,"big":123456789012345678901234567890}', "m", False),
        (b'{"model":"m","text":"\xff\xfe"}', "m", False),
        (b'{"model":"m","max_tokens":null,"max_completion_tokens":null,"max_output_tokens":null,"metadata":null}', "m", False),
        (b'{"model":"m","user":7,"metadata":[],"safety_identifier":{}}', "m", False),
        (b'{"model":""}', "", False),
    ],
)
def test_a_request_is_read(dialect: Dialect, body: bytes, model: str, stream: bool) -> None:
    """The model and whether it streams, in every spelling; what need not be known may be anything."""
    asked = dialect.read_request(body)
    assert (asked.model, asked.stream, asked.max_tokens, asked.end_user) == (model, stream, None, "")


DEEP = b'{"model":"m","x":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    ("body", "code", "words", "param"),
    [
        (b"", "caller_invalid_json", "not valid JSON", None),
        (b"hunter2", "caller_invalid_json", "not valid JSON", None),
        (b'{"model":"hunter2"', "caller_invalid_json", "not valid JSON", None),
        (b'{"model":"m"} hunter2', "caller_invalid_json", "not valid JSON", None),
        (b"{'model':'hunter2'}", "caller_invalid_json", "not valid JSON", None),
        (b'\xef\xbb\xbf{"model":"hunter2"}', "caller_invalid_json", "not valid JSON", None),
        ('{"model":"hunter2"}'.encode("utf-16"), "caller_invalid_json", "not valid JSON", None),
        (b'{"model":"hunter2\xff"}', "caller_invalid_json", "not valid JSON", None),
        (b'{"model":"hunter2\\ud800"}', "caller_invalid_json", "not valid JSON", None),
        (b'{"model":"hunter2\x01"}', "caller_invalid_json", "not valid JSON", None),
        (b"\x00", "caller_invalid_json", "not valid JSON", None),
        (DEEP, "caller_invalid_json", "nested too deeply", None),
        (b'["hunter2"]', "caller_invalid_json", "must be a JSON object", None),
        (b'"hunter2"', "caller_invalid_json", "must be a JSON object", None),
        (b"null", "caller_invalid_json", "must be a JSON object", None),
        (b"7", "caller_invalid_json", "must be a JSON object", None),
        (b"{}", "caller_invalid_request", "no `model`", "model"),
        (b'{"Model":"hunter2"}', "caller_invalid_request", "no `model`", "model"),
        (b'{"model":null}', "caller_invalid_request", "`model` must be a string, not null", "model"),
        (b'{"model":1}', "caller_invalid_request", "`model` must be a string, not a number", "model"),
        (b'{"model":1.5}', "caller_invalid_request", "`model` must be a string, not a number", "model"),
        (b'{"model":true}', "caller_invalid_request", "`model` must be a string, not true or false", "model"),
        (b'{"model":["hunter2"]}', "caller_invalid_request", "`model` must be a string, not a list", "model"),
        (b'{"model":{"hunter2":1}}', "caller_invalid_request", "`model` must be a string, not an object", "model"),
        (b'{"model":"m","stream":"hunter2"}', "caller_invalid_request", "`stream` must be true or false, not a str", "stream"),
        (b'{"model":"m","stream":1}', "caller_invalid_request", "`stream` must be true or false, not a number", "stream"),
    ],
)  # fmt: skip
def test_a_wrong_request(dialect: Dialect, body: bytes, code: str, words: str, param: str | None) -> None:
    """Says what is wrong in words a person can act on, names the field, and repeats nothing of the body."""
    with pytest.raises(CallerError) as caught:
        dialect.read_request(body)
    error = caught.value
    assert (error.code, error.status, error.param) == (code, 400, param)
    assert words in error.message
    assert SECRET not in error.message
    assert error.message.endswith(".")
    assert error.__cause__ is None


LIMITS = {"openai_chat": "max_completion_tokens", "openai_responses": "max_output_tokens", "anthropic_messages": "max_tokens"}


@pytest.mark.parametrize(("number", "limit"), [("100", 100), ("100.0", 100), ("0", 0), ("1e3", 1000)])
def test_a_limit_of_tokens(dialect: Dialect, number: str, limit: int) -> None:
    """A whole number, however it is written."""
    body = f'{{"model":"m","{LIMITS[dialect.name]}":{number}}}'.encode()
    assert dialect.read_request(body).max_tokens == limit


@pytest.mark.parametrize(
    ("value", "words"), [('"100"', "a number, not a string"), ("[1]", "a number, not a list"), ("1e400", "range")]
)
def test_a_wrong_limit_of_tokens(dialect: Dialect, value: str, words: str) -> None:
    """Named, with what it should be."""
    field = LIMITS[dialect.name]
    with pytest.raises(CallerError) as caught:
        dialect.read_request(f'{{"model":"m","{field}":{value}}}'.encode())
    assert caught.value.param == field
    assert words in caught.value.message


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"null", b'"x"', b"7", b"<html>", b'{"a":', b"\xff", b'{"usage":\xff}'])
def test_no_answer(dialect: Dialect, body: bytes) -> None:
    """What is no JSON object is no answer."""
    with pytest.raises(ValueError, match="JSON"):
        dialect.read_answer(body)


def test_a_bottomless_answer(dialect: Dialect) -> None:
    """Nor is what nobody could read."""
    with pytest.raises(ValueError, match="JSON"):
        dialect.read_answer(b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}")


@pytest.mark.parametrize(
    "oddity", [rb'"\ud83d"', rb'"\udc1f\ud83d x"', b"NaN", b"-Infinity", b'"\xff"', b"1e400", b'"\\u0000"']
)
def test_an_answer_with_oddities(dialect: Dialect, oddity: bytes) -> None:
    """Half a surrogate pair, NaN, bytes that are no UTF-8: what callers can read is an answer, and its usage counts."""
    told = dialect.read_answer(b'{"model":"m","x":[%b],"usage":{"input_tokens":3,"output_tokens":4}}' % oddity)
    assert told.usage is not None
    assert (told.model, told.usage.input, told.usage.output) == ("m", 3, 4)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.just(10**30) | st.just("x") | st.just(-1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["input_tokens", "usage"]), inner, max_size=2),
    max_leaves=4,
)
FIELDS = """model usage choices finish_reason stop_reason status service_tier x_groq meta response message delta type error
    incomplete_details prompt_tokens completion_tokens input_tokens output_tokens total_tokens prompt_tokens_details
    cache_creation cache_read_input_tokens cache_creation_input_tokens cached_tokens cost object role content""".split()  # noqa: SIM905 - thirty quoted words read worse
ANY = st.dictionaries(st.sampled_from(FIELDS), ODD | st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4), max_size=6)


@given(ANY)
def test_odd_types_never_crash(answer: dict[str, Any]) -> None:
    """A host may put anything anywhere: it is read or passed over, as an answer and in a stream."""
    body = json.dumps(answer).encode()
    event = b"data: " + json.dumps(answer, separators=(",", ":")).encode() + b"\n\n"
    for dialect in map(DIALECTS.__getitem__, [*ALIKE, "gemini"]):
        told = dialect.read_answer(body)
        assert isinstance(told.model, str)
        assert isinstance(told.finish_reason, str)
        tap = dialect.tap(hide_usage=True)
        assert tap.look(event) in (event, b"")


@pytest.mark.parametrize("text", [b"\xff", b"\\ud800", b"\x01"])
def test_text_that_is_none(dialect: Dialect, text: bytes) -> None:
    """Bytes that are no Unicode go by untouched in a stream, wherever they stand; in an error event they stop nothing."""
    for member in (b'"model":"%b"', b'"usage":{"%b":1}', b'"choices":[{"finish_reason":"%b"}]', b'"response":{"model":"%b"}'):
        event = b'data: {"type":"message_start",' + member % text + b"}\n\n"
        tap = dialect.tap(hide_usage=False)
        assert tap.look(event) == event
        assert not tap.failed
    tap = dialect.tap(hide_usage=False)
    tap.look(b'data: {"type":"error","error":{"message":"%b"}}\n\n' % text)
    assert tap.failed or text != b"\xff"  # the others are no strict JSON, and go by as they are


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: f"{recording.dialect}-{recording.name}")
@pytest.mark.parametrize("hide_usage", [True, False], ids=["hide", "show"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "events"])
def test_recordings(recording: Recording, hide_usage: bool, whole: bool) -> None:
    """Of each recorded stream: usage, model, finish reason, error; and what is to be sent on."""
    hide_usage = hide_usage and recording.hidden_event is not None  # the walk asks for it in chat and completions alone
    tap = DIALECTS[recording.dialect].tap(hide_usage=hide_usage)
    sent = b""
    for block in [recording.stream] if whole else recording.events:
        sent += tap.look(block)
        if tap.failed or tap.last:
            break
    assert not sent.endswith(tap.last or b"\0")  # the event that ends a stream is the walk's to send
    sent += tap.last
    assert sent == recording.shown(hide_usage=hide_usage)
    assert tap.told.usage == recording.usage
    assert tap.told.model == recording.model
    assert tap.told.finish_reason == recording.finish_reason
    failed = None if recording.error_event is None else framing.data(recording.events[recording.error_event])
    assert tap.failed == (failed or b"")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: f"{recording.dialect}-{recording.name}")
def test_what_is_plain_needs_no_look(recording: Recording) -> None:
    """Of an event that is called plain, a look finds nothing, changes nothing, and keeps nothing back."""
    tap = DIALECTS[recording.dialect].tap(hide_usage=recording.hidden_event is not None)
    for event in recording.events:
        plain = tap.begun and tap.plain(event)
        before = msgspec.structs.astuple(tap.told)
        shown = tap.look(event)
        if plain:
            assert (shown, tap.failed, tap.last) == (event, b"", b"")
            assert msgspec.structs.astuple(tap.told) == before
        if tap.failed or tap.last:
            break


def test_content_is_plain(dialect: Dialect) -> None:
    """Else the short way would never be taken."""
    found = 0
    for recording in RECORDINGS:
        if recording.dialect == dialect.name:
            tap = dialect.tap(hide_usage=False)
            for event in recording.events:
                tap.look(event)
                found += tap.begun and tap.plain(event)
    assert found >= 3


# --- our errors -------------------------------------------------------------------------------------------------------


def an_error(code: str) -> GatewayError:
    kind = {"caller": CallerError, "policy": PolicyError, "provider": UpstreamError, "gateway": InternalError}
    return kind[code.partition("_")[0]](code, 'It said "no".\n海', param="model")


@pytest.mark.parametrize("code", CODES)
def test_every_error_is_rendered(dialect: Dialect, code: str) -> None:
    """As an answer and as the end of a stream: message, our code and our request id, and a type of the dialect's own."""
    error = an_error(code)
    body = json.loads(dialect.render_error(error, "req_1"))
    inner = body["error"]
    assert (inner["message"], inner["aigw_code"]) == (error.message, code)
    assert "req_1" in (body.get("request_id"), inner.get("request_id"))
    known = CODES[code]
    if dialect.name == "anthropic_messages":
        assert (body["type"], inner["type"]) == ("error", known.anthropic_type)
    else:
        assert (inner["type"], inner["code"], inner["param"]) == (known.openai_type, known.openai_code, "model")
    block = dialect.render_error_event(error, "req_1")
    assert block.endswith(b"\n\n")
    assert b"".join(framing.split(block)) == block
    tap = dialect.tap(hide_usage=False)
    assert tap.look(block) == b""  # we would understand ourselves
    event = json.loads(tap.failed)
    assert (event.get("error") or event)["message"] == error.message
    assert "req_1" in tap.failed.decode()


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"[]", b'"x"', b"null", b'{"error":"text"}', b'{"error":null}', b'{"error":{"type":7}}',
     b'{"error":{"type":"\xff"}}', b'{"error":{"type":"\\ud800"}}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b"{}"],
)  # fmt: skip
def test_a_providers_own_error_of_any_kind(dialect: Dialect, body: bytes) -> None:
    """Its words are taken where they can be read; nothing it may send keeps the caller from an answer."""
    error = UpstreamError("provider_rejected", "No.", body=body, upstream_status=400)
    rendered = json.loads(dialect.render_error(error, "req_1"))
    assert rendered["error"]["message"] == "No."
    assert rendered["error"]["type"]


def test_a_providers_own_type_and_code_are_kept(dialect: Dialect) -> None:
    """SDKs branch on them; but what concerns our credentials is never the caller's."""
    theirs = {"type": "billing_hard_limit", "code": "x1", "param": "p", "message": "their words"}
    body = json.dumps({"type": "error", "error": theirs}).encode()
    kept = json.loads(dialect.render_error(UpstreamError("provider_rejected", "No.", body=body), "r"))["error"]
    assert kept["type"] == "billing_hard_limit"
    if dialect.name != "anthropic_messages":
        assert (kept["code"], kept["param"]) == ("x1", "p")
    assert kept["message"] == "No."
    for code in ("provider_credentials_invalid", "provider_credentials_exhausted"):
        hidden = dialect.render_error(UpstreamError(code, "No.", body=body), "r")
        assert b"billing" not in hidden
        assert b"x1" not in hidden
