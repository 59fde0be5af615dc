from __future__ import annotations

import asyncio
import signal

import pytest

from aigw.errors import StoreError
from aigw.storage.redis_line import Line
from tests.servers import Redis, free_port


async def test_many_questions_are_one_write(redis: Redis) -> None:
    """A thousand at once, each with its own answer; one that is refused fails alone, one that nobody waits for hurts nobody."""
    line = await Line.open(redis.url, "test", 5.0)
    try:
        asked = [line.ask(b"INCR", b"n") for _ in range(1000)]
        wrong, given_up, last = line.ask(b"NONSENSE"), line.ask(b"PING"), line.ask(b"GET", b"n")
        given_up.cancel()
        assert await asyncio.gather(*asked) == list(range(1, 1001))
        with pytest.raises(RuntimeError, match="unknown command"):
            await wrong
        assert await last == b"1000"
        assert line.trips == 1
    finally:
        await line.close()


async def test_a_silent_server_is_given_up() -> None:
    """After the patience, everybody who waits hears of it, and whoever comes later at once."""
    with Redis() as server:
        line = await Line.open(server.url, "test", 0.2)
        server.signal(signal.SIGSTOP)
        try:
            answers = await asyncio.gather(*(line.ask(b"PING") for _ in range(3)), return_exceptions=True)
            assert all(isinstance(answer, StoreError) for answer in answers)
            assert "did not answer within 0.2 s" in str(answers[0])
            assert line.closed.is_set()
            with pytest.raises(StoreError):
                await line.ask(b"PING")
        finally:
            server.signal(signal.SIGCONT)
            await line.close()


async def test_a_server_that_ends_fails_who_waits() -> None:
    """With what happened."""
    with Redis() as server:
        line = await Line.open(server.url, "test", 5.0)
        waiting = line.ask(b"BLPOP", b"nothing", b"0")
        await asyncio.sleep(0.05)
        server.stop()
        with pytest.raises(StoreError, match="Redis is lost"):
            await waiting
        await line.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [("redis://127.0.0.1:{port}/0", "cannot be reached"), ("redis://127.0.0.1:nonsense/0", "not understood")],
)
async def test_nobody_there(url: str, words: str) -> None:
    """Said at once."""
    with pytest.raises(StoreError, match=words):
        await Line.open(url.format(port=free_port()), "test", 1.0)


async def test_a_wrong_password(redis: Redis) -> None:
    """Said, without the password."""
    with pytest.raises(StoreError, match="cannot be reached") as raised:
        await Line.open(f"redis://:wrong-one@127.0.0.1:{redis.port}/0", "test", 1.0)
    assert "wrong-one" not in str(raised.value)
