"""Pages of lists, and what is left of them."""

from __future__ import annotations

import json

import pytest

from aigw.protocols import listed

BODY = b'{"object":"list","data":[{"id":"a","n":1.0},{"id":"b"},{"x":1}],"has_more":true,"first_id":"a","last_id":"b"}'


def test_a_page_with_less_on_it() -> None:
    """What stays is as it came, and the page names its ends anew."""
    page = listed.read(BODY)
    assert page is not None
    assert [one.id for one in page.items] == ["a", "b", ""]
    assert page.more
    found = listed.write(page, page.items[:1])
    assert b'{"id":"a","n":1.0}' in found
    assert json.loads(found)["last_id"] == "a"
    assert json.loads(listed.write(page, [])) == {
        "object": "list",
        "data": [],
        "has_more": True,
        "first_id": None,
        "last_id": None,
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":{}}', b'{"data":[1]}', b"[" * 10_000])
def test_no_list(body: bytes) -> None:
    """Is none; nothing of it is shown."""
    assert listed.read(body) is None


@pytest.mark.parametrize(
    ("query", "bounded"),
    [
        ("", "limit=100"),
        ("limit=20", "limit=20"),
        ("limit=10000&order=asc", "order=asc&limit=100"),
        ("limit=x", "limit=100"),
        ("limit=0&limit=7", "limit=7"),
        ("limit=-5", "limit=100"),
        ("limit=" + "9" * 50, "limit=100"),
    ],
)
def test_pages_are_not_too_long(query: str, bounded: str) -> None:
    """Each object is looked up, so only so many are asked for."""
    assert listed.bounded(query) == bounded


def test_the_page_behind() -> None:
    """One place to go on from."""
    assert listed.after("limit=2&after=a", "b&c") == "limit=2&after=b%26c"
