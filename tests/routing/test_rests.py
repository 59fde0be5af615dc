"""Long rests of keys survive a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.routing.key_pool import KeyPool
from aigw.routing.rests import Rests
from aigw.storage.sqlite import SqliteStore

KEYS = (ProviderKey("openai#1", "sk-one-secret"), ProviderKey("openai#2", "sk-two-secret"))


async def test_there_and_back(tmp_path: Path) -> None:
    """Written as it begins, read at the next start, gone when the key is well. The key itself is nowhere in the file."""
    store = SqliteStore(tmp_path / "aigw.db")
    pools = {"openai": KeyPool(KEYS)}
    rests = Rests(store, pools)
    follow = asyncio.ensure_future(rests.follow())
    error = UpstreamError("provider_credentials_invalid", "no", fault="key")
    pools["openai"].failed(KEYS[0], error, asyncio.get_running_loop().time())
    async with asyncio.timeout(5):
        while True:
            again = {"openai": KeyPool(KEYS[::-1])}
            await Rests(store, again).restore()
            if again["openai"].resting(0.0):
                break
            await asyncio.sleep(0.01)
    [(label, _, reason)] = again["openai"].resting(0.0)
    assert (label, reason) == ("openai#1", "provider_credentials_invalid")
    pools["openai"].revived(KEYS[0])
    async with asyncio.timeout(5):
        while True:
            third = {"openai": KeyPool(KEYS)}
            await Rests(store, third).restore()
            if not third["openai"].resting(0.0):
                break
            await asyncio.sleep(0.01)
    follow.cancel()
    await asyncio.gather(follow, return_exceptions=True)
    await store.close()
    assert b"sk-one-secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
