"""Where in a text personal data and secrets stand: by their shape, and by their checksums where they have one.

Finders are cheap where there is nothing to find: each looks for something that must be there first (an @, a digit, a known
prefix), and checksums tell an ID or a card from any other number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Found(NamedTuple):
    """A piece of a text, from `start` to `end`, and what it is."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterator[Found]]

_LOCAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])(?:\+ ?)?\(?\d(?:[ ().-]{0,2}\d){6,80}[Xx]?(?![A-Za-z0-9_])", re.ASCII)
_IP = re.compile(
    r"(?<![A-Za-z0-9_.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![A-Za-z0-9_.])", re.ASCII
)
_IBAN = re.compile(r"(?<![A-Za-z0-9_])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9_])")
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|xox[abeprs]-[A-Za-z0-9-]{10,250}|gsk_[A-Za-z0-9]{20,200}"
    r"|hf_[A-Za-z0-9]{30,100}|LTAI[A-Za-z0-9]{12,30}|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"
    r")(?![A-Za-z0-9_-])"
)
_KEY_BEGINNINGS = ("sk-", "gh", "glpat-", "AKIA", "ASIA", "AIza", "xox", "gsk_", "hf_", "LTAI", "eyJ")
_DIGIT = re.compile(r"[0-9]")
_WORD = re.compile(r"\S+")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999
_CHECKS = "10X98765432"


def emails(text: str) -> Iterator[Found]:
    at, last = text.find("@"), 0
    while at >= 0:
        local = _LOCAL.search(text, max(last, at - 64), at)
        domain = None if local is None else _DOMAIN.match(text, at + 1)
        if local is not None and domain is not None:
            last = domain.end()
            yield Found(local.start(), last, "EMAIL")
        at = text.find("@", at + 1)


def numbers(kinds: frozenset[str]) -> Finder:
    """Finds those of *kinds* (ID, CARD, PHONE) that are numbers."""

    def find(text: str) -> Iterator[Found]:
        if _DIGIT.search(text) is None:
            return
        for match in _NUMBER.finditer(text):
            kind = _kind(match[0])
            if kind in kinds:
                yield Found(match.start(), match.end(), kind)
            elif not kind and " " in match[0]:  # several numbers, one after another
                yield from _among(match[0], match.start(), kinds)

    return find


MOST_WORDS = 8
"""Into which a number may be divided by spaces; an IBAN has up to nine, a card five."""


def _among(text: str, offset: int, kinds: frozenset[str]) -> Iterator[Found]:
    """What some of the words of *text*, which stands at *offset*, are together: the longest first."""
    words = [(word.start(), word.end()) for word in _WORD.finditer(text)]
    first = 0
    while first < len(words):
        for last in range(min(len(words), first + MOST_WORDS) - 1, first - 1, -1):
            start, end = words[first][0], words[last][1]
            if (kind := _kind(text[start:end])) in kinds:
                yield Found(offset + start, offset + end, kind)
                first = last
                break
        first += 1


def _kind(text: str) -> str:
    digits = "".join(one for one in text if "0" <= one <= "9")
    if not digits:
        return ""
    if text[-1] in "Xx":
        return "ID" if _is_id(digits + "X") else ""
    if len(digits) == 18 and _is_id(digits):
        return "ID"
    if text[0] == "+" and 8 <= len(digits) <= 15:
        return "PHONE"
    if 13 <= len(digits) <= 19 and digits[0] in "23456" and _is_luhn(digits):
        return "CARD"
    local = digits.removeprefix("86") if len(digits) == 13 else digits.removeprefix("0086") if len(digits) == 15 else digits
    if len(local) == 11 and local[0] == "1" and local[1] in "3456789" and "." not in text:
        return "PHONE"  # a mobile number of mainland China
    return ""


def _is_id(text: str) -> bool:
    """An ID card number of mainland China: 17 digits and a check sign, a date of birth in it."""
    if len(text) != 18 or not text[:17].isdigit() or text[6:8] not in ("18", "19", "20"):
        return False
    if not ("01" <= text[10:12] <= "12" and "01" <= text[12:14] <= "31"):
        return False
    return _CHECKS[sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, text, strict=False)) % 11] == text[17]


def _is_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit)
        if place % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0 and len(set(digits)) > 1


def ips(text: str) -> Iterator[Found]:
    if "." in text and _DIGIT.search(text) is not None:
        for match in _IP.finditer(text):
            yield Found(match.start(), match.end(), "IP")


def ibans(text: str) -> Iterator[Found]:
    if _DIGIT.search(text) is None:
        return
    for match in _IBAN.finditer(text):
        account = match[0].replace(" ", "")
        turned = account[4:] + account[:4]
        if int("".join(str(int(one, 36)) for one in turned)) % 97 == 1:
            yield Found(match.start(), match.end(), "IBAN")


def keys(text: str) -> Iterator[Found]:
    if any(beginning in text for beginning in _KEY_BEGINNINGS):
        for match in _KEY.finditer(text):
            yield Found(match.start(), match.end(), "KEY")


def patterns(kind: str, pattern: re.Pattern[str]) -> Finder:
    """Finds what a pattern of the operator's matches."""

    def find(text: str) -> Iterator[Found]:
        for match in pattern.finditer(text):
            if match.end() > match.start():
                yield Found(match.start(), match.end(), kind)

    return find


def finders(kinds: frozenset[str]) -> list[Finder]:
    """For *kinds*, of KINDS."""
    found: list[Finder] = []
    if "KEY" in kinds:
        found.append(keys)
    if "EMAIL" in kinds:
        found.append(emails)
    if "IBAN" in kinds:
        found.append(ibans)
    if kinds & {"ID", "CARD", "PHONE"}:
        found.append(numbers(kinds & {"ID", "CARD", "PHONE"}))
    if "IP" in kinds:
        found.append(ips)
    return found


KINDS = ("KEY", "EMAIL", "IBAN", "ID", "CARD", "PHONE", "IP")


def places(text: str, all_finders: list[Finder]) -> list[Found]:
    """All that is found, from the left; of two that overlap the one that an earlier finder found."""
    taken: list[Found] = []
    for find in all_finders:
        for one in find(text):
            if all(one.end <= other.start or one.start >= other.end for other in taken):
                taken.append(one)
    return sorted(taken)
