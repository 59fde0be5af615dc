"""What a consumer may be called: what can be typed, read aloud, and written into a log line."""

from __future__ import annotations

import unicodedata

LENGTH = 64
MARKS = "._-@/+ "
"""Besides letters and digits of any script; not at either end."""


def valid(text: str) -> str:
    """*text* composed (NFC), so that what looks equal is equal. Raises ValueError with what was expected."""
    name = unicodedata.normalize("NFC", text)
    good = (
        0 < len(name) <= LENGTH
        and name[0].isalnum()
        and name[-1] not in MARKS
        and all(one.isalnum() or one in MARKS or unicodedata.category(one)[0] == "M" for one in name)  # M: vowel signs, accents
        and "  " not in name
    )
    if not good:
        raise ValueError(
            f"expected 1 to {LENGTH} letters and digits, with {' '.join(MARKS.strip())} or single spaces between them"
        )
    return name
