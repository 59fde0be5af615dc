"""From a reference in the config to the secret itself: `env:NAME`, `file:PATH`, or a literal; and from a pasted secret to a
file and its reference.

Nothing here ever puts a secret into a message.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from aigw.config.lines import quoted
from aigw.errors import ConfigError

MAX_BYTES = 64 * 1024
"""Of a secret's file: far beyond any key, so that a wrong path (a log, a device) is noticed."""

TELLTALE = re.compile(r"auth|key|token|secret|cookie|password|credential|signature", re.IGNORECASE)
"""Names (of headers, of a URL's parameters) whose values are secrets."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SHELL = re.compile(r"\$(\w+|\{\w+\})\Z")


def resolve(reference: str, *, key: str, environment: Mapping[str, str] | None = None) -> str:
    """The secret that *reference* stands for. *key* is where it is written (`providers.openai.keys[0]`), for complaints;
    *environment* replaces the process's own.

    Newlines at the end are dropped: editors and `echo` add them. Raises ConfigError when the variable or the file is missing,
    empty or unreadable, when others could change the file, and when the secret holds something no header can carry.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        secret, source = _from_environment(rest, key, os.environ if environment is None else environment)
    elif scheme == "file":
        secret, source = _from_file(rest, key)
    else:
        secret, source = reference, "the value"
        if not secret.strip():
            raise ConfigError("is empty; expected env:NAME, file:PATH or the secret itself", key=key)
        if _SHELL.match(reference):
            name = reference.strip("${}")
            raise ConfigError(f"variables are not expanded here; write env:{name}", key=key)
    secret = packed(secret.rstrip("\r\n"))
    if not secret:
        raise ConfigError(f"{source} is empty", key=key)
    for position, character in enumerate(secret, 1):
        if not "!" <= character <= "~":
            what = (
                "white space"
                if character.isspace()
                else "a control character"
                if character < " " or character == "\x7f"
                else ("a character outside ASCII")
            )
            raise ConfigError(
                f"{source} holds {what} (character {position} of {len(secret)}); was it copied whole and alone?", key=key
            )
    return secret


def packed(secret: str) -> str:
    """A secret that is a JSON object (a service account's key file) as one line without white space; any other as it is."""
    if not secret.lstrip().startswith("{"):
        return secret
    try:
        value = json.loads(secret)
    except (ValueError, RecursionError):
        return secret
    return json.dumps(value, separators=(",", ":")).replace(" ", "\\u0020")  # what spaces are left stand in strings


def is_literal(reference: str) -> bool:
    """True when the secret itself is written there. A digest (`sha256:...`) is no secret."""
    return not reference.startswith(("env:", "file:", "sha256:"))


def public(reference: str) -> str:
    """*reference* as it may be shown: where a secret is kept, never the secret."""
    if reference.startswith(("env:", "file:")):
        return quoted(reference, 200)[1:-1]
    return "sha256:***" if reference.startswith("sha256:") else "***"


def written(item: object) -> str:
    """The reference in an item of a provider's `keys`, as plain TOML has it: a string, or a table with a `key`; else ""."""
    found = item.get("key") if isinstance(item, dict) else item
    return found if isinstance(found, str) else ""


def _from_environment(name: str, key: str, environment: Mapping[str, str]) -> tuple[str, str]:
    if not _VARIABLE.match(name):
        # not repeated: somebody may have put the secret itself behind "env:"
        raise ConfigError("what follows env: is not the name of a variable (letters, digits and _)", key=key)
    secret = environment.get(name)
    if secret is None:
        raise ConfigError(f"the environment variable {name} is not set", key=key)
    return secret, f"the environment variable {name}"


def _from_file(text: str, key: str) -> tuple[str, str]:
    path = os.path.expanduser(text)  # noqa: PTH111 - unlike Path's, leaves an unknown ~user as it is
    shown = quoted(text, 200)
    if "\0" in path or not os.path.isabs(path):  # noqa: PTH117 - plain strings here
        raise ConfigError(f"file:{shown[1:-1]}: expected a path that begins with / or ~/", key=key)
    try:
        # not to hang on a pipe that nobody writes to
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise ConfigError(f"{shown} is a directory; expected a file that holds one secret", key=key)
            if status.st_mode & 0o022:
                raise ConfigError(
                    f"others may write to {shown} (mode {status.st_mode & 0o777:04o}); run: chmod 600 {text}", key=key
                )
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"cannot read {shown}: {error.strerror}", key=key) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{shown} is larger than {MAX_BYTES // 1024} KB; expected a file that holds one secret", key=key)
    try:
        return content.decode("utf-8-sig"), shown
    except UnicodeDecodeError:
        raise ConfigError(f"{shown} is not text; expected a file that holds one secret", key=key) from None


def in_url(url: str) -> list[str]:
    """The secrets in a URL: its password, as written and decoded, and the parameters whose names tell."""
    try:
        parts = urlsplit(url if "://" in url or url.startswith("/") else f"//{url}")
        password, pairs = parts.password or "", parse_qsl(parts.query)
    except ValueError:
        return []
    found = [password, unquote(password), *(value for name, value in pairs if TELLTALE.search(name))]
    return [secret for secret in found if secret]


# ---- what people paste

# white space, and what looks like none
_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u3000\ufeff" + "".join(
    map(chr, (*range(0x2000, 0x2010), *range(0x205F, 0x2065)))
)
_ASSIGNED = re.compile(
    r"(?:(?:export|set|setx|declare\s+-x)\s+|\$env:)[A-Za-z_]\w*\s*[=\s]\s*(?=\S)"
    r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\s*[=:]\s*(?=[^=\s])",  # capitals with a _ : no key begins so and goes on with "="
    re.ASCII,
)
_HEADER = re.compile(r"(?:(?:authorization|x-api-key|api-key|x-goog-api-key)\s*:\s*)?(?:bearer\s+)?", re.IGNORECASE)
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u300c\u300d\uff02\uff07"
_MASKED = re.compile(r"\.\.\.|\u2026|\*{3}|\u2022|\u00b7{3}|[xX]{6}")
_PLACEHOLDER = re.compile(r"<.*>\Z|\[.*\]\Z|your[-_ ]?(?:api)?[-_ ]?(?:key|token)", re.IGNORECASE)


def clean(text: str) -> str:
    """The key in a pasted *text*: without the spaces, quotes, newlines, `Bearer`, `export NAME=` around it.

    Raises ValueError, which never holds the text, for what can be no key: nothing, several words or lines, the shortened form
    that consoles show, a URL, a placeholder.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"that is longer than {MAX_BYTES // 1024} KB; a key is one short line")
    key = _peeled(text)
    if not key:
        raise ValueError("that is empty")
    if _SHELL.match(key):
        raise ValueError("that is the name of a variable, not its value; write env:NAME to use a variable")
    if re.match(r"[a-z]+://", key):
        raise ValueError("that is a URL, not a key")
    if _PLACEHOLDER.match(key):
        raise ValueError("that is the placeholder of an example, not a key")
    if _MASKED.search(key):
        raise ValueError("that is a key's shortened form; the whole of it is shown once, when it is made")
    if any(character in _SPACES for character in key):
        raise ValueError("that is more than one word or line; give one key at a time")
    wrong = next((at for at, character in enumerate(key, 1) if not "!" <= character <= "~"), 0)
    if wrong:
        what = unicodedata.name(key[wrong - 1], "a control character").lower()
        raise ValueError(f"character {wrong} of {len(key)} is no plain letter, digit or sign ({what}); was it copied whole?")
    return key


def _peeled(text: str) -> str:
    """*text* without what is around a key; repeated, for one may stand inside the other."""
    while True:
        key = text.strip(_SPACES)
        for around in (_ASSIGNED, _HEADER):
            found = around.match(key)
            key = key[found.end() :] if found else key
        if key[:1] and key[0] in _QUOTES:
            key = key[1:].rstrip(",;")
        if key[-1:] and key[-1] in _QUOTES:
            key = key[:-1]
        elif key[-2:-1] in tuple(_QUOTES) and key[-1:] in (",", ";"):
            key = key[:-2]
        if key == text:
            return key
        text = key


def keep(directory: Path, name: str, value: str) -> str:
    """Keep a secret in a file of its own, `keys/NAME` in *directory* (where the config is); returns its `file:` reference.

    The file is 0600, its directory 0700; a name that is taken gets "-2", "-3" ... Raises OSError when there is no room or no
    permission; nothing half-written stays behind.
    """
    folder = directory.expanduser().absolute() / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:64] or "key"
    number = 1
    while True:
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            number += 1
            continue
        break
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - an open descriptor
            os.fchmod(descriptor, 0o600)  # whatever the umask
            file.write(value + "\n")
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return f"file:{tilde(path)}"


def forget(directory: Path, reference: str) -> bool:
    """Delete the file behind *reference* when it is one that `keep` made in *directory*; says whether it did."""
    if not reference.startswith("file:"):
        return False
    path = Path(os.path.expanduser(reference.removeprefix("file:")))  # noqa: PTH111 - as in `resolve`
    if path.parent != directory.expanduser().absolute() / "keys" or not path.is_file() or path.is_symlink():
        return False
    path.unlink()
    return True


def tilde(path: Path) -> str:
    """*path* as people write it: with ~ for their home."""
    home = os.path.expanduser("~")  # noqa: PTH111 - "~" itself when nobody knows
    inside = len(home) > 1 and path.is_relative_to(home)
    return f"~/{path.relative_to(home)}" if inside else str(path)
