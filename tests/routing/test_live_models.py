"""What providers said of their models, on a disk that may be missing, read-only or full of rubbish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aigw.routing.live_models import LiveModels

URL = "Target(GET https://api.openai.com:443/v1/models)"


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    """By another object, as another process would; the folder is private."""
    LiveModels(tmp_path / "models").save("openai", URL, ["gpt-6", "o5"], 1.5)
    assert LiveModels(tmp_path / "models").load("openai", URL) == ["gpt-6", "o5"]
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["openai.json"]


def test_a_new_list_replaces_the_old(tmp_path: Path) -> None:
    """Also by an empty one: a provider may have nothing left."""
    live = LiveModels(tmp_path)
    live.save("openai", URL, ["gpt-6"], 1.0)
    live.save("openai", URL, [], 2.0)
    assert live.load("openai", URL) == []


def test_another_address_has_other_models(tmp_path: Path) -> None:
    """A list belongs to the address that gave it."""
    live = LiveModels(tmp_path)
    live.save("local", URL, ["llama"], 1.0)
    assert live.load("local", URL.replace("443", "8443")) == []
    assert live.load("other", URL) == []


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"url":1}', b"\xff\xfe", b'{"url":"u","at":1,"models":[1]}'])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, rubbish: bytes) -> None:
    """And the next list repairs it."""
    live = LiveModels(tmp_path)
    live.save("openai", URL, ["gpt-6"], 1.0)
    (tmp_path / "openai.json").write_bytes(rubbish)
    assert live.load("openai", URL) == []
    live.save("openai", URL, ["gpt-6"], 1.0)
    assert live.load("openai", URL) == ["gpt-6"]


def test_what_cannot_be_written_hurts_nobody(tmp_path: Path) -> None:
    """A file where the folder should be: nothing is kept, nothing is raised."""
    (tmp_path / "models").write_text("")
    live = LiveModels(tmp_path / "models")
    live.save("openai", URL, ["gpt-6"], 1.0)
    assert live.load("openai", URL) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\x00b", "..", "通义", "x" * 300, "con:nul", "a b"])
def test_a_providers_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    """Names come from a config; the file is in the folder or nowhere."""
    folder = tmp_path / "deep" / "models"
    live = LiveModels(folder)
    live.save(name, URL, ["m"], 1.0)
    assert live.load(name, URL) in (["m"], [])
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder]
    assert outside == []


def test_two_names_have_two_files(tmp_path: Path) -> None:
    """Escaping a name never makes it another's."""
    live = LiveModels(tmp_path)
    for name in ("a/b", "a%2fb", "a.b", "A.b"):
        live.save(name, URL, [name], 1.0)
    assert [live.load(name, URL) for name in ("a/b", "a%2fb", "a.b")] == [["a/b"], ["a%2fb"], ["a.b"]]
    assert json.loads((tmp_path / "a.b.json").read_bytes())["models"] == ["a.b"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """The new file takes the old one's place in one step: who has the old one open reads it to its end."""
    live = LiveModels(tmp_path)
    live.save("openai", URL, ["old"] * 1000, 1.0)
    before = (tmp_path / "openai.json").stat().st_ino
    with (tmp_path / "openai.json").open("rb") as held:
        live.save("openai", URL, ["new"], 2.0)
        assert json.loads(held.read())["models"] == ["old"] * 1000
    assert (tmp_path / "openai.json").stat().st_ino != before
    assert live.load("openai", URL) == ["new"]
