from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aigw.errors import StoreError
from aigw.storage import published
from aigw.storage.base import Store
from aigw.storage.open import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store("sqlite:", tmp_path)
    yield store
    await store.close()


async def test_versions(store: Store) -> None:
    """Each is kept; the newest is served; who was slower hears of it, and has changed nothing."""
    assert await published.newest(store) is None
    first = await published.publish(store, "one", by="a@b", at=1.5, after=None)
    assert first is not None
    second = await published.publish(store, "two", by="c@d", at=2.5, after=first)
    assert second == published.Published(version=2, at=2.5, by="c@d", text="two")
    assert await published.newest(store) == second
    assert await published.publish(store, "three", by="e@f", at=3.5, after=first) is None
    assert await published.newest(store) == second
    assert await published.version(store, 1) == first
    assert await published.version(store, 2) == second
    assert await published.version(store, 9) is None


async def test_what_is_none_is_said(store: Store) -> None:
    """Something else stands there: no config to serve."""
    await store.put(published.NEWEST, b"nonsense")
    with pytest.raises(StoreError, match="cannot be read"):
        await published.newest(store)


async def test_who_follows_hears_of_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is written down; the same text again tells nobody; trouble ends nothing."""
    monkeypatch.setattr(published, "EVERY", 0.01)
    kept: list[str] = []
    heard = asyncio.Event()

    def keep(text: str) -> bool:
        if text == "trouble" and text not in kept:
            kept.append(text)
            raise OSError("no room")
        if kept and kept[-1] == text:
            return False
        kept.append(text)
        return True

    following = asyncio.create_task(published.follow(store, keep, heard.set))
    try:
        before = None
        for text in ("one", "trouble", "two"):
            before = await published.publish(store, text, by="", at=0.0, after=before)
            async with asyncio.timeout(20):
                if text == "trouble":
                    while "trouble" not in kept:
                        await asyncio.sleep(0.01)
                else:
                    await heard.wait()
            heard.clear()
        assert kept == ["one", "trouble", "two"]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
