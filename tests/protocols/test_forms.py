"""Forms going by: what they name, wherever they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aigw.errors import CallerError
from aigw.protocols.forms import HEAD, PARTS, VALUE, Form, boundary_of


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


FILE = part("file", b"\x00--\r\n-B\r\n--" * 9, '; filename="a.mp3"')
WHOLE = part("prompt", b"what was said") + FILE + part("model", b"whisper-1") + part("stream", b"true") + b"--B--\r\n"


def read(body: bytes, *cuts: int) -> Form:
    form = Form(b"B")
    for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        form.feed(body[start:end])
    return form


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_cut_anywhere(cuts: list[int]) -> None:
    """The same fields, at the same place."""
    form = read(WHOLE, *sorted(cuts))
    assert form.fields == {"model": "whisper-1", "stream": "true"}
    assert form.ended
    assert form.files == 1
    assert form.at is not None
    assert WHOLE[slice(*form.at)] == b"whisper-1"


def test_byte_by_byte() -> None:
    """Also then."""
    assert read(WHOLE, *range(1, len(WHOLE))).fields["model"] == "whisper-1"


def test_an_empty_value() -> None:
    """Is a value; a boundary that follows its head at once ends it as well."""
    assert read(part("model", b"")).fields == {"model": ""}
    assert read(part("model", b"")[:-2] + b"--B--").fields == {"model": ""}


REFUSED = {
    "two models": part("model", b"a") + part("model", b"b"),
    "a second one spelled otherwise": part("model", b"a") + part("model", b"b").replace(b'"model"', b"model"),
    "two names": part("x", b"1", '; name="model"'),
    "no name": part("model", b"a").replace(b' name="model"', b""),
    "no disposition": b"--B\r\nx: y\r\n\r\n1\r\n--B--",
    "a boundary behind a bare line end": part("x", b"1\n--B\r\n"),
    "something behind a boundary": b"--Bx\r\n" + part("model", b"a")[5:],
    "a long head": b"--B\r\nx: " + b"y" * (HEAD + 9),
    "a long model": part("model", b"m" * (VALUE + 99)),
    "no text": part("model", b"\xff") + b"--B--",
    "many parts": part("x", b"1") * (PARTS + 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """By whoever feeds it, with the caller at fault."""
    with pytest.raises(CallerError) as caught:
        read(REFUSED[name])
    assert caught.value.code == "caller_invalid_request"


@pytest.mark.parametrize(
    ("said", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; Boundary=----WebKitFormBoundary7MA4YWxk", b"----WebKitFormBoundary7MA4YWxk"),
    ],
)
def test_boundaries(said: str, boundary: bytes) -> None:
    """As clients write them."""
    assert boundary_of(said) == boundary


@pytest.mark.parametrize(
    "said",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 10_000,
        "multipart/form-data; boundary=a; boundary=b",
        'multipart/form-data; boundary="a\\"b"',
        "multipart/form-data; boundary=\u00e4",
    ],
)
def test_no_boundary(said: str) -> None:
    """One that is too long, doubled or odd is none."""
    with pytest.raises(CallerError):
        boundary_of(said)
