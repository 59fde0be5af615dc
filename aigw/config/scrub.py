"""Takes our secrets out of texts that somebody else wrote: a provider's error, a caller's names, a line of the log.

One `Scrubber` knows every secret of the process; what logs, records, errors, metrics and answers are made of goes through it:

    a provider's error          pipeline, before anybody hears of it
    names in a record           pipeline, where the record is made; metrics and stored rows come from there
    models of a provider        gateway, before they are listed or kept
    requests under way          server/state.py, for the control socket
    every line of the log       telemetry/log.py

(A good answer is the provider's own words and is not looked through for all of this: of it only our key is kept back, by
relay.py.)

**How a secret is found.** Short pieces of each form that a secret may take (as it is, in URLs, JSON, HTML, base64, hex) are
indexed; a text is looked through once, whatever the number of secrets. Where a piece is found and the text around it is the
secret, or at least `RUN` characters of it, that goes. So half a secret, or its middle, goes as well.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from urllib.parse import quote

MARK = "[redacted]"

RUN = 12
"""Characters of a secret, in its own order, that give it away. Fewer are what keys of one vendor have in common ("sk-ant-")."""

MOST = 10_000
"""Secrets that are remembered; a reload forgets none, so a gateway that is told a new key every hour is full after a year."""

SHORTEST = 6
"""Shorter "keys" are placeholders, and taking them out of every text would ruin more than it saves."""

PLACEHOLDERS = frozenset(
    """anything default lm-studio lmstudio localai no-key no-key-needed no-key-required not-needed not-required nothing ollama
    openai password placeholder secret sk-no-key-required unused""".split()  # noqa: SIM905 - a list of quoted words reads worse
)
"""What people write where software insists on a key and the server wants none."""

_PIECE = 6  # characters that are indexed; RUN - _PIECE + 1 apart, so every run of RUN characters holds one
_STEP = RUN - _PIECE + 1
_CROWDED = 16  # secrets that may share a piece: what more of them share is their vendor's prefix
_NAMES = 4096  # clean texts that are remembered
_LONGEST_NAME = 300
_MARGIN = 4096  # bytes looked at beyond a cut
_MASKS = 1000  # masked keys in one text; more are no message any more
_END = 16  # characters of a key that are shown on either side of a mask
_ENCODED_FROM = 8  # characters of a secret whose encodings are sought, too

_WORDS = re.compile(rf"[!-~]{{{_PIECE},}}")  # a secret holds no white space
_MASK = re.compile(r"\.{3,}|\u2026|\*{3,}|\u2022{2,}|(?:\\u2026)+")
_TAIL = re.compile(r"[A-Za-z0-9_-]{2,}")
_AFTER_MARK = re.compile(r"(\[redacted\])(?:\.{3,}|\u2026|\*{3,}|\u2022{2,})[A-Za-z0-9_-]{1,12}")

# What is a key by its looks alone, also in a name that a caller made up: long, mixed, and begun as only keys begin.
# (Looked ahead is only so far, and only words begin one: a text made to be slow to search must not be.)
_MIXED = r"(?=[\w-]{0,60}[0-9])(?=[\w-]{0,60}[A-Z])(?=[\w-]{0,60}[a-z])"
SURELY = rf"""
    (?<![A-Za-z0-9]) sk-aigw- [0-9a-z]{{10}} - [0-9A-Za-z]{{12,}}
  | (?<![A-Za-z0-9]) (?: sk-|xai-|nvapi-|pplx-|gsk_|r8_|hf_|gh[pousr]_|github_pat_ ) {_MIXED} [\w-]{{20,}}
  | AIza [0-9A-Za-z_-]{{30,}}
  | (?: AKIA|ASIA ) [0-9A-Z]{{16}}
  | (?<![\w-]) eyJ [\w-]{{8,}} \. [\w-]{{8,}} \. [\w-]+
  | (?i: bearer|basic ) \s+ (?= [^\s"]* [0-9=] ) [\w.~+/=-]{{12,}}
"""


class Scrubber:
    """Knows secrets and takes them out. Its repr shows nothing.

    *like* is a verbose regular expression of what else goes, whoever's it is.
    """

    __slots__ = ("_ends", "_index", "_like", "_longest", "_names", "_secrets", "_short", "_shortest", "_spared")

    def __init__(self, secrets: Iterable[str] = (), *, like: str = SURELY, shortest: int = SHORTEST) -> None:
        self._secrets: dict[str, None] = {}  # the newest last
        self._like = re.compile(like, re.VERBOSE | re.ASCII)
        self._shortest = shortest
        self._names: dict[str, str] = {}
        self._spared: set[str] = set()
        self._index: dict[str, tuple[tuple[str, int, bool], ...]] | None = None
        self._short: list[str] = []
        self._ends: dict[tuple[str, str], list[str]] = {}  # (its first three characters, its last two) -> secrets
        self._longest = 0
        self.learn(secrets)

    def __repr__(self) -> str:
        return f"Scrubber({len(self._secrets)} secrets)"

    def learn(self, secrets: Iterable[str]) -> None:
        """Know *secrets* too. What was known stays known: answers that began with an old key may still be under way."""
        for secret in secrets:
            if self._is_one(secret):
                self._secrets.pop(secret, None)
                self._secrets[secret] = None
        while len(self._secrets) > MOST:
            del self._secrets[next(iter(self._secrets))]
        self._index = None  # the first text pays for it, not the start
        self._names = {}

    def spare(self, names: Iterable[str]) -> None:
        """*names* are the operator's own (routes, providers, models): as a name they pass, even where a key has them in it."""
        self._spared = {name for name in names if name not in self._secrets}

    def knows(self, secret: str) -> bool:
        """Whether *secret* would be found, or is not worth it (a placeholder)."""
        return secret in self._secrets or not self._is_one(secret)

    def _is_one(self, secret: str) -> bool:
        return len(secret) >= self._shortest and secret.casefold() not in PLACEHOLDERS

    def name(self, text: str) -> str:
        """*text* without secrets; for what comes again and again (a model's name, a user agent): remembered."""
        known = self._names.get(text)
        if known is None:
            return text if text in self._spared else self._look_at(text)
        return known

    def _look_at(self, text: str) -> str:
        found = self.text(text)
        if len(text) <= _LONGEST_NAME:
            if len(self._names) >= _NAMES:
                self._names = {}
            self._names[text] = found
        return found

    def text(self, text: str) -> str:
        """*text* without secrets."""
        index = self._index
        if index is None:
            index = self._make_index()
        spans = _spans(text, index) if index else []
        for start, end in reversed(spans):
            text = f"{text[:start]}{MARK}{text[end:]}"
        for secret in self._short:
            text = text.replace(secret, MARK)
        if self._secrets and _MASK.search(text):
            text = self._unmasked(text)
        return self._like.sub(MARK, text)

    def clean(self, body: bytes, limit: int) -> bytes:
        """*body* without secrets, at most *limit* bytes of it. A secret that the limit cuts in two leaves no half behind."""
        if self._index is None:
            self._make_index()
        if len(body) <= limit:
            return self._clean(body)
        margin = max(_MARGIN, self._longest)
        window = self._clean(body[: limit + margin])
        return window[: max(0, min(limit, len(window) - margin))]

    def _clean(self, body: bytes) -> bytes:
        return self.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _unmasked(self, text: str) -> str:
        """Without keys that are shown by their ends ("gsk_ab...wxyz")."""
        text = _AFTER_MARK.sub(MARK, text)
        masks = list(islice(_MASK.finditer(text), _MASKS))
        for mask in reversed(masks):
            before = text[max(0, mask.start() - _END) : mask.start()]
            after = _TAIL.match(text, mask.end(), mask.end() + _END)
            if after is None:
                continue
            tail = after[0]
            for size in range(len(before), 2, -1):
                head = before[-size:]
                shown = self._ends.get((head[:3], tail[-2:]), ())
                if any(secret.startswith(head) and secret.endswith(tail) for secret in shown):
                    text = f"{text[: mask.start() - size]}{MARK}{text[after.end() :]}"
                    break
        return text

    def _make_index(self) -> dict[str, tuple[tuple[str, int, bool], ...]]:
        """Piece -> the forms that hold it: (form, where in it, whether a part of the form counts)."""
        whole: dict[str, bool] = {}  # form -> it is the secret itself, so a part of it counts
        self._short, self._ends = [], {}
        for secret in self._secrets:
            self._ends.setdefault((secret[:3], secret[-2:]), []).append(secret)
            if len(secret) < _PIECE:
                self._short.append(secret)
                continue
            whole.update(dict.fromkeys(forms(secret) - whole.keys(), False))
            whole[secret] = True
        places = {form: _places(form, parts=parts) for form, parts in whole.items()}
        shared = Counter(form[at : at + _PIECE] for form, found in places.items() for at in found)
        index: dict[str, list[tuple[str, int, bool]]] = {}
        for form, found in places.items():
            pieces = {form[at : at + _PIECE]: at for at in reversed(found)}
            own = [piece for piece in pieces if shared[piece] <= _CROWDED]
            for piece in own or [min(pieces, key=lambda one: shared[one])]:
                index.setdefault(piece, []).append((form, pieces[piece], whole[form]))
        self._longest = max(map(len, whole), default=0)
        self._index = {piece: tuple(found) for piece, found in index.items()}
        return self._index


def _places(form: str, *, parts: bool) -> list[int]:
    """Where in *form* the pieces are that are indexed: all over it where a part counts, else a few, the last one among them
    (the first is often a prefix that many keys share)."""
    last = len(form) - _PIECE
    return [*range(0, last, _STEP), last] if parts else sorted({0, last // 2, last})


def _spans(text: str, index: dict[str, tuple[tuple[str, int, bool], ...]]) -> list[tuple[int, int]]:
    """The parts of *text* that are secrets, in order, apart from each other."""
    spans: list[tuple[int, int]] = []
    get = index.get
    for word in _WORDS.finditer(text):
        at, end = word.span()
        last = end - _PIECE
        while at <= last:
            found = get(text[at : at + _PIECE])
            if found is None:
                at += 1
                continue
            start, stop = _widest(text, at, found)
            if stop == start:
                at += 1
                continue
            while spans and spans[-1][1] >= start:
                start = min(start, spans.pop()[0])
            spans.append((start, stop))
            at = max(at + 1, stop)
    return spans


def _widest(text: str, at: int, found: tuple[tuple[str, int, bool], ...]) -> tuple[int, int]:
    """The longest secret, or part of one, around the piece at *at*; an empty one when there is none."""
    best = at, at
    for form, offset, parts in found:
        start, stop = at - offset, at - offset + len(form)
        if start < 0 or not text.startswith(form, start):
            if not parts:
                continue
            start, stop = _run(text, at, form, offset)
            if stop - start < RUN:
                continue
        if stop - start > best[1] - best[0]:
            best = start, stop
    return best


def _run(text: str, at: int, form: str, offset: int) -> tuple[int, int]:
    """As much of *form* as stands around *at* in *text*."""
    start, first = at, offset
    while start and first and text[start - 1] == form[first - 1]:
        start, first = start - 1, first - 1
    stop, behind = at + _PIECE, offset + _PIECE
    while stop < len(text) and behind < len(form) and text[stop] == form[behind]:
        stop, behind = stop + 1, behind + 1
    return start, stop


def forms(secret: str) -> set[str]:
    """*secret* as it may stand in a text: raw, in a URL, in JSON, in HTML, in base64 (also inside a longer text, as in Basic
    credentials), in hex."""
    found = {secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), json.dumps(secret)[1:-1].replace("/", "\\/")}
    found |= {html.escape(secret), html.escape(secret, quote=False)}
    found.add(re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", secret))  # as Go writes JSON
    if len(secret) < _ENCODED_FROM:
        return found
    for safe in ("", "/", "-_.~!*'()", ":@"):
        encoded = quote(secret, safe=safe)
        found |= {encoded, re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)}
    raw = secret.encode("utf-8", "surrogateescape")
    found |= {raw.hex(), raw.hex().upper()}
    for shift in range(3):
        # Base64 works in steps of three bytes: of each alignment only the digits that the secret alone decides are sought.
        digits = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        full = (shift + len(raw)) * 8 // 6
        part = digits[-(-shift * 8 // 6) : full].decode()
        found |= {part, part.replace("+", "-").replace("/", "_"), part.replace("+", "%2B").replace("/", "%2F")}
    return {form for form in found if len(form) >= _PIECE}
