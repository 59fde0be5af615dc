"""Usage in the words of the record, as the usage that answers tell."""

from __future__ import annotations

from aigw.canonical import Spent
from aigw.exchange import Usage


def spent_of(usage: Usage) -> Spent:
    """Both count alike: only the fields that answers have words for go on."""
    return Spent(
        usage.input,
        usage.cached,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.audio_input,
        usage.audio_output,
    )
