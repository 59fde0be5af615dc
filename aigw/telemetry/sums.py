"""Metrics of several processes as those of one: expositions are added up, line by line."""

from __future__ import annotations

from collections.abc import Iterable

SAME = frozenset(
    {
        "aigw_journal_bytes",  # each counts the files of all
        "aigw_journal_limit_bytes",
        "aigw_journal_full",
        "aigw_canaries_active",
        "aigw_provider_keys",
        "aigw_provider_key_rest_seconds",
        "aigw_idle_cpu",
        "aigw_version_withdrawn",
    }
)
"""Gauges that say the same in every process, or nearly: the largest one holds."""

LEAST = frozenset({"aigw_store_up", "aigw_integrity_ok"})
"""Gauges whose smallest value holds."""


def added(expositions: Iterable[bytes], gone: bytes = b"") -> bytes:
    """One exposition for all. *gone* is what processes that have ended had counted: of it only what grows still counts."""
    heads: dict[str, list[bytes]] = {}  # of each family, in the order they come
    values: dict[str, dict[bytes, float]] = {}
    for text, ended in [*((one, False) for one in expositions), (gone, True)]:
        family, kind = "", "untyped"
        fresh = False
        for line in text.splitlines():
            if line.startswith(b"# "):
                _, what, name, *rest = line.split(b" ", 3)
                family = name.decode()
                if what == b"TYPE":
                    kind = b"".join(rest).decode()
                fresh = family not in heads or (fresh and len(heads[family]) < 2)
                if fresh and not (ended and kind == "gauge"):
                    heads.setdefault(family, []).append(line)
                    values.setdefault(family, {})
            elif line and not (ended and kind == "gauge"):
                name, _, value = line.rpartition(b" ")
                known = values.setdefault(family, {})
                known[name] = _together(family, known.get(name), float(value))
    lines = []
    for family, head in heads.items():
        lines += head
        lines += [name + b" " + _number(value) for name, value in values[family].items()]
    return b"\n".join(lines) + b"\n"


def _together(family: str, known: float | None, value: float) -> float:
    if known is None:
        return value
    if family in SAME:
        return max(known, value)
    return min(known, value) if family in LEAST else known + value


def _number(value: float) -> bytes:
    return repr(value).encode()
