"""Whose address it is, behind proxies that are believed, and before those who only say so."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from aigw.server.forwarded import caller

TRUSTED = ("10.0.0.0/8", "::1")


@pytest.mark.parametrize(
    ("address", "headers", "expected"),
    [
        ("203.0.113.9", [("X-Forwarded-For", "198.51.100.1")], "203.0.113.9"),  # a stranger says so
        ("10.0.0.1", [("X-Forwarded-For", "198.51.100.1")], "198.51.100.1"),
        (
            "10.0.0.1",
            [("X-Forwarded-For", "1.1.1.1, 198.51.100.1, 10.0.0.2")],
            "198.51.100.1",
        ),  # what it was told itself is not read
        ("10.0.0.1", [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [("X-Forwarded-For", "[2001:db8::1]:4711")], "2001:db8::1"),
        ("10.0.0.1", [("X-Forwarded-For", "198.51.100.1:4711")], "198.51.100.1"),
        ("10.0.0.1", [("X-Forwarded-For", "::ffff:198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [("X-Forwarded-For", "10.0.0.3")], "10.0.0.3"),  # all are proxies: the farthest that is known
        ("10.0.0.1", [("X-Forwarded-For", "unknown")], "10.0.0.1"),
        ("10.0.0.1", [("X-Forwarded-For", "1.1.1.1, <script>, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", [("X-Forwarded-For", "")], "10.0.0.1"),
        ("10.0.0.1", [("Forwarded", 'for=198.51.100.1;proto=https, for="[2001:db8::7]:99"')], "2001:db8::7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::1", [("X-Forwarded-For", "198.51.100.1")], "198.51.100.1"),
        ("", [("X-Forwarded-For", "198.51.100.1")], ""),  # a unix socket
        ("10.0.0.1", [("X-Forwarded-For", ",".join(["10.0.0.2"] * 10_000))], "10.0.0.2"),
    ],
)
def test_whose_address(address: str, headers: list[tuple[str, str]], expected: str) -> None:
    assert caller(address, CIMultiDict(headers), TRUSTED) == expected
