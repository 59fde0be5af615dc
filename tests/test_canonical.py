"""Losses are told, signatures are sealed: nothing gets lost between two dialects without a word."""

from __future__ import annotations

import base64

from hypothesis import given, strategies as st

from aigw.canonical import Losses, Request, seal, unseal


@given(st.text(min_size=1), st.sampled_from(["anthropic_messages", "gemini", "openai_responses"]))
def test_a_sealed_signature_is_known_again(signature: str, origin: str) -> None:
    signature = signature.encode("utf-8", "replace").decode()
    sealed = seal(signature, origin, "openai_chat")
    assert base64.b64decode(sealed, validate=True), "callers take it for one of their own: base64"
    assert unseal(sealed, "openai_chat") == (origin, signature)


def test_a_signature_of_the_callers_own_dialect_stays_as_it_is() -> None:
    assert seal("c2ln", "gemini", "gemini") == "c2ln"
    assert unseal("c2ln", "gemini") == ("gemini", "c2ln")
    assert seal("", "gemini", "openai_chat") == ""


@given(st.text())
def test_whatever_callers_send_back_is_read(text: str) -> None:
    assert unseal(text, "openai_chat") == ("openai_chat", text)


def test_what_only_looks_sealed_is_left_alone() -> None:
    for text in ("YWlnd", "YWlndw==", "YWlnd!", base64.b64encode(b"aigw-not-ours").decode()):
        assert unseal(text, "gemini") == ("gemini", text)


def test_losses_are_named_once_as_the_caller_spells_them() -> None:
    losses = Losses({"seed": "generationConfig.seed"})
    assert not losses
    for field in ("seed", "top_k", "seed"):
        losses.add(field)
    assert list(losses) == ["generationConfig.seed", "top_k"]
    assert losses.header() == "generationConfig.seed,top_k"


def test_the_header_stays_a_header() -> None:
    losses = Losses()
    losses.add("bad\r\nx-evil: 1,ü")
    assert losses.header() == "bad??x-evil:?1??"
    for number in range(300):
        losses.add(f"field{number}")
    header = losses.header()
    assert len(header) <= 1004
    assert header.endswith(",...")


def test_requests_share_nothing() -> None:
    one, two = (Request(dialect="d", model="m", messages=[]) for _ in range(2))
    one.extras["x"] = 1
    one.stop.append("y")
    assert (two.extras, two.stop) == ({}, [])
