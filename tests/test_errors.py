"""The closed list of codes, and what an error says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aigw.errors import CODES, CallerError, ConfigError, GatewayError, InternalError, PolicyError, UpstreamError

ROOT = Path(__file__).resolve().parent.parent

# What SDKs of Anthropic's family know (the facts' list of error types).
ANTHROPIC = {
    "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
    "request_too_large", "rate_limit_error", "timeout_error", "api_error", "overloaded_error", "conflict_error",
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_codes(code: str) -> None:
    """The prefix says whose fault it was and agrees with the status; a provider's refusal of our credentials never reaches a
    caller as one of its own."""
    prefix = code.partition("_")[0]
    known = CODES[code]
    assert prefix in {"caller", "policy", "provider", "gateway"}
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", code)
    assert known.anthropic_type in ANTHROPIC
    assert known.openai_type
    if prefix in ("caller", "policy"):
        assert 400 <= known.status < 500
    if prefix == "gateway":
        assert known.status >= 500
    if prefix == "provider":
        assert known.status not in (401, 402, 403)
    if known.status == 401:
        assert known.anthropic_type == "authentication_error"
        assert known.openai_code == "invalid_api_key"
    if known.status == 429:
        assert known.anthropic_type == "rate_limit_error"


def test_codes_in_the_source_are_on_the_list() -> None:
    """No error is raised with a code that nobody has listed."""
    others = ROOT / "aigw" / "cli"  # its verdicts on keys have words of their own
    paths = [path for path in (ROOT / "aigw").rglob("*.py") if path.name != "errors.py" and others not in path.parents]
    source = "\n".join(path.read_text() for path in paths)
    raised = set(re.findall(r'(?:CallerError|PolicyError|UpstreamError|InternalError)\(\s*"([a-z_]+)"', source))
    assert len(raised) > 15
    assert raised <= set(CODES)


def test_a_gateway_error() -> None:
    """Status by its code unless the provider's is kept; an unknown code is a bug and shows at once."""
    error = CallerError("caller_body_too_large", "Too big.", param="p")
    assert (error.status, error.param, error.may_retry, error.retry_after, str(error)) == (413, "p", False, None, "Too big.")
    assert GatewayError("provider_error", "x", status=599).status == 599
    with pytest.raises(KeyError):
        GatewayError("no_such_code", "x")
    for kind in (CallerError, PolicyError, UpstreamError, InternalError):
        assert issubclass(kind, GatewayError)


def test_an_upstream_error() -> None:
    """The operator's detail is the message unless there is more to say; the message alone is what is printed."""
    assert UpstreamError("provider_error", "failed").detail == "failed"
    error = UpstreamError("provider_error", "failed", detail="10.0.0.7: refused", body=b"secret")
    assert "10.0.0.7" not in str(error) + repr(error)
    assert "secret" not in str(error) + repr(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("must be a number", file="c.toml", line=3, key="server.port"), "c.toml:3: server.port: must be a number"),
        (ConfigError("cannot be read", file="c.toml"), "c.toml: cannot be read"),
        (ConfigError("is unknown", key="x"), "x: is unknown"),
        (ConfigError("is empty"), "is empty"),
    ],
)
def test_a_config_error(error: ConfigError, text: str) -> None:
    """Says where, as far as it is known."""
    assert str(error) == text
