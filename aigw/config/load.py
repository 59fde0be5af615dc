"""A TOML file becomes a `Config`, or a list of complaints, each with file, line, key and what was expected.

All that can be found wrong in one go is reported in one go. Values are never repeated in a complaint: they may be secrets.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from aigw.config import check, lines, secrets
from aigw.config.paths import default_config_path
from aigw.config.schema import Config
from aigw.errors import ConfigError

MAX_BYTES = 4 * 1024 * 1024
"""Of a config file; 10,000 routes take about 1 MB. tomllib reads roughly 1 MB a second, and a reload waits for it."""

# what other gateways call our keys; a near miss in spelling is found without this list
_ELSEWHERE = {
    "api_key": "keys",
    "api_keys": "keys",
    "key": "keys",
    "api_base": "base_url",
    "url": "base_url",
    "endpoint": "base_url",
    "type": "kind",
    "provider_type": "kind",
    "read_timeout": "first_byte_timeout",
    "model_name": "model",
    "fallbacks": "fallback",
    "num_retries": "retries",
    "max_parallel_requests": "concurrency",
    "listen": "host",
    "bind": "host",
}


class ConfigErrors(ConfigError):  # noqa: N818 - several of them
    """All that is wrong with one config: `problems`, in the order of the file. Its text has a line for each of the first 50."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        first = problems[0]
        super().__init__(first.message, file=first.file, line=first.line, key=first.key)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        shown = [str(problem) for problem in self.problems[:50]]
        more = len(self.problems) - len(shown)
        return "\n".join([*shown, f"and {more} more problems"] if more else shown)


def _as_it_is(problem: ConfigError) -> ConfigError:
    return problem


class Loaded(NamedTuple):
    """A config with what is worth saying about it. `warnings` are lines for people; `hash` names this config in records; `text`
    is how it is written.

    `located` gives a complaint that knows only its key (a variable that is not set, an unknown kind) its file and line.
    """

    config: Config
    warnings: tuple[str, ...]
    hash: str
    path: Path
    exists: bool
    located: Callable[[ConfigError], ConfigError] = _as_it_is
    text: str = ""


def load(path: Path) -> Config:
    """The config in the file *path*. A missing file is an empty one where nobody named it (`default_config_path`).

    Raises ConfigErrors.
    """
    return load_with_notes(path).config


def load_with_notes(path: Path) -> Loaded:
    """As `load`, with warnings, the config's hash and whether there is a file."""
    name = str(path)
    try:
        content, mode = read(path)
    except FileNotFoundError:
        if path != default_config_path():
            raise ConfigErrors([ConfigError("no such file (--config or $AIGW_CONFIG names it)", file=name)]) from None
        return Loaded(Config(), (), config_hash(Config()), path, exists=False)
    loaded = load_text(decode(content, name), path)
    found = literals(loaded.config)
    doubt = ""
    if mode & 0o022:
        doubt = f"others may change this file (mode {mode:04o}); run: chmod 600 {name}"
    elif mode & 0o044 and found:
        doubt = f"others may read the secrets in this file (mode {mode:04o}): {_listed(found)}; run: chmod 600 {name}"
    return loaded._replace(warnings=(*loaded.warnings, f"{name}: {doubt}")) if doubt else loaded


def load_text(text: str, path: Path) -> Loaded:
    """As `load_with_notes`, of a *text* that is, or will be, in the file *path*."""
    config, warnings = _parse(text, str(path))
    said = tuple(map(str, warnings))
    return Loaded(config, said, config_hash(config), path, exists=True, located=_locator(text, str(path)), text=text)


def _locator(text: str, name: str) -> Callable[[ConfigError], ConfigError]:
    found: lines.Lines | None = None

    def located(problem: ConfigError) -> ConfigError:
        nonlocal found
        if problem.file:
            return problem
        found = found or lines.Lines(text)  # only when there is something to say
        return ConfigError(problem.message, file=name, line=found.find_dotted(problem.key), key=problem.key)

    return located


def parse(text: str, name: str = "config.toml") -> Config:
    """The config in *text*; *name* stands for the file in complaints. Raises ConfigErrors."""
    return _parse(text, name)[0]


def config_hash(config: Config) -> str:
    """Names a config in records: 12 hex digits of the SHA-256 of its values, secrets left out. The order of providers and
    routes counts, for it decides between two claimants."""
    return hashlib.sha256(msgspec.json.encode(public(config))).hexdigest()[:12]


def public(config: Config) -> dict[str, Any]:
    """*config* as plain values that may be shown: no literal key, no header's value, no password in an address."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    for provider in plain["providers"].values():
        provider["keys"] = [
            {**key, "key": secrets.public(key["key"])} if isinstance(key, dict) else secrets.public(key)
            for key in provider["keys"]
        ]
        provider["headers"] = dict.fromkeys(provider["headers"], "***")
        provider["settings"] = {name: _setting(name, value) for name, value in provider["settings"].items()}
        provider["proxy"] = _without_user(provider["proxy"])
    for consumer in plain["consumers"].values():
        consumer["key"] = secrets.public(consumer["key"])
    for alert in plain["alerts"].values():
        alert["url"], alert["secret"] = secrets.public(alert["url"]), secrets.public(alert["secret"])
    plain["plugins"] = without_secrets(plain["plugins"])
    plain["upstream"]["proxy"] = _without_user(plain["upstream"]["proxy"])
    for name in ("url", "counters"):
        plain["storage"][name] = _without_user(plain["storage"][name])
    return plain


def without_secrets(value: Any, name: str = "") -> Any:
    """*value*, of which nobody here knows what it means, without what its names call secret."""
    if isinstance(value, dict):
        return {key: without_secrets(entry, key) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_secrets(entry, name) for entry in value]
    return _setting(name, value) if isinstance(value, str) else value


def _setting(name: str, value: str) -> str:
    return secrets.public(value) if re.search(r"key|secret|token|password|credential", name, re.IGNORECASE) else value


def _without_user(url: str | None) -> str | None:
    return url if url is None else re.sub(r"//[^/]*@", "//***@", url)


def literals(config: Config) -> list[str]:
    """Where a secret itself is written in the file, as dotted keys."""
    found = [
        lines.dotted(("providers", name, "keys"))
        for name, provider in config.providers.items()
        if any(secrets.is_literal(reference) for reference in provider.references)
    ]
    found += [
        lines.dotted(("consumers", name, "key"))
        for name, consumer in config.consumers.items()
        if secrets.is_literal(consumer.key)
    ]
    found += [
        lines.dotted(("alerts", name, field))
        for name, alert in config.alerts.items()
        for field in ("url", "secret")
        if getattr(alert, field) and secrets.is_literal(getattr(alert, field))
    ]
    proxies = {("upstream", "proxy"): config.upstream.proxy} | {
        ("providers", name, "proxy"): provider.proxy for name, provider in config.providers.items()
    }
    return found + [lines.dotted(path) for path, proxy in proxies.items() if proxy and "@" in proxy]


def holds_secrets(config: Config) -> bool:
    """Whether a secret itself may be written in it: where references may stand, in a header, or in a plugin's table."""
    headers = [value for provider in config.providers.values() for value in provider.headers.values()]
    return bool(literals(config)) or any(map(secrets.is_literal, headers)) or _names_secret(config.plugins)


def _names_secret(value: Any, name: str = "") -> bool:
    if isinstance(value, str):
        return (
            bool(value) and any(word in name for word in ("key", "secret", "token", "password")) and secrets.is_literal(value)
        )
    if isinstance(value, dict):
        return any(_names_secret(one, str(key).lower()) for key, one in value.items())
    return isinstance(value, list) and any(_names_secret(one, name) for one in value)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def read(path: Path) -> tuple[bytes, int]:
    """The file's content and permission bits. Raises FileNotFoundError, else ConfigErrors."""
    name = str(path)
    try:
        with path.open("rb") as file:  # may be a pipe: `--config <(...)`
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else 0o600
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise _wrong("is a directory; expected a TOML file", name) from None
    except (OSError, ValueError) as error:
        raise _wrong(f"cannot be read: {getattr(error, 'strerror', None) or error}", name) from None
    if len(content) > MAX_BYTES:
        raise _wrong(f"is larger than {MAX_BYTES // 1024 // 1024} MB; is this the config file?", name)
    return content, mode


def decode(content: bytes, name: str) -> str:
    """The text of the file *name*. Raises ConfigErrors when it is no UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _wrong("is UTF-16 text; save it as UTF-8", name)
    try:
        return content.decode("utf-8-sig")  # Windows editors put a mark before UTF-8
    except UnicodeDecodeError as error:
        raise _wrong("is not UTF-8 text; save it as UTF-8", name, content.count(b"\n", 0, error.start) + 1) from None


def tables(text: str, name: str) -> dict[str, Any]:
    """*text* as plain values, whatever they mean. Raises ConfigErrors, with the line, when it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([_not_toml(str(error), text, name)]) from None
    except RecursionError:
        raise _wrong("arrays or tables are nested too deeply", name) from None


def _wrong(message: str, name: str, line: int | None = None) -> ConfigErrors:
    return ConfigErrors([ConfigError(message, file=name, line=line)])


def _parse(text: str, name: str) -> tuple[Config, list[ConfigError]]:
    data = tables(text, name)
    problems: list[ConfigError] = []
    warnings: list[ConfigError] = []
    found: lines.Lines | None = None

    def noted(kind: list[ConfigError]) -> check.Note:
        def note(path: lines.Path, message: str) -> None:
            nonlocal found
            found = found or lines.Lines(text)  # only when there is something to say
            kind.append(ConfigError(message, file=name, line=found.find(path), key=lines.dotted(path)))

        return note

    values = _checked(data, Config, (), noted(problems))
    # what has the wrong type is left out here, so that the rest can still be judged
    config = Config() if values is _WRONG else msgspec.convert(values, Config)
    check.check(config, noted(problems), noted(warnings), known=_names(data))
    if problems:
        raise ConfigErrors(sorted(problems, key=lambda problem: problem.line or 0))
    return config, sorted(warnings, key=lambda warning: warning.line or 0)


def _names(data: dict[str, Any]) -> frozenset[str]:
    """The providers that are written, even those with mistakes: a route that names one is not wrong as well."""
    providers = data.get("providers")
    return frozenset(providers) if isinstance(providers, dict) else frozenset()


def _not_toml(message: str, text: str, name: str) -> ConfigError:
    where = re.search(r" \(at line (\d+), column (\d+)\)\Z", message)
    line = int(where[1]) if where else text.count("\n") + 1
    message = re.sub(r" \(at .*\)\Z", "", message)
    if message.startswith(("Cannot overwrite", "Cannot declare", "Duplicate inline", "Cannot mutate")):
        # tomllib stops behind the value; ours is the line of the key
        for repeated in lines.Lines(text).repeated:
            if repeated.line <= line:
                again = f"is written twice (first in line {repeated.first}); expected once"
                return ConfigError(again, file=name, line=repeated.line, key=lines.dotted(repeated.path))
    hint = ""
    if message == "Invalid value":
        hint = "; strings need quotes, true and false are lower-case"
    elif where is None:
        hint = "; the file ends too early"
    column = f", column {where[2]}" if where else ""
    return ConfigError(f"not TOML{column}: {message[:1].lower()}{message[1:]}{hint}", file=name, line=line)


_WRONG: Any = object()
"""Stands for a value that was complained about."""


def _checked(value: Any, kind: Any, path: lines.Path, wrong: check.Note) -> Any:
    """*value*, less what does not fit *kind*; each misfit is reported to *wrong*. `_WRONG` when nothing usable is left."""
    options = [option for option in get_args(kind) if option is not NoneType] if NoneType in get_args(kind) else [kind]
    kind = options[0]
    if kind is Any:
        return value
    if isinstance(kind, UnionType):  # a string, or a table that says more
        first, table = get_args(kind)
        kind = table if isinstance(value, dict) else first
    if get_origin(kind) is Union:  # a number, or a word
        first, words = get_args(kind)
        return value if type(value) is first or value in get_args(words) else _misfit(value, kind, path, wrong)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _checked_table(value, kind, path, wrong) if isinstance(value, dict) else _misfit(value, kind, path, wrong)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            return _misfit(value, kind, path, wrong)
        item = get_args(kind)[1]
        checked = {name: _checked(entry, item, (*path, name), wrong) for name, entry in value.items()}
        return {name: entry for name, entry in checked.items() if entry is not _WRONG}
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            return _misfit(value, kind, path, wrong)
        entries = [_checked(entry, get_args(kind)[0], (*path, index), wrong) for index, entry in enumerate(value)]
        return _WRONG if _WRONG in entries else entries
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _misfit(value, kind, path, wrong)
    if kind is float and type(value) is int:
        return value
    return value if type(value) is kind else _misfit(value, kind, path, wrong)  # bool is no int here


def _checked_table(value: Mapping[str, Any], kind: type[msgspec.Struct], path: lines.Path, wrong: check.Note) -> Any:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in value:
        if name not in fields:
            wrong((*path, name), f"unknown key{_meant(name, list(fields), path)}")
    checked: dict[str, Any] = {}
    complete = True
    for name, field in fields.items():
        entry = _WRONG
        if name in value:
            entry = _checked(value[name], field.type, (*path, name), wrong)
        elif field.required:
            wrong(path, f"has no {name}; expected {name} = {_expected(field.type)}")
        if entry is not _WRONG:
            checked[name] = entry
        elif field.required:
            complete = False
    return checked if complete else _WRONG


def _meant(name: str, known: Sequence[str], path: lines.Path) -> str:
    near = difflib.get_close_matches(name.lower()[:64], known, 1, 0.7)
    if not near and _ELSEWHERE.get(name) in known:
        near = [_ELSEWHERE[name]]
    if near:
        return f'; did you mean "{near[0]}"?'
    if not path:
        tables = [
            field.name
            for field in msgspec.structs.fields(Config)
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) and name in field.type.__struct_fields__
        ]
        if tables:
            return "; it belongs into " + " or ".join(f"[{table}]" for table in tables)
    return f"; expected one of {', '.join(known)}"


def _misfit(value: Any, kind: Any, path: lines.Path, wrong: check.Note) -> Any:
    wrong(path, f"expected {_expected(kind)}, got {_got(value)}")
    return _WRONG


def _expected(kind: Any) -> str:
    options = [option for option in get_args(kind) if option is not NoneType] if NoneType in get_args(kind) else [kind]
    kind = options[0]
    if get_origin(kind) is Union:
        return " or ".join(_expected(option) for option in get_args(kind)).replace("one of ", "")
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return "a list of strings" if item is str or isinstance(item, UnionType) else "a list of tables"
    if get_origin(kind) is dict:
        return "a table"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}.get(kind, "a table")


def _got(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list", dict: "a table"}
    if type(value) is bool:
        return "true" if value else "false"
    return names.get(type(value), "a date or time")
