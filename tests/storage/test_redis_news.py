from __future__ import annotations

import asyncio

from aigw.storage.redis import RedisCounters
from aigw.storage.redis_news import CHANNEL, listen
from tests.servers import Redis


async def test_everybody_hears(redis: Redis) -> None:
    """What one publishes all hear, also after their connection broke; without Redis nothing fails."""
    heard: list[list[bytes]] = [[], []]
    counters = RedisCounters(redis.url)
    counters.publish(b"nobody yet")
    await counters.read([])
    listening = [asyncio.create_task(listen(redis.url, one.append)) for one in heard]

    async def told(message: bytes) -> None:
        async with asyncio.timeout(20):
            while not all(message in one for one in heard):
                counters.publish(message)
                await asyncio.sleep(0.02)

    try:
        await told(b"first")
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await told(b"second")
        redis.ask("PUBLISH", CHANNEL.decode(), "from elsewhere")
        await told(b"third")
        assert all(b"from elsewhere" in one for one in heard)
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        await counters.close()
