"""Splicing: the edited body decodes to the same object with that one change, or there is a clean error."""

from __future__ import annotations

import json
from typing import Any

from aigw.errors import CallerError
from aigw.protocols import DIALECTS, splice
from tests.fuzz.inputs import dice, fuzzed

WORDS = [
    b'"model"',
    b'"model":"m"',
    b'"stream":true',
    b'"max_tokens":1',
    b'"mod\\u0065l":"x"',
    b'\\"model":"x"',
    b"{",
    b"}",
    b"[",
]
WORDS += [
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\\\",
    b'\\"',
    b" ",
    b"\n",
    b"1E400",
    b"null",
    b'{"model":"deep"}',
    b'"Model":1',
    b'"":0',
]
WORDS += [b"\xff", b"\\ud800", b'"stream_options":{"include_usage":true}', b"-0", b"1.0e+5", b"\t", b"\x00"]

KEYS = ["model", "stream", "max_tokens", "stream_options", "Model", "", "l"]
VALUES: list[Any] = ["m", 'a"b\\', "模型", "", None, True, 7, {"include_usage": True}, ["a", {}]]

Pairs = list[tuple[str, Any]]


def pairs(body: bytes) -> Pairs:
    """The members in order, numbers as they are written. What is no Unicode passes, as it does with us."""
    text = body.decode("utf-8", "surrogateescape")
    found = json.loads(text, object_pairs_hook=lambda members: [("{}", len(members)), *members], parse_float=str, parse_int=str)
    members: Pairs = found[1:]
    return members


def plain(value: Any) -> Any:
    return json.loads(
        json.dumps(value), object_pairs_hook=lambda members: [("{}", len(members)), *members], parse_float=str, parse_int=str
    )


@fuzzed("splice", WORDS, 600)
def test_splice(data: bytes) -> None:
    """For each body that a dialect takes for a request; what none takes is never edited."""
    try:
        asked = DIALECTS["openai_chat"].read_request(data)
    except CallerError:
        return
    before = pairs(data)
    names = [name for name, _ in before]
    chance = dice(data)
    value = chance.choice(VALUES)
    for key in dict.fromkeys([*KEYS, *names]):
        if not key.isprintable():
            continue
        times = names.count(key)
        assert splice.stands_twice(data, key) == (times > 1)
        if key.isascii() and key.islower():
            assert splice.only(data, key) < 0 or times <= 1
        changed = [(name, plain(value) if name == key else content) for name, content in before]
        try:
            result = splice.set_value(data, key, value)
        except ValueError:
            assert times > 1
        else:
            assert times <= 1
            assert pairs(result) == (changed if times else [*before, (key, plain(value))])
        assert pairs(splice.drop(data, key)) == [pair for pair in before if pair[0] != key]
        if not times:
            assert pairs(splice.add(data, key, value)) == [*before, (key, plain(value))]
        new = chance.choice(KEYS)
        if new == key:
            wanted = before
        elif new in names:
            wanted = [pair for pair in before if pair[0] != key]
        else:
            wanted = [(new if name == key else name, content) for name, content in before]
        assert pairs(splice.rename(data, key, new)) == wanted
    if names.count("model") == 1:  # as the walk does it: with what is known of the old value and its place
        for at in (None, splice.only(data, "model")):
            result = splice.set_value(data, "model", "new", asked.model, at)
            assert pairs(result) == [(name, "new" if name == "model" else content) for name, content in before]
