"""One suite over every row of the catalog: whatever an operator configures can be built and asked."""

from __future__ import annotations

import json
import re

import pytest

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog
from aigw.providers.base import Provider
from aigw.providers.compatible import build

SECRET = "office-secret-0123456789"
KEY = ProviderKey("row#1", SECRET)
SERVED = [name for name in catalog.ids() if catalog.row(name).served]
ENVIRON = {setting.env: "place" for name in SERVED for setting in catalog.row(name).settings if setting.env}
REQUEST = re.compile(
    rb"(GET|POST) (?:http://[!-~]+)?/[!-~]* HTTP/1\.1\r\n"
    rb"host: [A-Za-z0-9.:\[\]-]+\r\n(?:[a-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+"
)


def provider_of(kind: str) -> Provider:
    base_url = "http://127.0.0.1:8000/v1" if catalog.row(kind).category == "generic" else None
    keys = [] if catalog.row(kind).auth == "none" or catalog.row(kind).caller_only else [SECRET]
    return build("row", schema.Provider(kind=kind, base_url=base_url), schema.Upstream(), keys, environ=ENVIRON)


@pytest.mark.parametrize("kind", [kind for kind in SERVED if not catalog.row(kind).caller_only])
def test_every_operation_it_serves_can_be_asked(kind: str) -> None:
    """Each request is well-formed HTTP to the row's own host, carries the key once and where the row wants it."""
    provider = provider_of(kind)
    row = catalog.row(kind)
    served = [
        operation
        for operation in OPERATIONS.values()
        if provider.dialect_for(operation) is not None
        and operation.method == "POST"
        and "{id}" not in operation.path
        and not operation.placed
    ]
    assert served
    for operation in served:
        assert provider.dialect_for(operation) == operation.dialect
        request = provider.prepare(operation, b'{"model":"x"}', KEY, {}, "a/model")
        wire = request.target.wire + request.extra
        assert REQUEST.fullmatch(wire), wire
        assert wire.startswith(b"POST ")
        assert b"{" not in wire
        exchanged = provider.credential(KEY) is not None  # then it is a token that goes, and here is none yet
        assert wire.count(SECRET.encode()) == (0 if row.auth == "none" or exchanged else 1)
        assert wire.count(b"\r\nanthropic-version: ") == (operation.dialect == "anthropic_messages")
        assert b"content-length" not in wire
        if kind not in ("vertex", "watsonx"):  # these name model and version in places of their own
            assert request.body == b'{"model":"x"}'
        assert request.target.origin.scheme in {"https", "demo"} or row.local or row.category == "generic"
        assert SECRET not in repr(request.target) + repr(provider)


@pytest.mark.parametrize("kind", SERVED)
def test_its_models_can_be_asked_when_it_lists_them(kind: str) -> None:
    """`lists_models` and `models_request` agree, and garbage is never taken for a list."""
    provider = provider_of(kind)
    request = provider.models_request(KEY)
    assert (request is not None) == provider.lists_models
    if request is not None:
        assert REQUEST.fullmatch(request.target.wire + request.extra)
        assert request.target.method == "GET"
        assert request.body == b""
    assert provider.read_models(b'{"data":[{"id":"m"}]}') == ["m"]


@pytest.mark.parametrize("kind", SERVED)
def test_its_errors_are_judged(kind: str) -> None:
    """The same classes for all, without a secret, and never the caller's own 401."""
    provider = provider_of(kind)
    body = json.dumps({"error": {"message": f"bad key {SECRET}", "type": "x"}}).encode()
    wanted = {
        401: ("provider_credentials_invalid", "key"),
        429: ("provider_rate_limited", "account"),
        500: ("provider_error", "deployment"),
    }
    for status, (code, fault) in wanted.items():
        error = provider.judge(status, [(b"retry-after", b"3")], body, KEY)
        if provider.own_login and fault != "deployment":  # the login's owner is told, and nobody else rests
            assert (error.code, error.fault, error.status) == (code, "", status)
            continue
        assert (error.code, error.fault, error.may_retry) == (code, fault, True)
        assert error.status not in {401, 402, 403}
        assert SECRET not in error.message + error.detail + error.body.decode()
    assert provider.judge(429, [(b"retry-after", b"3")], body, KEY).retry_after == 3.0
    assert provider.error_in_body(b'{"choices":[{"message":{"content":"hi"}}]}') is None


@pytest.mark.parametrize("kind", [name for name in catalog.ids() if name not in SERVED])
def test_a_row_that_is_not_served_says_so(kind: str) -> None:
    """A known provider with a protocol of its own is refused at the start, not at the first request."""
    with pytest.raises(ConfigError, match="protocol of its own"):
        build("row", schema.Provider(kind=kind), schema.Upstream(), [SECRET], environ=ENVIRON)


@pytest.mark.parametrize("kind", SERVED)
def test_its_facts_are_told(kind: str) -> None:
    """What records and routing read of it."""
    provider = provider_of(kind)
    assert (provider.name, provider.kind, provider.price_id, provider.account) == ("row", kind, kind, "row")
    assert isinstance(provider.residency, str)
    assert isinstance(provider.stream_usage, bool)
