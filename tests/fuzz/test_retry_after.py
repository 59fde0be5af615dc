"""How long to wait: whatever the headers hold, a number of seconds within bounds or nothing."""

from __future__ import annotations

import math
import re

from aigw.providers.retry_after import LONGEST, retry_after
from tests.fuzz.inputs import fuzzed

WORDS = [b"retry-after: ", b"retry-after-ms: ", b"x-ratelimit-reset: ", b"x-ratelimit-remaining: 0", b"anthropic-ratelimit-"]
WORDS += [
    b"requests-reset: ",
    b"Wed, 21 Oct 2026 07:28:00 GMT",
    b"2026-11-23T20:00:00Z",
    b"6m0s",
    b"1d2h3m4s5ms",
    b"-1",
    b"1e9",
]
WORDS += [
    b"1800000000",
    b"1800000000000",
    b"\n",
    b"+99:99",
    b"99999",
    b"0",
    b".5",
    b"GMT+2400",
    b" ",
    b"x-ratelimit-reset-tokens: ",
]
NOW = 1_795_000_000.0


@fuzzed("retry_after", WORDS, 800)
def test_retry_after(data: bytes) -> None:
    """Lines `name: value`; the first without a colon is what the body asked for."""
    lines = data.decode("latin-1").split("\n")
    headers = {name.lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    delay = next((line for line in lines if ":" not in line), "")
    for now in (NOW, 0.0, 4e9):
        wait = retry_after(headers, now, delay)
        assert wait is None or (isinstance(wait, float) and math.isfinite(wait) and 0 <= wait <= LONGEST)
    asked = headers.get("retry-after", "")
    if "retry-after-ms" not in headers and re.fullmatch("[0-9]{1,3}", asked):
        assert retry_after(headers, NOW, delay) == float(asked)
