"""The scrubber: no text is slow to look through, whoever made it."""

from __future__ import annotations

import time

from aigw.config.scrub import Scrubber
from aigw.providers.redact import Redactor
from tests.fuzz.inputs import dice, fuzzed
from tests.fuzz.test_scrub import SECRETS, WORDS

SLOWEST = 2.0
"""CPU seconds for 64 KB of anything. A plain text takes a hundredth of it."""


@fuzzed("scrub_time", WORDS, 60)
def test_scrub_time(data: bytes) -> None:
    """64 KB of the same few bytes again and again, which is what makes a regular expression slow."""
    piece = data[: dice(data).choice((1, 3, 8, 40, 4096))]
    body = (piece * (1 + 65536 // max(1, len(piece))))[:65536]
    began = time.thread_time()
    Redactor(SECRETS[:2]).clean(body)
    Scrubber(SECRETS).text(body.decode("utf-8", "replace"))
    spent = time.thread_time() - began
    assert spent < SLOWEST, spent
