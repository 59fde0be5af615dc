"""Lists of models: names that can be shown and asked for, or a clean refusal."""

from __future__ import annotations

import json

from aigw.providers import model_list
from tests.fuzz.inputs import fuzzed

WORDS = [
    b'{"data":[',
    b'{"models":[',
    b'{"id":"m"}',
    b'{"name":"models/g"}',
    b'{"model":"o"}',
    b'"m"',
    b",",
    b"[",
    b"]",
    b"{",
    b"}",
]
WORDS += [
    b'"id":7',
    b"null",
    b"\\u0000",
    b"\\u001b[31m",
    b"\\u202e",
    b"\\ud800",
    b"\xff",
    b"models/",
    b'""',
    b"[" * 1100,
    b"x" * 300,
]


@fuzzed("model_list", WORDS)
def test_model_list(data: bytes) -> None:
    """Each name once, printable, of a length; the first entry's is among them whatever else stands there."""
    try:
        names = model_list.read(data)
    except ValueError:
        return
    assert len(set(names)) == len(names) <= model_list.MOST
    assert all(name.isprintable() and len(name) <= 256 for name in names)
    try:
        value = json.loads(data)
    except ValueError:
        return
    items = (
        value
        if isinstance(value, list)
        else next((value[key] for key in ("data", "models") if isinstance(value.get(key), list)), [])
    )
    for item in items:
        name = item.get("id") if isinstance(item, dict) else item
        if isinstance(name, str) and name.isalnum() and len(name) < 100:
            assert name in names
