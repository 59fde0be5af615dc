"""From a reference in the config to the secret itself: `env:NAME`, `file:PATH`, or a literal.

Nothing here ever puts a secret into a message.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from aigw.config.lines import quoted
from aigw.errors import ConfigError

MAX_BYTES = 64 * 1024
"""Of a secret's file: far beyond any key, so that a wrong path (a log, a device) is noticed."""

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
    secret = secret.rstrip("\r\n")
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


def is_literal(reference: str) -> bool:
    """True when the secret itself is written there. A digest (`sha256:...`) is no secret."""
    return not reference.startswith(("env:", "file:", "sha256:"))


def public(reference: str) -> str:
    """*reference* as it may be shown: where a secret is kept, never the secret."""
    if reference.startswith(("env:", "file:")):
        return quoted(reference, 200)[1:-1]
    return "sha256:***" if reference.startswith("sha256:") else "***"


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
