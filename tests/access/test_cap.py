"""A stream that ends where its budget does."""

from __future__ import annotations

from aigw.access.cap import Capped
from tests.walk import Near


def capped(tokens: int) -> tuple[Capped, Near, list[str]]:
    near, stops = Near(), []
    return Capped(near, tokens, lambda block, size: size, lambda: stops.append("stop")), near, stops


def test_what_comes_is_passed_on_until_the_cap() -> None:
    """With a grace of 5 %; then it is stopped once, and nothing more goes out."""
    sink, near, stops = capped(100)
    sink.begin(200, [])
    for _ in range(10):
        sink.write(b"x" * 10)
    sink.write(b"x" * 5)
    assert (stops, sink.reached) == ([], False)
    sink.write(b"last")
    assert (stops, sink.reached) == (["stop"], True)
    sink.write(b"more")
    sink.end()
    assert near.body == b"x" * 105 + b"last"
    assert not near.ended
    assert sink.error.code == "policy_budget_exhausted"
    assert (sink.started, sink.status) == (True, 200)


def test_it_passes_on_everything_else() -> None:
    """Whole answers, ends, cuts and the call when the caller has caught up."""
    sink, near, _ = capped(10)
    sink.answer(404, [], b"{}")
    assert (near.status, near.body, near.ended) == (404, b"{}", True)
    sink, near, _ = capped(10)
    sink.begin(200, [])
    sink.end()
    assert near.ended
    sink, near, _ = capped(10)
    sink.abort()
    sink.on_resume(print)
    assert near.aborted
    assert near.resume is print


def test_the_open_block_is_known() -> None:
    """Of Anthropic's streams: it must be closed before the message is."""
    sink, _, _ = capped(10_000)
    sink.begin(200, [])
    assert sink.error.block == -1
    sink.write(b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{}}\n\n')
    assert sink.error.block == 0
    sink.write(b'event: content_block_stop\ndata: {"type": "content_block_stop", "index": 0}\n\n')
    assert sink.error.block == -1
    sink.write(b'event: content_block_start\ndata: {"type": "content_block_start", "index": 12, "content_block": {}}\n\n')
    sink.write(b'event: content_block_delta\ndata: {"type":"content_block_delta","index":12,"delta":{}}\n\n')
    assert sink.error.block == 12
