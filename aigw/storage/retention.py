"""Old records and roll-ups go, a little at a time, so that nobody notices."""

from __future__ import annotations

import asyncio
import logging
import time

from aigw.errors import StoreError
from aigw.storage.base import Store

log = logging.getLogger("aigw.storage")

STEP = 2000
"""Rows in one transaction: some 20 ms of the writer's time."""


async def expire_in_background(
    store: Store, records: float, rollups: float, *, every: float = 3600.0, rest: float = 0.2
) -> None:
    """Until cancelled: delete records older than *records* seconds and roll-ups older than *rollups* seconds, looking *every*
    so many seconds, with a *rest* between steps that leaves the writer to those who serve (10,000 rows a second at most)."""
    while True:
        try:
            now = time.time()
            while await store.expire(now - records, now - rollups, STEP):  # noqa: ASYNC110 - a rest between steps, no wait
                await asyncio.sleep(rest)
        except StoreError as error:
            log.warning("old records could not be deleted: %s", error)
        await asyncio.sleep(every)
