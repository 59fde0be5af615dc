"""Secrets do not survive in what a provider says, whatever form it says them in."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies

from aigw.providers.redact import BODY_LIMIT, Redactor

SECRET = "sk-live+Ab/cd=0123456789xyz"
REDACTOR = Redactor([SECRET, "plain-office-secret"])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"),
        json.dumps(SECRET)[1:-1],
        SECRET.replace("/", "\\/"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.b64encode(b"ab" + SECRET.encode() + b"tail").decode(),
        SECRET.encode().hex(),
        "plain-office-secret",
    ],
)
def test_known_secrets(form: str) -> None:
    """Raw, in URLs, in JSON, in base64 at any alignment, in hex."""
    cleaned = REDACTOR.clean(f'{{"error":"you sent {form} to us"}}'.encode()).decode()
    assert "[redacted]" in cleaned
    middle = len(form) // 2
    assert form[middle - 5 : middle + 5] not in cleaned
    assert cleaned.startswith('{"error":"you sent ')
    assert cleaned.endswith(' to us"}')


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop",
        "sk-ant-api03-AAAA_bbbb-cccc",
        "sk-ab***************wxyz",
        "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "gsk_abcdefghijklmnopqrst1234",
        "xai-abcdefghijklmnopqrstuvwx",
        "hf_abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwx",
        "AKIAIOSFODNN7EXAMPLE1",
        "0123456789abcdef0123456789abcdef.ABCdef0123456789",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "Bearer 0123456789abcdef",
        "****abcd",
    ],
)
def test_what_looks_like_a_key(key: str) -> None:
    """Keys that are not ours (another tenant's, a masked one) go as well."""
    assert Redactor([]).clean(f'{{"m":"bad key {key}, sorry"}}'.encode()) == b'{"m":"bad key [redacted], sorry"}'


@pytest.mark.parametrize(
    "text",
    [
        '{"error":{"message":"Bearer authentication is required","type":"invalid_request_error","code":"key_missing"}}',
        "The model sk-1 was not found; max_tokens must be at most 8192, got 100000",
        "context_length_exceeded: 200000 > 128000 at 2026-11-23T10:00:00Z, request req_0123456789abcdef",
    ],
)
def test_plain_words_stay(text: str) -> None:
    """Codes and numbers are what a caller needs."""
    assert REDACTOR.clean(text.encode()) == text.encode()


def test_placeholders_are_no_secrets() -> None:
    """A local server's key "x" is not worth ruining its messages."""
    assert Redactor(["x", ""]).clean(b"exact text") == b"exact text"


@settings(max_examples=60)
@given(strategies.integers(min_value=-80, max_value=80))
def test_a_cut_leaves_no_half(shift: int) -> None:
    """Wherever the limit falls in a secret, no part of it is left."""
    secret = "office-secret-0123456789"
    body = b"." * (BODY_LIMIT + shift - 12) + secret.encode() * 400
    cleaned = Redactor([secret]).clean(body)
    assert len(cleaned) <= BODY_LIMIT
    assert b"office" not in cleaned
    assert b"0123" not in cleaned


def test_many_secrets_that_shrink_do_not_pull_the_end_in() -> None:
    """Replacing shortens: what lies beyond the part that was looked at never enters."""
    secret = "s" + "0123456789" * 30
    cleaned = Redactor([secret]).clean((secret * 2000).encode())
    assert b"0123" not in cleaned


def test_nothing_is_shown() -> None:
    """A redactor in a traceback shows nothing."""
    assert SECRET not in repr(REDACTOR)
