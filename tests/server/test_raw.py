"""Raw paths: which are passed on, and which must not be."""

from __future__ import annotations

import pytest

from aigw.server.raw import Named, named

NAMES = ("one", "openai")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/one/v1/assistants", Named("one", "/v1/assistants", "")),
        ("/one/a?x=1&x=2&key=mine&b", Named("one", "/a", "x=1&x=2&b")),
        ("/one/v1/a%20b/c:d;e=f/", Named("one", "/v1/a%20b/c:d;e=f/", "")),
        ("/one/..a/b..", Named("one", "/..a/b..", "")),
    ],
)
def test_passed_on(path: str, found: Named) -> None:
    """As they were written, without the caller's key."""
    assert named("GET", path, NAMES) == found


ASTRAY = """
/two/v1 /one /one/ /one//x /one/a//b /one/../x /one/a/.. /one/./x /one/%2e%2e/x /one/%2E./x /one/a%2fb /one/a%5cb /one/a\\b
/one/%00 /one/%0d%0a /one/%252e%252e/x /one/a%25 /one/a% /one/..;x/y /one/%2e%2e;x/y /one/\u00e9 /one/a#b /one/a?b#c one/a
http://x/one/a
"""


@pytest.mark.parametrize("path", [*ASTRAY.split(), "/one/a b", "/one/a?" + "x" * 5000])
def test_not_passed_on(path: str) -> None:
    """Whatever might be read as another place."""
    assert named("GET", path, NAMES) is None


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods(method: str) -> None:
    assert named(method, "/one/v1/x", NAMES) is None
