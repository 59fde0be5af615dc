"""From a reference to a secret, and never a secret in a message."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from aigw.config import secrets
from aigw.errors import ConfigError

KEY = "providers.openai.keys[0]"


def complaint(reference: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        secrets.resolve(reference, key=KEY, environment=environment or {})
    assert caught.value.key == KEY
    assert str(caught.value).startswith(KEY + ": ")
    return caught.value.message


def secret_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_three_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable, a file, the secret itself; newlines at the end are no part of it, ~ is the home."""
    secret_file(tmp_path / "key", b"sk-file\r\n\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("A_KEY", "sk-env\n")
    assert secrets.resolve("env:A_KEY", key=KEY) == "sk-env"
    assert secrets.resolve("env:A_KEY", key=KEY, environment={"A_KEY": "other"}) == "other"
    assert secrets.resolve("file:~/key", key=KEY) == "sk-file"
    assert secrets.resolve(f"file:{tmp_path}/key", key=KEY) == "sk-file"
    assert secrets.resolve("sk-literal:with/signs=+", key=KEY) == "sk-literal:with/signs=+"
    assert secrets.resolve("http://user:password@proxy:3128", key=KEY) == "http://user:password@proxy:3128"
    assert secrets.resolve(f"sha256:{'a' * 64}", key=KEY) == f"sha256:{'a' * 64}"


def test_what_is_missing_or_empty() -> None:
    """The message names variable and key."""
    assert complaint("env:NO_SUCH") == "the environment variable NO_SUCH is not set"
    assert complaint("env:EMPTY", {"EMPTY": ""}) == "the environment variable EMPTY is empty"
    assert complaint("env:EMPTY", {"EMPTY": "\n"}) == "the environment variable EMPTY is empty"
    assert complaint("") == "is empty; expected env:NAME, file:PATH or the secret itself"
    assert complaint("  ") == "is empty; expected env:NAME, file:PATH or the secret itself"


def test_mistaken_forms() -> None:
    """A secret behind env: is not repeated; shell variables are told apart from literals."""
    assert "sk-abc" not in complaint("env:sk-abc")
    assert complaint("$OPENAI_API_KEY") == "variables are not expanded here; write env:OPENAI_API_KEY"
    assert complaint("${OPENAI_API_KEY}") == "variables are not expanded here; write env:OPENAI_API_KEY"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Missing, a directory, empty, huge, binary, relative, open to others: each in plain words."""
    missing, empty, big = tmp_path / "missing", secret_file(tmp_path / "empty", b"\n"), tmp_path / "big"
    assert complaint(f"file:{missing}") == f'cannot read "{missing}": No such file or directory'
    assert complaint(f"file:{empty}") == f'"{empty}" is empty'
    assert complaint(f"file:{tmp_path}") == f'"{tmp_path}" is a directory; expected a file that holds one secret'
    assert "larger than 64 KB" in complaint(f"file:{secret_file(big, b'x' * 70_000)}")
    assert "larger than 64 KB" in complaint("file:/dev/zero") or "others may write" in complaint("file:/dev/zero")
    assert "is not text" in complaint(f"file:{secret_file(tmp_path / 'binary', bytes([255, 254, 0]))}")
    assert complaint("file:keys/openai") == "file:keys/openai: expected a path that begins with / or ~/"
    assert complaint("file:") == "file:: expected a path that begins with / or ~/"
    loose = secret_file(tmp_path / "loose", b"sk-x", 0o620)
    assert complaint(f"file:{loose}") == f'others may write to "{loose}" (mode 0620); run: chmod 600 {loose}'
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert complaint(f"file:{fifo}") == f'"{fifo}" is empty'  # and does not wait for a writer


def test_a_file_without_permission(tmp_path: Path) -> None:
    """Unreadable is said as such."""
    path = secret_file(tmp_path / "closed", b"x", 0o000)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything; nobody may not
    try:
        assert complaint(f"file:{path}") == f'cannot read "{path}": Permission denied'
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("sk-a bc", "white space (character 5 of 7)"),
        (" sk-abc", "white space (character 1 of 7)"),
        ("sk-abc\nx-evil: 1", "white space (character 7 of 16)"),
        ("sk-\x00abc", "a control character (character 4 of 7)"),
        ("sk-\x7fabc", "a control character (character 4 of 7)"),
        ("sk-abc…", "a character outside ASCII (character 7 of 7)"),
    ],
)
def test_secrets_no_header_can_carry(secret: str, reason: str, tmp_path: Path) -> None:
    """White space, control characters and fancy quotes are refused from every source, by position and never by value."""
    path = secret_file(tmp_path / "key", secret.encode())
    for message in (complaint(secret), complaint("env:K", {"K": secret}), complaint(f"file:{path}")):
        assert f"holds {reason}" in message
        assert "sk-" not in message


@given(st.text(min_size=1), st.booleans())
def test_a_secret_comes_back_whole_or_not_at_all(text: str, literal: bool) -> None:
    """Whatever the text: it is returned as it is (less newlines at the end), or refused without being shown."""
    secret = f"S3CR3T-{text}"
    reference, environment = (secret, {}) if literal else ("env:K", {"K": secret})
    if all("!" <= character <= "~" for character in secret.rstrip("\r\n")):
        assert secrets.resolve(reference, key=KEY, environment=environment) == secret.rstrip("\r\n")
    else:
        with pytest.raises(ConfigError) as caught:
            secrets.resolve(reference, key=KEY, environment=environment)
        assert "S3CR3T" not in str(caught.value) + repr(caught.value)


def test_what_may_be_shown() -> None:
    """References as they are, anything else masked wholly."""
    assert secrets.public("env:OPENAI_API_KEY") == "env:OPENAI_API_KEY"
    assert secrets.public("file:~/.keys/openai") == "file:~/.keys/openai"
    assert secrets.public("file:a\x1b[2J") == "file:a\\x1b[2J"
    assert secrets.public("sk-abcdef") == "***"
    assert secrets.public("sha256:abcdef") == "sha256:***"
    assert [secrets.is_literal(text) for text in ("env:A", "file:b", "sha256:c", "sk-d", "")] == [
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "pasted",
    [
        "sk-abc123",
        "  sk-abc123\r\n",
        "\ufeffsk-abc123\u200b\xa0",
        '"sk-abc123",',
        "'sk-abc123';",
        "\u201csk-abc123\u201d",
        "`sk-abc123`",
        "Bearer sk-abc123",
        "Authorization: Bearer sk-abc123",
        "x-api-key: sk-abc123",
        "OPENAI_API_KEY=sk-abc123",
        "export OPENAI_API_KEY='sk-abc123'",
        'export KEY = "sk-abc123"',
        '$env:OPENAI_API_KEY = "sk-abc123"',
        "set KEY=sk-abc123",
        '  export A_KEY="Bearer sk-abc123"  ',
    ],
)
def test_a_pasted_key_is_peeled(pasted: str) -> None:
    """What a clipboard brings with a key does not become a part of it."""
    assert secrets.clean(pasted) == "sk-abc123"


@pytest.mark.parametrize("key", ["YWJjZA==", "AB_CD==", "abc=def=", "id:secret", "Bearer", "x", "key_with_bearer", "a'b"])
def test_a_key_that_only_looks_wrapped_stays_whole(key: str) -> None:
    """Base64 ends in equals signs, some keys have a colon inside."""
    assert secrets.clean(key) == key


@pytest.mark.parametrize(
    ("pasted", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ('""', "empty"),
        ("sk-one sk-two", "one key at a time"),
        ("sk-one\nsk-two", "one key at a time"),
        ("sk-ab...wxyz", "shortened"),
        ("sk-ab\u2026wxyz", "shortened"),
        ("sk-abcd****", "shortened"),
        ("sk-xxxxxxxxxxxx", "shortened"),
        ("https://api.openai.com/v1", "URL"),
        ("<your key>", "placeholder"),
        ("YOUR_API_KEY", "placeholder"),
        ("$OPENAI_API_KEY", "env:NAME"),
        ("sk-\u0430bc", "cyrillic"),
        ("sk-\x07bc", "control character"),
        ("x" * 100_000, "64 KB"),
    ],
)
def test_what_can_be_no_key_is_refused(pasted: str, why: str) -> None:
    """The message says why, and does not repeat what was pasted."""
    with pytest.raises(ValueError, match=why) as caught:
        secrets.clean(pasted)
    assert len(pasted.strip()) < 4 or pasted.strip() not in str(caught.value)


@given(st.text(max_size=60))
def test_cleaning_ends_and_is_stable(text: str) -> None:
    """Whatever is pasted: a refusal, or a key that no header refuses and that cleaning leaves alone."""
    try:
        key = secrets.clean(text)
    except ValueError:
        return
    assert secrets.clean(key) == key
    assert secrets.resolve(key, key=KEY, environment={}) == key or key.startswith(("env:", "file:", "$"))


def test_a_kept_secret_is_ours_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """0600 in a 0700 directory, whatever the umask; the reference leads back to the secret; a taken name gets a number."""
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / "conf"
    before = os.umask(0o277)
    try:
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)
        os.umask(0o022)
        first = secrets.keep(directory, "openai", "sk-1")
        os.umask(0o077)
        second = secrets.keep(directory, "openai", "sk-2")
    finally:
        os.umask(before)
    assert (first, second) == ("file:~/conf/keys/openai", "file:~/conf/keys/openai-2")
    assert [secrets.resolve(one, key=KEY) for one in (first, second)] == ["sk-1", "sk-2"]
    assert (directory / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (directory / "keys").iterdir()} == {0o600}


def test_a_kept_secrets_name_cannot_lead_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A provider's name may hold anything; the file lies in keys/ all the same."""
    monkeypatch.setenv("HOME", "/nonexistent")
    for name in ("../../etc/x", "/abs", "..", "a b\n", "名"):
        path = Path(secrets.keep(tmp_path, name, "sk-1").removeprefix("file:"))
        assert path.parent == tmp_path / "keys"
        assert path.name.isascii()
    assert len(list((tmp_path / "keys").iterdir())) == 5


def test_a_full_disk_leaves_no_half_written_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error while writing takes the file away again."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        secrets.keep(tmp_path, "openai", "sk-1")
    assert not list((tmp_path / "keys").iterdir())


def test_only_what_was_kept_is_forgotten(tmp_path: Path) -> None:
    """A file of the operator's own, a variable and a link are left alone."""
    kept = secrets.keep(tmp_path, "openai", "sk-1")
    own = secret_file(tmp_path / "own", b"sk-2")
    (tmp_path / "keys" / "link").symlink_to(own)
    assert not secrets.forget(tmp_path, f"file:{own}")
    assert not secrets.forget(tmp_path, "env:HOME")
    assert not secrets.forget(tmp_path, f"file:{tmp_path}/keys/link")
    assert not secrets.forget(tmp_path, f"file:{tmp_path}/keys/../own")
    assert own.exists()
    assert secrets.forget(tmp_path, kept)
    assert not secrets.forget(tmp_path, kept)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://me:p%40ss-word@proxy:3128", {"p%40ss-word", "p@ss-word"}),
        ("me:pass-word@proxy:3128", {"pass-word"}),
        ("http://proxy:3128", set()),
        ("http://me@proxy:3128", set()),
        ("https://host/v1?api_key=abc%2Fdef&api-version=2024-01-01", {"abc/def"}),
        ("/v1/x?token=abcdef", {"abcdef"}),
        ("http://[broken", set()),
    ],
)
def test_in_url(url: str, found: set[str]) -> None:
    """What of a URL is secret: its password, as written and as meant, and parameters that are called so; not its host."""
    assert set(secrets.in_url(url)) == found


def test_a_json_key_file_becomes_one_line(tmp_path: Path) -> None:
    """A service account's file has lines and spaces, which no header could carry; it means the same without."""
    account = {"private_key": "-----BEGIN PRIVATE KEY-----\nAB C\n", "name": "é"}
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account, indent=2))
    path.chmod(0o600)
    secret = secrets.resolve(f"file:{path}", key="k")
    assert json.loads(secret) == account
    assert re.fullmatch(r"[!-~]+", secret)
    assert secrets.packed("sk-plain") == "sk-plain"
    assert secrets.packed("{not json") == "{not json"
