"""Numbers as people read them. Programs get the exact ones (--json, --csv)."""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = "▁▂▃▄▅▆▇█"
_STEPS_ASCII = "_.-=+*%#"
_SYMBOLS = {"USD": "$", "CNY": "¥", "EUR": "€"}


def count(number: int) -> str:
    """12,345"""
    return f"{number:,}"


def tokens(number: int) -> str:
    """98,304; 123k; 4.56M; 7.89B: three digits where five are too many to take in."""
    if number < 100_000:
        return f"{number:,}"
    for unit, name in ((1_000, "k"), (1_000_000, "M"), (1_000_000_000, "B")):
        if number < 999.5 * unit or name == "B":
            return f"{_three(number / unit)}{name}"
    raise AssertionError  # pragma: no cover - the last unit takes all


def duration(microseconds: int | None) -> str:
    """0.85 ms, 120 ms, 1.24 s, 2m 03s; "-" where nothing was measured."""
    if microseconds is None:
        return "-"
    if microseconds < 999_500:
        return f"{_three(microseconds / 1000)} ms"
    seconds = microseconds / 1_000_000
    if seconds < 59.95:
        return f"{_three(seconds)} s"
    return f"{round(seconds) // 60}m {round(seconds) % 60:02d}s"


def share(part: int, whole: int) -> str:
    """0, 0.4 %, 12 %; "-" of nothing. What is not 0 never looks like it."""
    if not whole:
        return "-"
    if not part:
        return "0"
    percent = 100 * part / whole
    if percent < 0.095:
        return "<0.1 %"
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def rate(per_second: float | None) -> str:
    """0.85, 12.3, 123, 12.3k; "-" where nothing was measured."""
    if per_second is None:
        return "-"
    if not per_second:
        return "0"
    return _three(per_second) if per_second < 999.5 else tokens(round(per_second))


def sparkline(numbers: Sequence[float], *, ascii_only: bool = False, most: float | None = None) -> str:
    """One character for each number, as tall as it is beside the largest one (or *most*). 0 is a gap; what is not is never."""
    steps = _STEPS_ASCII if ascii_only else _STEPS
    top = max(numbers, default=0) if most is None else most
    if top <= 0:
        return " " * len(numbers)
    last = len(steps) - 1
    return "".join(" " if number <= 0 else steps[min(last, int(number / top * len(steps)))] for number in numbers)


def bar(number: float, most: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar as long as *number* is beside *most*, which takes *width* characters; to an eighth of one."""
    eighths = round(8 * width * number / most) if most > 0 else 0
    if number > 0:
        eighths = max(eighths, 1)
    if ascii_only:
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def money(costs: dict[str, int], unpriced: int = 0) -> str:
    """$1.23 + ¥0.0456, from nano-units by currency. A "?" says that some of it has no known price."""
    ordered = sorted(costs.items(), key=lambda item: item[0] != "USD")
    parts = [_amount(nano, currency) for currency, nano in ordered if nano] or [
        _amount(0, currency) for currency, _ in ordered[:1]
    ]
    if not parts:
        return "?" if unpriced else "-"
    return " + ".join(parts) + ("?" if unpriced else "")


def exact(nano: int) -> str:
    """Nano-units as a decimal string without loss: 1500000000 -> "1.5"."""
    whole, rest = divmod(abs(nano), 1_000_000_000)
    return ("-" if nano < 0 else "") + (f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole))


def _amount(nano: int, currency: str) -> str:
    value = abs(nano) / 1_000_000_000
    if not nano:
        text = "0"
    elif value >= 1:
        text = f"{value:,.2f}"
    elif value >= 0.01:
        text = f"{value:.4f}"
    else:
        text = f"{value:.9f}"
        first = next(at for at, digit in enumerate(text) if digit in "123456789")
        text = f"{value:.{min(first, 9)}f}".rstrip("0")  # two digits that count
    symbol = _SYMBOLS.get(currency, f"{currency} ")
    return ("-" if nano < 0 else "") + symbol + text


def _three(value: float) -> str:
    """About three digits: 0.85, 1.24, 12.3, 123."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
