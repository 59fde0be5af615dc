"""Which names may be this machine's own."""

from __future__ import annotations

import pytest

from aigw.server import hosts


@pytest.mark.parametrize(
    ("authority", "host"),
    [("X:80", "x"), ("x", "x"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("127.0.0.1:1", "127.0.0.1"), ("[", "")],
)
def test_host_of(authority: str, host: str) -> None:
    """Without port and brackets."""
    assert hosts.host_of(authority) == host


def test_is_local() -> None:
    """By name or by address; nothing that only looks like it."""
    assert all(map(hosts.is_local, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(hosts.is_local, ("", "localhost.evil.example", "10.0.0.1", "127.1", "0x7f000001", "evil.example")))


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1:8080", "10.0.0.7", "[::1]:1", "localhost", "gateway:80", "a.localhost", "host.docker.internal", "pc.local"],
)
def test_near_names(host: str) -> None:
    """Addresses, and names that no public name server answers for."""
    assert hosts.objection({"Host": host}) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "a.internal.example"]
)
def test_a_rebound_name(host: str) -> None:
    """Public names may have been pointed here by anybody."""
    refused = hosts.objection({"Host": host})
    assert refused is not None
    assert (refused.code, refused.status) == ("policy_forbidden", 421)
    assert host not in refused.message


def test_web_pages() -> None:
    """Those of this machine only; a page without an origin of its own ("null") is none of them."""
    for origin in ("http://localhost:3000", "http://127.0.0.1", "https://[::1]:1"):
        assert hosts.objection({"Host": "x", "Origin": origin}) is None
    for origin in ("null", "", "https://evil.example", "http://localhost.evil.example", "http://10.0.0.1"):
        refused = hosts.objection({"Host": "x", "Origin": origin})
        assert refused is not None
        assert refused.status == 403
