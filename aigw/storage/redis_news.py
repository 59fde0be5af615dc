"""What one node finds out about providers, told to all others in a moment: by Redis's publish and subscribe.

Nothing depends on it: a message that is lost is found out again by whoever meets the same provider next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = logging.getLogger("aigw.storage")

CHANNEL = b"aigw:news"

AGAIN = 1.0
"""Seconds until a lost subscription is tried again."""


async def listen(url: str, hear: Callable[[bytes], None]) -> None:
    """Hand every message to *hear*, until cancelled."""
    pool = ConnectionPool.from_url(
        url, client_name="aigw-news", socket_connect_timeout=2.0, socket_timeout=None, retry=Retry(NoBackoff(), 0)
    )
    while True:
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(b"SUBSCRIBE", CHANNEL)
            while True:
                message = await connection.read_response(disable_decoding=True)
                if isinstance(message, list) and message[0] == b"message":
                    hear(message[2])
        except (RedisError, OSError) as error:
            log.debug("news from other nodes: %s", error)
        finally:
            await connection.disconnect(nowait=True)
        await asyncio.sleep(AGAIN)
