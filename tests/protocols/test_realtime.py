"""What is read of a realtime session: sub-protocols, close codes, usage."""

from __future__ import annotations

import json

import pytest

from aigw.exchange import Origin, Usage
from aigw.protocols import realtime
from aigw.protocols.realtime import Handshake, Offer, Told


@pytest.mark.parametrize(
    ("header", "offer"),
    [
        ("", Offer()),
        ("realtime", Offer("realtime")),
        ("realtime, openai-insecure-api-key.sk-1, openai-organization.o, openai-project.p", Offer("realtime", "sk-1")),
        ("openai-insecure-api-key.ek_1,openai-beta.realtime-v1,realtime", Offer("realtime", "ek_1", "realtime=v1")),
        ("openai-insecure-api-key.sk-1", Offer("", "sk-1")),
        ("openai-organization.o", Offer()),
        ("chat", Offer("chat")),
        (" , ,", Offer()),
    ],
)
def test_what_a_browser_offers(header: str, offer: Offer) -> None:
    """The key is found, and never what is answered."""
    assert realtime.offered(header) == offer


def test_query() -> None:
    """The model under the provider's own parameter; a call that is joined, or transcriptions, go on instead."""
    assert realtime.query("gpt-realtime 2", {}) == "model=gpt-realtime+2"
    assert realtime.query("mine", {"model": "theirs", "key": "k"}, parameter="deployment") == "deployment=mine"
    assert realtime.query("m", {"intent": "transcription"}) == "intent=transcription"
    assert realtime.query("m", {"call_id": "rtc_1", "intent": ""}) == "call_id=rtc_1"


@pytest.mark.parametrize(
    ("came", "goes"),
    [(1000, 1000), (1001, 1001), (1005, 1000), (1006, 1011), (1008, 1008), (1015, 1011), (3000, 3000), (None, 1011), (7, 1011)],
)
def test_close_codes(came: int | None, goes: int) -> None:
    """What may be sent is passed on; no close frame at all is an error of whoever left so."""
    assert realtime.passed_on(came) == goes


def test_a_reason_fits_its_frame() -> None:
    """123 bytes, and no half character."""
    assert realtime.reason("short") == b"short"
    assert realtime.reason("象" * 100) == "象".encode() * 41


def done(usage: object) -> bytes:
    return json.dumps({"event_id": "e", "type": "response.done", "response": {"output": [], "usage": usage}}).encode()


def test_usage_of_an_answer() -> None:
    """The parts are parts: input includes what was cached, and audio."""
    usage = {
        "total_tokens": 150,
        "input_tokens": 100,
        "output_tokens": 50,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 80, "image_tokens": 10, "cached_tokens": 64},
        "output_token_details": {"text_tokens": 20, "audio_tokens": 30},
    }
    expected = Usage(input=100, output=50, cached=64, audio_input=80, image_input=10, audio_output=30)
    assert realtime.told(done(usage)) == Told(expected, billed=True)
    theirs = {name.replace("token_details", "tokens_details"): value for name, value in usage.items()}
    assert realtime.told(done(theirs)).usage == expected  # DashScope


def test_usage_of_a_transcription() -> None:
    """Counted in tokens it counts; counted in seconds there are no tokens."""
    event = {"type": "conversation.item.input_audio_transcription.completed", "transcript": "hi"}
    tokens = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "input_token_details": {"audio_tokens": 14}}
    assert realtime.told(json.dumps(event | {"usage": tokens}).encode()).usage == Usage(input=14, output=3, audio_input=14)
    assert realtime.told(json.dumps(event | {"usage": {"type": "duration", "seconds": 3}}).encode()) == Told()


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"response.done",
        b'{"type":"response.output_text.delta","delta":"response.done"}',
        b'{"type":"response.done","response":[]}',
        b"[" * 10000 + b'"response.done"',
        b'{"type":"session.created","session":{}}',
    ],
)
def test_what_says_nothing(event: bytes) -> None:
    """Other events, and what is no event, are passed on and teach nothing."""
    assert realtime.told(event) == Told()


def test_an_answer_without_usage_is_still_an_answer() -> None:
    assert realtime.told(done(None)) == Told(billed=True)


def test_model() -> None:
    assert realtime.told(b'{"type":"session.created","session":{"model":"gpt-realtime-2.1"}}') == Told(model="gpt-realtime-2.1")


def test_sum() -> None:
    """All counts of both."""
    one = Usage(input=1, cached=2, output=3, reasoning=4, audio_input=5, audio_output=6, image_input=7)
    assert realtime.added(one, one) == Usage(
        input=2, cached=4, output=6, reasoning=8, audio_input=10, audio_output=12, image_input=14
    )
    assert realtime.added(Usage(estimated=True), one).estimated


def test_a_handshake_tells_no_key() -> None:
    shown = repr(Handshake(Origin("https", "host", 443), "/v1/realtime?key=sk-1", {"authorization": "Bearer sk-1"}))
    assert "sk-1" not in shown
