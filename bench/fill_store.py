"""A store with many records, written the way the server writes them: `python -m bench.fill_store DATA_DIR ROWS`."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from aigw.exchange import Record
from aigw.storage.open import open_store

DAYS = 29  # within a question about thirty days
BATCH = 5000


def invent(number: int, at: float, dice: random.Random) -> Record:
    """One plausible exchange: 12 models of 5 providers, 40 consumers, one in fifty failed."""
    failed = dice.random() < 0.02
    model = dice.randrange(12)
    took = int(dice.lognormvariate(14.0, 0.8))  # around 1.2 s, with a long tail
    tokens = dice.randrange(200, 20_000)
    consumer = dice.randrange(40)
    return Record(
        id=f"req_{number:012x}",
        at=at,
        took=took,
        first_token=None if failed else took // 5,
        status=502 if failed else 200,
        outcome="provider_error" if failed else "ok",
        error="provider_error" if failed else "",
        operation="chat",
        dialect="openai_chat",
        stream=True,
        consumer=f"team-{consumer}",
        consumer_id=f"c{consumer}",
        key_id=f"k{consumer}",
        requested_model=f"model-{model}",
        route=f"model-{model}",
        provider=f"provider-{model % 5}",
        model=f"model-{model}",
        answer_model=f"model-{model}",
        input=tokens,
        cached=tokens // 2,
        output=0 if failed else dice.randrange(10, 2000),
        cost=0 if failed else tokens * 500,
        price_source="genai-prices",
        client_ip="127.0.0.1",
        client_agent="bench",
        finish_reason="" if failed else "stop",
        attempts='[{"provider":"provider","key":"provider#1","status":200}]',
    )


async def fill(folder: Path, rows: int) -> None:
    store = open_store("sqlite:", folder)
    try:
        now, dice = time.time(), random.Random(1)
        start = now - DAYS * 86400
        for first in range(0, rows, BATCH):
            numbers = range(first, min(rows, first + BATCH))
            await store.append([invent(number, start + (now - start) * number / rows, dice) for number in numbers])
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2])))
