"""Numbers as people read them. Programs get the exact ones (--json, --csv)."""

from __future__ import annotations

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
