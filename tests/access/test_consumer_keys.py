from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given, strategies as st

from aigw.access.consumer_keys import BASE62, PATTERN, digest, id_in, looks_valid, mint, new_id


def test_shape() -> None:
    """A key has our prefix, its public id, and the exact pattern that leak scanners are given."""
    key, stored = mint("c1", now=1000.0, expires=2000.0)
    assert re.fullmatch(PATTERN, key)
    assert key.startswith(f"sk-aigw-{stored.id}-")
    assert len(key) == 57
    assert (stored.consumer_id, stored.scheme, stored.created, stored.expires, stored.revoked) == (
        "c1",
        "sha256",
        1000.0,
        2000.0,
        None,
    )


def test_nothing_of_the_secret_is_stored() -> None:
    """What is stored is the SHA-256 of the whole key and its public part, so a stolen database opens nothing."""
    key, stored = mint("c1", now=0.0)
    secret = key.rpartition("-")[2]
    assert stored.digest == hashlib.sha256(key.encode()).digest() == digest(key)
    assert secret not in repr(stored)
    assert stored.hint == f"sk-aigw-{stored.id}"


def test_keys_differ() -> None:
    """Every key is its own: ids and secrets come from the system's random source, and use the whole alphabet."""
    keys = [mint("c", now=0.0)[0] for _ in range(2000)]
    assert len(set(keys)) == 2000
    assert len({key.split("-")[2] for key in keys}) == 2000
    assert set("".join(key.split("-")[3] for key in keys)) == set(BASE62)


@given(st.data())
def test_a_typo_is_seen(data: st.DataObject) -> None:
    """One wrong character, two swapped ones or a cut-off end are told from a key we merely do not know."""
    key, _ = mint("c", now=0.0)
    at = data.draw(st.integers(len("sk-aigw-"), len(key) - 1))
    if key[at] != "-":
        other = data.draw(st.sampled_from([character for character in BASE62 if character != key[at]]))
        assert not looks_valid(key[:at] + other + key[at + 1 :])
    if at + 1 < len(key) and key[at] != key[at + 1]:
        assert not looks_valid(key[:at] + key[at + 1] + key[at] + key[at + 2 :])
    assert not looks_valid(key[:at])
    assert not looks_valid(key + "a")
    assert looks_valid(key)


@pytest.mark.parametrize("text", ["", "sk-aigw-", "sk-proj-abc", "sk-aigw-x-" + "0" * 38, "\ud800", "k" * 100_000, "密钥"])
def test_anything_may_be_asked(text: str) -> None:
    """No text is too strange to be looked at, or hashed."""
    assert not looks_valid(text)
    assert len(digest("".join(c for c in text if not 0xD800 <= ord(c) < 0xDC80))) == 32


def test_id_in() -> None:
    """A key is named by its id; who pastes the key or its hint means the same."""
    key, stored = mint("c", now=0.0)
    assert id_in(key) == id_in(stored.hint) == id_in(stored.id) == stored.id
    assert re.fullmatch("[0-9a-z]{10}", new_id())
