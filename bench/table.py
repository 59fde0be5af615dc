"""Figures as text: ratios first, since the machine's noise cancels in them, then absolute figures with their spread."""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison import CONNECTIONS, Comparison, Result

REFERENCE = "envoy"
GOALS = {"request_us": 1.3, "chunk_us": 0.9}  # aigw's share of the reference, at most


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left column to the left, all others to the right."""
    widths = [max(len(line[column]) for line in [heads, *rows]) for column in range(len(heads))]
    for line in [heads, ["-" * width for width in widths], *rows]:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}"


def show_comparison(comparison: Comparison) -> None:
    load = comparison.load
    print(
        f"{load.rounds} rounds, in turn; requests: wrk, {CONNECTIONS} connections, {load.seconds} s; "
        f"streams: {load.streams} at once, {load.chunks} events each, one every 20 ms; CPU of the whole process tree\n"
    )
    reference = comparison.named(REFERENCE)
    heads = [
        "median (lowest-highest)", f"x {REFERENCE}", "us/request", f"x {REFERENCE}", "us/chunk",
        "added p50 us", "added p99 us", "requests/s", "idle MB", "after MB",
    ]  # fmt: skip
    rows = [_row(result, reference) for result in comparison.results]
    show_table(heads, rows)
    print(
        f"\nadded: latency at one connection, less the upstream's own p50 {comparison.direct_p50_us:.0f} us"
        f" and p99 {comparison.direct_p99_us:.0f} us. Memory: resident, MB of 10^6 bytes."
    )
    ours = comparison.named("aigw")
    if ours and reference:
        for field, unit in (("request_us", "request"), ("chunk_us", "chunk")):
            ratio = ours.ratio(reference, field)[0]
            verdict = "met" if ratio <= GOALS[field] else "MISSED"
            print(f"per {unit}: {ratio:.2f} x {REFERENCE}, goal at most {GOALS[field]:.1f} x: {verdict}")
    if ours and ours.records is not None:
        verdict = "none is missing" if ours.records >= ours.served else f"{ours.served - ours.records} ARE MISSING"
        print(f"records: {ours.records:,} kept for {ours.served:,} answered requests: {verdict}")


def _row(result: Result, reference: Result | None) -> list[str]:
    return [
        f"{result.name} {result.version}".strip(),
        _ratio(result, reference, "request_us"),
        _absolute(result, "request_us", 1),
        _ratio(result, reference, "chunk_us"),
        _absolute(result, "chunk_us", 1),
        _absolute(result, "added_p50_us", 0),
        _absolute(result, "added_p99_us", 0),
        f"{result.median('requests_per_second'):,.0f}",
        megabytes(result.idle),
        megabytes(result.loaded),
    ]


def _absolute(result: Result, field: str, digits: int) -> str:
    low, high = result.spread(field)
    return f"{result.median(field):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _ratio(result: Result, reference: Result | None, field: str) -> str:
    if reference is None:
        return "-"
    if result is reference:
        return "1"
    middle, low, high = result.ratio(reference, field)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
