"""Triton's generate: a text in, a text out, and a stream that just ends."""

from __future__ import annotations

import json

from aigw.canonical import Finished, Losses, Message, Request, Started, Text, TextDelta
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.triton import Triton


def test_the_request() -> None:
    """Sampling parameters are in their table, and more may be given."""
    asked = Request(
        dialect="openai_chat",
        model="m",
        messages=[Message("user", [Text("u")])],
        max_tokens=5,
        stop=["x"],
        extras={"parameters": {"beam_width": 2}},
    )
    said = json.loads(Triton().render_request(asked, Toward(model="m", stream=True), Losses()))
    parameters = {"stream": True, "max_tokens": 5, "stop": ["x"], "beam_width": 2}
    assert said == {"text_input": "u", "parameters": parameters}


def test_a_stream_ends_with_its_connection() -> None:
    """Nothing else says that it has; one that said nothing has not even begun."""
    parser = Triton().parser()
    events = parser.feed(b'data: {"model_name":"m","text_output":"h"}\n\ndata: {"text_output":["i"]}\n\n') + parser.end()
    assert events == [Started(model="m"), TextDelta("h"), TextDelta("i"), Finished("stop")]
    assert parser.done
    empty = Triton().parser()
    assert empty.end() == []
    assert not empty.done
    failed = Triton().parser()
    failed.feed(b'data: {"error":"out of memory"}\n\n')
    assert b"out of memory" in failed.failed
