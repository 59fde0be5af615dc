"""A short answer is kept whole; a long one is not waited for."""

from __future__ import annotations

from aigw.upstream.answer import WholeAnswer
from aigw.upstream.http import HttpTransport
from tests.loopback import ask, ok, replies, serving


async def test_an_answer_is_kept_whole() -> None:
    """Status, headers and body, as they came over a real socket."""
    transport = HttpTransport()
    async with serving(replies(ok(b"x" * 1000, b"x-name: value"))) as server:
        answer = WholeAnswer(1000)
        await transport.send(ask(server.origin), answer)
        await transport.close()
    assert (answer.status, answer.body, answer.cut) == (200, b"x" * 1000, False)
    assert (b"x-name", b"value") in answer.headers


async def test_an_answer_without_end_is_cut_off() -> None:
    """A server that never stops sending costs no memory and no time."""
    transport = HttpTransport()
    async with serving(replies(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000)) as server:
        answer = WholeAnswer(1000)
        await transport.send(ask(server.origin), answer)
        await transport.close()
    assert answer.cut
    assert len(answer.body) <= 1000
