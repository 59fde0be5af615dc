"""Keys that are exchanged for tokens: once, in time, and never shown."""

from __future__ import annotations

import json

import pytest

from aigw.errors import ConfigError, UpstreamError
from aigw.exchange import Origin
from aigw.providers.compatible import Endpoint
from aigw.providers.redact import Redactor
from aigw.providers.tokens import EARLY, Exchanged, checked, form

ENDPOINT = Endpoint(Origin("https", "iam.test", 443), "/token")


def credential() -> Exchanged:
    return Exchanged(lambda now: form(ENDPOINT, {"apikey": "the secret&more"}), Redactor(["the secret&more"]))


def answer(**fields: object) -> bytes:
    return json.dumps({"access_token": "tok"} | fields).encode()


def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    held = credential()
    asked = held.refresh(1000.0)
    assert asked is not None
    assert asked.body == b"apikey=the+secret%26more"
    held.accept(200, [], answer(expires_in=3600), 1000.0)
    assert held.token == "tok"
    assert held.refresh(1000.0 + 3600 - EARLY - 1) is None
    assert held.refresh(1000.0 + 3600 - EARLY + 1) is not None


@pytest.mark.parametrize("end", [{"expires_at": 4_600_000}, {"expires_in": "3600"}, {"expires_in": 3600.0}])
def test_ends_are_told_in_several_ways(end: dict[str, object]) -> None:
    held = credential()
    held.accept(200, [], answer(**end), 1000.0)
    assert held.until == pytest.approx(4600 - EARLY)


@pytest.mark.parametrize("end", [{}, {"expires_in": "soon"}, {"expires_in": -1}, {"expires_at": 5}])
def test_an_end_that_is_not_told_is_soon(end: dict[str, object]) -> None:
    held = credential()
    held.accept(200, [], answer(**end), 1000.0)
    assert 1000 < held.until <= 1000 + 1800


def test_a_short_token_is_used_for_half_its_time_at_least() -> None:
    """One that lasts a minute is not asked for again at once."""
    held = credential()
    held.accept(200, [], answer(expires_in=60), 1000.0)
    assert held.until == 1030.0


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_key_is_the_keys_fault(status: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        credential().accept(status, [], b'{"error":"invalid_grant","error_description":"the secret&more"}', 0.0)
    assert (caught.value.code, caught.value.fault) == ("provider_credentials_invalid", "key")
    assert "the secret" not in caught.value.message + caught.value.detail + caught.value.body.decode()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"access_token":"a b"}', b'{"access_token":1}'])
def test_what_holds_no_token(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="no token"):
        credential().accept(200, [], body, 0.0)


def test_a_token_that_is_refused_is_forgotten() -> None:
    held = credential()
    held.accept(200, [], answer(expires_in=3600), 1000.0)
    held.forget()
    assert held.refresh(1001.0) is not None
    assert "tok" not in repr(held)


@pytest.mark.parametrize("url", ["http://evil.test/token", "ftp://x", "https://", "https://a:b@x/", "https://x:99999/", ""])
def test_secrets_go_to_https_alone(url: str) -> None:
    with pytest.raises(ConfigError, match="https://"):
        checked(url, "k")
