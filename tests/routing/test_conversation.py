"""A conversation has one key in all of its turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.routing.conversation import conversation


def key(**body: Any) -> bytes:
    return conversation(json.dumps({"model": "m"} | body).encode())


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize("name", ["messages", "input"])
def test_turns_of_one_conversation(name: str) -> None:
    """Later turns only add to what was said; another first question, or other instructions, are another conversation."""
    first = [said("system", "be brief"), said("user", "hello")]
    later = [*first, said("assistant", "hi"), said("user", "and now?")]
    assert key(**{name: first}) == key(**{name: later}, temperature=1)
    assert key(**{name: first}) != key(**{name: [said("system", "be brief"), said("user", "good day")]})
    assert key(**{name: first}) != key(**{name: [said("system", "be long"), said("user", "hello")]})


def test_instructions_beside_the_messages() -> None:
    """Anthropic's `system` and OpenAI's `instructions` count."""
    turns = [said("user", "hello")]
    assert len({key(messages=turns), key(messages=turns, system="a"), key(input=turns, instructions="b")}) == 3


def test_a_conversation_with_a_name() -> None:
    """Where the request names it, its words do not matter."""
    assert (
        key(input="one", conversation="conv_1")
        == key(input="two", conversation="conv_1")
        != key(input="one", conversation="c2")
    )
    assert key(messages=[said("user", "a")], prompt_cache_key="k") == key(messages=[said("user", "b")], prompt_cache_key="k")


def test_what_is_no_conversation() -> None:
    """Bare text is its own; nonsense has no key and raises nothing."""
    assert key(prompt="a") == key(prompt="a") != key(prompt="b")
    assert conversation(b"{") == conversation(b"[]") == conversation(b'{"model": "m"}') == b""
    assert key(messages=[1, "x", {"role": 3}]) == key(messages=[1, "x", {"role": 3}])
    assert isinstance(conversation(b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}"), bytes)
