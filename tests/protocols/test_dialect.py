"""What the dialects share: complaints, answers that are not quite JSON, members that say something."""

from __future__ import annotations

import msgspec
import pytest

from aigw.errors import UpstreamError
from aigw.protocols.dialect import complain, decode_answer, openai_error, says


class Deep(msgspec.Struct):
    model: str
    options: dict[str, int] | None = None
    items: list[bool] | None = None


def complaint(body: bytes) -> str:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(body, type=Deep)
    return complain(caught.value).message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"m","options":[]}', "`options` must be an object, not a list."),
        (b'{"model":"m","options":{"x":"y"}}', "`options[...]` must be a number, not a string."),
        (b'{"model":"m","items":{}}', "`items` must be a list, not an object."),
        (b'{"model":"m","items":[null]}', "`items[0]` must be true or false, not null."),
        (b'{"options":{}}', "The request has no `model`. Name the model to use."),
        (b"{", "The request body is not valid JSON. Send one JSON object."),
    ],
)
def test_complain(body: bytes, message: str) -> None:
    """Says which field must be what; never what it held."""
    assert complaint(body) == message


@pytest.mark.parametrize("error", [RecursionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")])
def test_complain_of_what_is_no_json(error: RecursionError | UnicodeError) -> None:
    """Too deep or no text: a 400 like any other."""
    assert complain(error).code == "caller_invalid_json"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"null", False), (b'""', False), (b"{}", False), (b"[]", False), (b"false", False), (b"0", False), (b'"x"', True),
     (b'{"a":1}', True), (b"1", True), (b"true", True)],
)  # fmt: skip
def test_says(raw: bytes, expected: bool) -> None:
    """An empty `error` is none."""
    assert says(msgspec.Raw(raw)) is expected
    assert not says(msgspec.UNSET)


def test_decode_answer() -> None:
    """Typed where it can be, None where it is an object of another kind, ValueError where it is none."""
    decode = msgspec.json.Decoder(Deep).decode
    assert decode_answer(decode, b'{"model":"m"}') == Deep("m")
    assert decode_answer(decode, b'{"model":"m","x":NaN}') == Deep("m")
    assert decode_answer(decode, b'{"model":7}') is None
    assert decode_answer(decode, b'{"model":7,"x":-Infinity}') is None
    for body in (b"7", b"[NaN]", b'"\\ud800"', b"NaN"):
        with pytest.raises(ValueError, match="JSON"):
            decode_answer(decode, body)


def test_openai_error() -> None:
    """The provider's type, code and param win; its message and whatever else it wrote do not."""
    error = UpstreamError("provider_rejected", "Cleaned.", param="ours")
    fields = openai_error(error, "r", {"type": "t", "code": 7, "param": None, "message": "raw", "internal": "x"})["error"]
    assert fields == {
        "message": "Cleaned.",
        "type": "t",
        "param": "ours",
        "code": 7,
        "aigw_code": "provider_rejected",
        "request_id": "r",
    }
