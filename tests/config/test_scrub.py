"""What outsiders say goes on without our secrets: whole, encoded, cut short or masked; and the rest of it stays as it was."""

from __future__ import annotations

import base64
import html
import json
import re
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from aigw.config import scrub
from aigw.config.scrub import MARK, MOST, Scrubber, forms

ROOT = Path(__file__).parents[2]

KEY = "gw_Ab/cd+ef=0123456789\"xyz&<Q>WERTY'tail"
PASSWORD = "s3cr!t"

SCRUBBER = Scrubber([KEY, PASSWORD])


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        json.dumps(KEY)[1:-1],
        json.dumps(KEY)[1:-1].replace("/", "\\/"),
        KEY.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        quote(KEY, safe=""),
        quote(KEY),
        quote(KEY, safe=":@"),
        html.escape(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(b"u:" + KEY.encode()).decode(),
        base64.b64encode(b"me:" + KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        KEY[:20],
        KEY[10:25],
        KEY[-14:],
        KEY[:4] + "..." + KEY[-4:],
        KEY[:7] + "…" + KEY[-3:],
        KEY[:20] + "****" + KEY[-4:],
        PASSWORD,
    ],
)
@pytest.mark.parametrize("around", ["you sent {} to us", '{{"error":"{}"}}', "https://h/p?key={}&x=1", "{}{}"])
def test_forms(form: str, around: str) -> None:
    """Each way in which software repeats a secret: none of it is left that could help anybody."""
    text = around.format(form, form)
    cleaned = SCRUBBER.text(text)
    assert MARK in cleaned
    assert form not in cleaned
    for at in range(len(form) - 7):
        assert form[at : at + 8] not in cleaned
    before = around.partition("{}")[0].replace("{{", "{")
    assert cleaned.startswith(before)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The model 'gw_Ab' does not exist; s3cr is no key",
        "context_length_exceeded: 200000 > 128000 at 2026-11-23T10:00:00Z, request req_0123456789abcdef...",
        "claude-cli/2.0.1 (external, cli)",
        "accounts/fireworks/models/llama-v3p1-405b-instruct",
        "sk-aigw-4k0zq8d1xm",
        "user_550e8400-e29b-41d4-a716-446655440000",
        "user_0123456789abcdef0123456789abcdef_account__session_fedcba98",
        "pk-12345678901234567890",
        "Bearer authentication is required",
        "喂 \ud800 \x1b[31m",
    ],
)
def test_the_rest_stays(text: str) -> None:
    """Names, ids and plain words are what an operator needs."""
    assert SCRUBBER.text(text) == text
    assert SCRUBBER.name(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "sk-aigw-4k0zq8d1xm-h2VaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA1b",
        "sk-proj-abcDEF0123456789abcdefghij",
        "sk-ant-api03-AAAA_bbbb-cccc0123456789",
        "gsk_abcdefGHIJKL0123456789mnop",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "Bearer 0123456789abcdef",
    ],
)
def test_what_surely_is_a_key(key: str) -> None:
    """Somebody else's, put where a name should be."""
    assert Scrubber().text(f"model {key}, please") == f"model {MARK}, please"


def test_placeholders_are_no_secrets() -> None:
    """A local server's "ollama" is not worth ruining every text that names it."""
    scrubber = Scrubber(["ollama", "EMPTY", "x", "LM-Studio"])
    text = "the provider ollama is EMPTY; lm-studio and LM-Studio are not"
    assert scrubber.text(text) == text
    assert scrubber.knows("ollama")
    assert not scrubber.knows("a-real-one")


def test_what_is_learnt_later() -> None:
    """A reload brings new keys; the old ones are kept, since their answers may still be on the way. What was remembered as
    clean is looked at again."""
    scrubber = Scrubber(["the-first-key-1"])
    text = "the-first-key-1 and the-second-key-2"
    assert scrubber.name(text) == f"{MARK} and the-second-key-2"
    scrubber.learn(["the-second-key-2"])
    assert scrubber.name(text) == f"{MARK} and {MARK}"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither callers who make up names nor an operator who rotates keys fill the memory."""
    scrubber = Scrubber()
    for number in range(10_000):
        scrubber.name(f"name {number}")
    scrubber.name("n" * 10_000)
    assert len(scrubber._names) <= scrub._NAMES
    assert max(map(len, scrubber._names)) <= scrub._LONGEST_NAME
    monkeypatch.setattr(scrub, "MOST", 100)
    for number in range(300):
        scrubber.learn([f"key-number-{number:05d}", "the-one-that-is-always-there"])
    assert len(scrubber._secrets) == 100
    assert scrubber.knows("the-one-that-is-always-there")
    assert scrubber.knows("key-number-00299")
    assert not scrubber.knows("key-number-00001")
    assert MOST == 10_000


def test_many_keys_of_one_vendor() -> None:
    """Their common beginning is not searched for key by key, and each is still found: whole, and in part."""
    keys = [f"sk-vendor-api03-{number:04d}{number * 7919 % 10**8:08d}abcdefgh{number:06d}" for number in range(500)]
    scrubber = Scrubber(keys)
    for key in keys[::37]:
        assert scrubber.text(f"<{key}>") == f"<{MARK}>"
        assert key[16:30] not in scrubber.text(f"<{key[10:34]}...>")
    assert max(map(len, scrubber._index or {})) <= 16


@pytest.mark.parametrize(
    "text",
    [
        "sk-ven" * 11_000,
        "sk-vendor-api03-" * 4_000,
        "eyJ" * 22_000,
        "-eyJ.aaaaaaa" * 5_500,
        "bearer " * 9_000,
        "*" * 65_000,
        "ab..." * 13_000,
        "sk...45" * 9_000,
        "sk-aA" * 13_000,
        "[redacted]" * 6_500,
        "bearer" + " " * 65_000,
    ],
)
def test_time(text: str) -> None:
    """No text makes it slow: 64 KB in well under the 10 ms a KB that a request may cost."""
    scrubber = Scrubber([f"sk-vendor-api03-{number:012d}45" for number in range(200)])
    scrubber.text("")
    began = time.process_time()
    scrubber.text(text)
    assert time.process_time() - began < 0.5


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=80).filter(
        lambda key: len(set(key)) > 5
    ),
    st.text(max_size=40),
    st.text(max_size=40),
)
def test_any_secret_anywhere(secret: str, before: str, after: str) -> None:
    """Whatever printable characters a secret is made of and whatever stands around it, no form of it is left."""
    scrubber = Scrubber([secret])
    if not scrubber._secrets:
        return
    for form in forms(secret):
        if len(form) >= len(secret):  # (of base64 the digits that it shares with its neighbours are not sought)
            assert form not in scrubber.text(f"{before} {form} {after}") or form in MARK


@given(st.text(max_size=300), st.sampled_from([KEY, PASSWORD, "office-secret-0123456789"]))
def test_text_without_a_secret_is_not_touched(text: str, secret: str) -> None:
    """What holds no piece of a secret comes back as it was."""
    scrubber = Scrubber([secret], like=r"(?!)")
    if not any(secret[at : at + 6] in text for at in range(len(secret) - 5)) and "..." not in text:
        assert scrubber.text(text) == text


@pytest.mark.parametrize("body", [b"\xff\xfe\x00 bad \x80 utf", "喂 é".encode(), b""])
def test_bytes_come_back_as_they_were(body: bytes) -> None:
    """Also what is no UTF-8; and what is cut is cut to the byte."""
    assert SCRUBBER.clean(body, 100) == body
    assert SCRUBBER.clean(body + KEY.encode() + body, 100) == body + MARK.encode() + body
    assert SCRUBBER.clean(b"." * 1000, 10) == b"." * 10 or len(SCRUBBER.clean(b"." * 100_000, 10)) == 10


def test_nothing_is_shown() -> None:
    """A scrubber in a traceback shows nothing."""
    assert repr(SCRUBBER) == "Scrubber(2 secrets)"


def sources() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted((ROOT / "aigw").rglob("*.py"))}


@pytest.mark.parametrize(
    ("door", "allowed"),
    [
        (r"\bStreamHandler\b|\bFileHandler\b|\bSysLogHandler\b|logging\.basicConfig", {"aigw/telemetry/log.py"}),
        (r"\bsys\.stderr\b", {"aigw/telemetry/log.py", "aigw/cli/output.py"}),
        (r"\b(print|format)_(exc|exception|tb|stack)\b|\bfaulthandler\b", set()),
        (r"\bjournal\.write\(|\.recorded\(", {"aigw/pipeline.py", "aigw/plugins/run.py"}),  # there: what has been scrubbed
        (r"\bexchange\.record\(\)", {"aigw/pipeline.py"}),
        (
            r"provider\.judge\(",
            {"aigw/attempt.py", "aigw/relay.py", "aigw/transform.py", "aigw/gateway.py", "aigw/server/realtime.py"},
        ),
        (r"\.set_live\(", {"aigw/gateway.py", "aigw/server/workers.py"}),  # there: what the first worker has remembered
    ],
)
def test_there_is_one_door(door: str, allowed: set[str]) -> None:
    """What scrubs is worth nothing beside an open window: log lines, records, providers' errors and model lists leave where the
    scrubber stands, and nowhere else. (The command line prints through output.py; its own answers are judged by the provider's
    redactor.)"""
    found = {name for name, text in sources().items() if re.search(door, text, re.MULTILINE)}
    assert {name for name in found - allowed if not name.startswith(("aigw/cli/", "aigw/providers/"))} == set()


def test_the_doors_have_their_keeper() -> None:
    """Each of them asks the scrubber."""
    for name in ("telemetry/log.py", "pipeline.py", "gateway.py", "server/state.py", "providers/redact.py"):
        assert re.search(r"[sS]crub", (ROOT / "aigw" / name).read_text(encoding="utf-8")), name


def test_the_operators_own_names_pass() -> None:
    """A route or a provider that a key has in its middle keeps its name; the key itself, and the name in a longer text, go."""
    scrubber = Scrubber(["sk-openai-production-1234567890"])
    scrubber.spare(["openai-production", "sk-openai-production-1234567890"])
    assert scrubber.name("openai-production") == "openai-production"
    assert scrubber.name("sk-openai-production-1234567890") == "[redacted]"
    assert "production" not in scrubber.text("key openai-production-1234567890 is wrong")
    scrubber.spare([])
    assert scrubber.name("openai-production") == "[redacted]"
