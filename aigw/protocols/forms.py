"""Forms with files (`multipart/form-data`, RFC 7578), read while they go by: the few fields that the walk must know, and where
their values stand. Bytes in, facts out; nothing is written anew.

A form may name its model behind a file of any size, and whoever names it twice would have us route by one name and the
provider work by the other. So the reader goes on to the form's end, at the cost of one search for the boundary in each block.
"""

from __future__ import annotations

import re

from aigw.errors import CallerError

BOUNDARY = 70
"""Characters of a boundary; RFC 2046 allows no more."""

HEAD = 16 * 1024
"""Bytes of one part's head. Browsers write about 150."""

VALUE = 4 * 1024
"""Bytes of a known field's value; none of them has that many."""

PARTS = 1000
"""Parts of one form."""

KNOWN = frozenset({"model", "stream", "user"})
"""Fields whose values are kept."""

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\\]*)"|([^\s;"]+))', re.IGNORECASE)
_SPELLING = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_NAME = re.compile(rb';\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


def boundary_of(content_type: str) -> bytes:
    """The boundary that the header names. Raises CallerError when there is none that can be used."""
    found = _BOUNDARY.findall(content_type)
    boundary = (found[0][0] or found[0][1]) if len(found) == 1 else ""
    if not 0 < len(boundary) <= BOUNDARY or not _SPELLING.fullmatch(boundary):
        raise CallerError(
            "caller_invalid_request",
            f"The content type multipart/form-data must name one boundary of at most {BOUNDARY} characters.",
        )
    return boundary.encode("ascii")


class Form:
    """One form going by. `fields`: the known ones seen so far, by name. `files`: how many files have begun. `at`: where the
    model's value begins in the body, and where it ends. `ended`: its last boundary has come."""

    __slots__ = ("_held", "_keeps", "_parts", "_place", "_start", "_token", "_within", "at", "ended", "fields", "files")

    def __init__(self, boundary: bytes) -> None:
        self._token = b"--" + boundary
        self._held = b"\r\n"  # as if the first boundary stood behind a line as well
        self._start = -2  # where `_held` begins in the body
        self._within = "value"  # or "head"
        self._keeps = ""  # the field whose value is read
        self._place = 0  # where its value begins in the body
        self._parts = 0
        self.fields: dict[str, str] = {}
        self.files = 0
        self.at: tuple[int, int] | None = None
        self.ended = False

    def feed(self, block: bytes) -> None:
        """Read on. Raises CallerError for what is no form, or names a known field twice."""
        if self.ended:
            return
        held, token = self._held + block, self._token
        at = 0
        while True:
            if self._within == "head":
                two = held[at : at + 2]
                if len(two) < 2:
                    break
                if two == b"--":
                    self.ended, self._held = True, b""
                    return
                if two != b"\r\n":
                    raise _no_form("a boundary has no line of its own")
                end = held.find(b"\r\n\r\n", at)
                if (len(held) if end < 0 else end) - at > HEAD:
                    raise _no_form("the head of a part is too long")
                if end < 0:
                    break
                self._begin(held[at + 2 : end])
                self._place = self._start + end + 4
                self._within = "value"
                at = end + 2
            found = held.find(token, at)
            if found < 0:
                break
            before = held[max(0, found - 2) : found]
            if before != b"\r\n":
                if before[-1:] in (b"\r", b"\n"):  # some servers would take it for a boundary, others not
                    raise _no_form("a boundary stands behind half a line end")
                at = found + 1
                continue
            if self._keeps:
                self._keep(held[self._place - self._start : found - 2])
            at = found + len(token)
            self._within = "head"
            self._parts += 1
            if self._parts > PARTS:
                raise _no_form(f"it has more than {PARTS} parts")
        if self._within == "head":
            rest = at
        elif self._keeps:
            rest = self._place - self._start - 2
            if len(held) - rest > VALUE + len(token) + 4:
                raise CallerError("caller_invalid_request", f"`{self._keeps}` is too long.", param=self._keeps)
        else:
            rest = max(0, len(held) - len(token) - 1)
        self._start += rest
        self._held = held[rest:]

    def _begin(self, head: bytes) -> None:
        """A part's head, each of its lines ended."""
        self._keeps = ""
        dispositions = [line for line in head.split(b"\r\n") if line[:20].lower() == b"content-disposition:"]
        if len(dispositions) != 1:
            raise _no_form("a part does not say which field it is")
        names = _NAME.findall(dispositions[0])
        if len(names) != 1:
            raise _no_form("a part does not say which field it is")
        if _FILE.search(dispositions[0]):
            self.files += 1
            return
        name = (names[0][0] or names[0][1]).decode("utf-8", "replace")
        if name in KNOWN:
            if name in self.fields:
                raise CallerError("caller_invalid_request", f"The form names its `{name}` twice.", param=name)
            self.fields[name] = ""
            self._keeps = name

    def _keep(self, value: bytes) -> None:
        try:
            self.fields[self._keeps] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise _no_form(f"`{self._keeps}` is not in UTF-8") from None
        if self._keeps == "model":
            self.at = (self._place, self._place + len(value))
        self._keeps = ""


def _no_form(why: str) -> CallerError:
    return CallerError("caller_invalid_request", f"The body is no form: {why}. Send multipart/form-data as RFC 7578 has it.")
