"""From a reference to a secret, and never a secret in a message."""

from __future__ import annotations

import os
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
