"""Forbidden words and phrases in texts, also in texts that come in pieces.

The cost does not grow with the list: a text is split into words, and one look into a table of first words says which may begin
something forbidden. Scripts that write without spaces (Chinese, Japanese, Thai ...) are looked at letter by letter. Within a
word of other scripts nothing is found: "ass" is not in "class".

What differs only in case, width (full-width letters), accents, or letters that nobody sees is the same.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from operator import add

LONGEST = 200
"""Characters of an entry."""

GAP = 16
"""Characters that may stand between two words of a phrase."""

_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""

_MARKS = "\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
"""Arabic and Indic signs that belong to words; to Python's expressions they are none."""

_WORD = re.compile(rf"(?:[^\W_{_DENSE}]|[{_MARKS}])+|[{_DENSE}]")
_SPACED = re.compile(rf"(?:[^\W_{_DENSE}]|[{_MARKS}])+")
_RUN = re.compile(rf"[{_DENSE}]+")
_LETTER = re.compile(rf"[^\W_{_DENSE}]|[{_MARKS}]")
_PAIR = re.compile(rf"[{_DENSE}]{{2}}")
_SIMPLE = re.compile(r"[a-z0-9]+")


class _Folded(dict[int, str]):
    """How a character is compared, for `str.translate`; learned as characters come."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = unicodedata.category(letter)
        if kind == "Cf" or 0x0300 <= code <= 0x036F or 0xFE00 <= code <= 0xFE0F:
            made = ""  # nobody sees it, or an accent, or a variant
        else:
            made = unicodedata.normalize("NFKD", letter).casefold()
            made = "".join(one for one in made if not 0x0300 <= ord(one) <= 0x036F)
        if len(self) < 100_000:
            self[code] = made
        return made


_FOLDED = _Folded()


def fold(text: str) -> str:
    """*text* as it is compared."""
    return text.lower() if text.isascii() else text.translate(_FOLDED)


class WordList:
    """Words and phrases; `longest` is the most characters that one has."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Empty entries are left out. Raises ValueError for one that is too long or has nothing to find."""
        found: set[str] = set()
        for entry in entries:
            if not entry.strip():
                continue
            folded = _joined(fold(entry)).rstrip()
            if not folded:
                raise ValueError(f"nothing in {entry!r} can be found: it has neither letters nor digits")
            if len(folded) > LONGEST:
                raise ValueError(f"{entry[:40]!r}... is longer than {LONGEST} characters")
            found.add(folded)
        self._all = sorted(found)
        self._first: dict[str, list[str]] = {}  # by how they begin: a word, or two letters of a dense script
        self._dense = self._single = False
        for one in self._all:
            pair = _PAIR.match(one)
            match = pair or _WORD.match(one)
            assert match is not None
            self._dense = self._dense or pair is not None
            self._single = self._single or (pair is None and _RUN.match(one) is not None)
            self._first.setdefault(match[0], []).append(one)
        for phrases in self._first.values():
            phrases.sort(key=len, reverse=True)  # the longest that fits is what is found
        self.longest = max(map(len, self._all), default=0)

    def __len__(self) -> int:
        return len(self._all)

    def finds(self, text: str) -> bool:
        """Whether *text* holds any."""
        return bool(self._places(fold(text), 0))

    def places(self, text: str, begin: int = 0) -> list[tuple[int, int]]:
        """Where in *text*: from and to, in order, none inside another, from *begin* on."""
        if text.isascii():
            return self._places(text.lower(), begin)
        folded = fold(text)
        found = self._places(folded, begin and len(fold(text[:begin])))
        if not found:
            return []
        starts = _origins(text)
        return [(starts[start], starts[end] if end < len(starts) else len(text)) for start, end in found]

    def held(self, text: str, begin: int = 0) -> int:
        """Characters at the end of *text*, but not before *begin*, that may be the beginning of an entry, or one whose last
        word may go on."""
        plain = text.isascii()
        folded = text.lower() if plain else fold(text)
        start = begin if plain or not begin else len(fold(text[:begin]))
        end = len(folded)
        for match in _WORD.finditer(folded, self._back(folded, start)):
            if match.start() < start or (match.end() < end and not self._begins(folded, match)):
                continue
            if self._may_begin(folded, match.start()):
                return len(text) - (match.start() if plain else _origins(text)[match.start()])
        return 0

    def harmless(self, text: str) -> bool:
        """Whether *text* has nothing of any entry in it and ends with no beginning of one: a quick look, which may say no to
        what is harmless."""
        if not text.isascii():
            return False
        words = _SIMPLE.findall(folded := text.lower())
        if not self._first.keys().isdisjoint(words):
            return False
        if not words or not folded.endswith(last := words[-1]):
            return True
        number = bisect_left(self._all, last)
        return number == len(self._all) or not self._all[number].startswith(last)

    @staticmethod
    def _back(folded: str, start: int) -> int:
        """Where the word begins in whose middle *start* is."""
        while start and _LETTER.match(folded, start - 1):
            start -= 1
        return start

    def _begins(self, folded: str, match: re.Match[str]) -> bool:
        """Whether an entry begins with this word, behind which something stands."""
        return match[0] in self._first or (self._dense and folded[match.start() : match.start() + 2] in self._first)

    def _may_begin(self, folded: str, at: int) -> bool:
        rest = _joined(folded, at)
        number = bisect_left(self._all, rest)
        return number < len(self._all) and self._all[number].startswith(rest)

    def _places(self, folded: str, begin: int) -> list[tuple[int, int]]:
        first = self._first
        if folded.isascii():
            hits = first.keys() & _SIMPLE.findall(folded)
        else:
            hits = first.keys() & _SPACED.findall(_RUN.sub(" ", folded))
            if self._single:
                hits |= first.keys() & set(folded)
            if self._dense:
                runs = " ".join(_RUN.findall(folded))
                hits |= first.keys() & set(map(add, runs, runs[1:]))
        if not hits:
            return []
        found: list[tuple[int, int]] = []
        for hit in hits:
            at = folded.find(hit, begin)
            while at >= 0:
                if not at or not _LETTER.match(folded, at - 1) or not _LETTER.match(folded, at):
                    for phrase in first[hit]:
                        end = _matches(phrase, folded, at)
                        if end:
                            found.append((at, end))
                            break
                at = folded.find(hit, at + 1)
        found.sort()
        last, apart = 0, []
        for start, end in found:
            if start >= last:
                apart.append((start, end))
                last = end
        return apart


def _joined(folded: str, at: int = 0) -> str:
    """The words of *folded* from *at* on, one space where something stands between two, or behind the last: "a-b" and "a  b"
    are both "a b"."""
    pieces: list[str] = []
    end = at
    for match in _WORD.finditer(folded, at):
        if match.start() > end and pieces:
            pieces.append(_gap(match.start() - end))
        pieces.append(match[0])
        end = match.end()
    if end < len(folded) and pieces:
        pieces.append(_gap(len(folded) - end))
    return "".join(pieces)


def _gap(length: int) -> str:
    return " " if length <= GAP else "\n"


def _matches(phrase: str, folded: str, at: int) -> int:
    """Where *phrase*, beginning at *at*, ends in *folded*; 0 where it is not there."""
    place, end = 0, at
    for match in _WORD.finditer(folded, at):
        gap = match.start() > end
        if place and gap != (phrase[place] == " "):
            return 0
        if gap and place:
            if match.start() - end > GAP:
                return 0
            place += 1
        if not phrase.startswith(match[0], place):
            return 0
        place, end = place + len(match[0]), match.end()
        if place == len(phrase):
            return end
    return 0


def _origins(text: str) -> list[int]:
    """For each character of the folded text, the place in *text* that it is from."""
    found: list[int] = []
    for number, letter in enumerate(text):
        found += [number] * len(fold(letter))
    return found
