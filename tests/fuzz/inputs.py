"""What a fuzzer feeds: the corpus of a target, and odd things made from it. Each target is one function of bytes that raises
when a promise is broken; `fuzzed` makes a quick test of it, and `python -m tests.fuzz` the long form."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, example, given, settings, strategies as st

CORPUS = Path(__file__).parent / "corpus"

LONGEST = 4096
"""Bytes of a made input; what needs more is a test of its own."""

Check = Callable[[bytes], None]


class Target(NamedTuple):
    """`words` are what the target's language is made of: a fuzzer that knows them gets further."""

    check: Check
    words: Sequence[bytes]


TARGETS: dict[str, Target] = {}


def corpus(name: str) -> list[bytes]:
    """The checked-in inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def dice(data: bytes) -> random.Random:
    """Choices that belong to an input: the same input is always tried the same way."""
    return random.Random(zlib.crc32(data))


def cut(data: bytes, chance: random.Random, most: int = 12) -> Iterator[bytes]:
    """*data* in at most *most* pieces, none of them empty."""
    places = sorted({chance.randrange(1, len(data)) for _ in range(chance.randrange(most))}) if len(data) > 1 else []
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start < end:
            yield data[start:end]


def bent(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of *seeds*, bent in a few places."""
    data = chance.choice(seeds)
    for _ in range(chance.randrange(6)):
        at = chance.randint(0, len(data))
        to = min(len(data), at + chance.choice((0, 1, 1, 2, 5, 20, 100)))
        other = chance.choice(seeds)
        fresh = chance.choice(
            (
                b"",
                chance.choice(words),
                chance.choice(words),
                bytes([chance.randrange(256)]),
                data[at:to] * chance.choice((2, 3, 20)),
                other[chance.randint(0, len(other)) :][:50],
            )
        )
        data = data[:at] + fresh + data[to if chance.random() < 0.7 else at :]
    return data[:LONGEST]


def fuzzed(name: str, words: Sequence[bytes], examples: int = 400) -> Callable[[Check], Check]:
    """Makes a check a test over its corpus and *examples* inputs made from it, the same ones each time."""

    def make(check: Check) -> Check:
        TARGETS[name] = Target(check, words)
        seeds = corpus(name)
        odd = st.one_of(
            st.randoms(use_true_random=False).map(lambda chance: bent(chance, seeds, words)), st.binary(max_size=200)
        )
        test = given(odd)(check)
        for seed in seeds:
            test = example(seed)(test)
        quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
        return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)(
            test
        )

    return make
