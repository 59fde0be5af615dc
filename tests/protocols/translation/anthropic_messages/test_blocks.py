"""What requests and answers share."""

from __future__ import annotations

import pytest

from aigw.canonical import Citation, Finish, Spent, Thinking
from aigw.protocols.translation.anthropic_messages import blocks


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking("a", "c2ln", origin=blocks.DIALECT),
        Thinking(hidden="aGlk", origin=blocks.DIALECT),
        Thinking("a", "c2ln", origin="gemini"),
        Thinking(hidden="aGlk", origin="openai_responses"),
        Thinking("a", "", "aGlk", "openai_responses", "rs_1"),
        Thinking("", "", "aGlk", "openai_responses", "rs_1"),
        Thinking("a"),
    ],
)
def test_thoughts_come_back_as_they_went(thinking: Thinking) -> None:
    """Whoever signed them, whatever he wants back."""
    block = blocks.thought(thinking)
    redacted = block["type"] == "redacted_thinking"
    found = blocks.unsealed(block.get("thinking", ""), block["data" if redacted else "signature"], redacted=redacted)
    assert found.thinking == thinking


def test_a_thought_without_signature_has_an_empty_one() -> None:
    """The member must be there."""
    assert blocks.thought(Thinking("a", origin="openai_chat")) == {"type": "thinking", "thinking": "a", "signature": ""}


def test_a_seal_that_was_tampered_with_breaks_nothing() -> None:
    """It is a thought without its proof."""
    proof = blocks.seal("{not json", "openai_responses+whole", blocks.DIALECT)
    assert blocks.unsealed("a", proof, redacted=False).thinking == Thinking("a", origin="openai_responses")


@pytest.mark.parametrize(
    ("finish", "called", "refused", "wanted"),
    [
        ("stop", False, False, "end_turn"),
        ("stop", True, False, "tool_use"),
        ("tool_calls", False, False, "end_turn"),
        ("length", True, False, "max_tokens"),
        ("content_filter", False, False, "refusal"),
        ("stop", False, True, "refusal"),
    ],
)
def test_ends(finish: Finish, called: bool, refused: bool, wanted: str) -> None:
    """What was done counts, not what the host said of it."""
    assert blocks.stop_reason(finish, None, called=called, refused=refused) == wanted


def test_a_stop_sequence() -> None:
    """Is an end of its own."""
    assert blocks.stop_reason("stop", "END", called=False, refused=False) == "stop_sequence"


def test_usage_counts_the_cache_apart() -> None:
    """Adding the three gives the whole input again."""
    found = blocks.usage_object(Spent(100, 60, 10, 5, 7, 3), "default")
    assert found["input_tokens"] + found["cache_read_input_tokens"] + found["cache_creation_input_tokens"] == 100
    assert found["cache_creation"] == {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 5}
    assert (found["output_tokens"], found["output_tokens_details"]) == (7, {"thinking_tokens": 3})
    assert found["service_tier"] == "standard"
    assert blocks.usage_object(Spent(1, 60))["input_tokens"] == 0


def test_citations() -> None:
    """There and back; one without an address has no word."""
    cited = Citation("https://x.example", "T", "words")
    assert blocks.citation_of(blocks.citation_object(cited)) == cited
    assert blocks.citation_object(Citation(title="T")) is None
    assert blocks.citation_of("x") is None
