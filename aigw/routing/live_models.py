"""Which models a provider says it has, remembered on disk so that a start needs no answer from anybody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec


class _Kept(msgspec.Struct):
    url: str
    at: float
    models: list[str]


class LiveModels:
    """One small file for each provider. What cannot be read or written is as if it were not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, provider: str, url: str) -> list[str]:
        """The names that *provider* listed last, when it was asked at the same *url*; [] when nothing is known."""
        try:
            kept = msgspec.json.decode(self._file(provider).read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return []
        return kept.models if kept.url == url else []

    def save(self, provider: str, url: str, models: Sequence[str], at: float) -> None:
        path = self._file(provider)
        fresh = path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(_Kept(url, at, list(models))))
            os.replace(fresh, path)  # noqa: PTH105 - one atomic step
        except OSError:
            return

    def _file(self, provider: str) -> Path:
        safe = "".join(letter if letter.isalnum() or letter in "-_." else f"%{ord(letter):x}" for letter in provider)
        return self._directory / f"{safe}.json"
