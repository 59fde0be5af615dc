"""Where a provider is asked: the row's URLs, filled in, and moved to the operator's own base_url when there is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.protocols.realtime import REALTIME
from aigw.providers.catalog import Row

_PLACE = re.compile(r"\{([a-z_]+)\}")
_PLACE_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")

# What an OpenAI-shaped server may offer although the catalog does not know of it: its own 404 says more than our guess.
_WORTH_ASKING = frozenset(
    """embeddings images image_edits image_variations speech transcriptions translations moderations
    rerank""".split()  # noqa: SIM905 - easier to read than nine quoted words
)
# The older completions can be had from chat as well, so they are asked only of a server nobody knows more of.
_WORTH_ASKING_AT_HOME = _WORTH_ASKING | {"completions"}


_OPENAI_SHAPED = frozenset({"openai", "azure"})
"""By a row's protocol: whose files, batches and the like are OpenAI's. (Others have some of their own, by the same names.)"""


class Addresses:
    """Of one configured provider. Raises ConfigError for a URL or a setting that cannot be used."""

    def __init__(
        self, row: Row, settings: Mapping[str, str], *, base_url: str | None, anthropic_base_url: str | None, place: str
    ) -> None:
        """*settings* have the row's defaults in them; *place* is the provider's in the config ("providers.NAME")."""
        self._row, self._settings, self._place = row, settings, place
        self._given = checked_url(base_url, f"{place}.base_url") if base_url else ""
        self._anthropic = checked_url(anthropic_base_url, f"{place}.anthropic_base_url") if anthropic_base_url else ""

    def operations(self) -> dict[str, str]:
        """The URL of each operation that is served."""
        row, openai, anthropic = self._row, self._openai_surface(), self._anthropic_surface()
        gemini = self._moved(row.base_url) if row.protocol == "gemini" else ""
        worth = _WORTH_ASKING_AT_HOME if row.category in {"local", "generic"} else _WORTH_ASKING
        if (row.category, row.protocol) == ("generic", "other"):  # whatever is asked is passed on
            return {one.name: self._given + one.path for one in OPERATIONS.values() if one.door and self._given}
        said = self._said_urls()
        urls: dict[str, str] = {name: self._moved(url) for name, url in said.items() if not _door(name)}
        for operation in OPERATIONS.values():
            if not operation.door or (operation.name == "rerank" and "own-rerank-shape" in row.quirks):
                continue
            if operation.dialect.startswith("gemini"):
                if gemini:
                    urls[operation.name] = gemini + operation.path
            elif operation.dialect == "anthropic_messages":
                if anthropic:
                    urls[operation.name] = anthropic + operation.path
            elif operation.form and row.protocol == "demo":
                continue  # it has no answers for these
            elif operation.object and operation.object != "response":
                known = operation.name in row.operations or row.category in {"local", "generic"}
                if openai and known and not operation.below and row.protocol in _OPENAI_SHAPED:
                    urls[operation.name] = self._moved(said.get(operation.name, "")) or openai + operation.path
            elif openai and (operation.name in row.operations or ("chat" in row.operations and operation.name in worth)):
                urls[operation.name] = self._moved(said.get(operation.name, "")) or openai + operation.path
        for operation in OPERATIONS.values():
            if operation.below in urls and "{model}" not in urls[operation.below]:
                above, mark, query = urls[operation.below].partition("?")
                urls[operation.name] = above + operation.path.removeprefix(OPERATIONS[operation.below].path) + mark + query
        if gemini:
            urls["generate:stream"] = gemini + OPERATIONS["generate_array"].path + "?alt=sse"
        if not urls and self._given and row.served:
            raise ConfigError(
                f"expected a URL of the same form as {row.name}'s own, {row.base_url}", key=f"{self._place}.base_url"
            )
        return urls

    def root(self) -> str:
        """The row's base_url, or the operator's: what an adapter puts its own paths behind."""
        return self._moved(self._row.base_url) or self._given

    def filled(self, url: str) -> str:
        """*url* with its `{names}` of settings filled in. Raises ConfigError for one that is missing."""
        return self._filled(url)

    def realtime(self) -> tuple[str, str]:
        """The URL of the websocket (as https://, which its handshake is) and the query parameter that names the model there;
        "" when there is none. What a server of the operator's own offers nobody knows, so it is asked."""
        row, surface = self._row, self._openai_surface()
        known = "realtime" in row.capabilities or "realtime" in row.urls or row.category in {"local", "generic"}
        if not known or not surface or row.protocol not in {"openai", "azure"}:  # Google's has another dialect
            return "", ""
        if row.protocol == "azure" and self._settings.get("api_version", "")[:1].isdigit():  # a dated version: the classic form
            return self._moved(f"{row.base_url}/openai/realtime"), "deployment"
        return self._moved(row.urls.get("realtime", "")) or surface + REALTIME.path, "model"

    def models(self) -> str:
        """The URL that lists the models, "" when there is none."""
        row = self._row
        if not row.models_url:
            return ""
        url = self._moved(row.models_url)
        if url.startswith("/"):  # a server that speaks Anthropic's API alone: it has no other address
            return self._anthropic_surface() + url
        return url if url or row.protocol != "openai" else self._given + "/models"

    def key_check(self) -> str:
        """The URL whose answer tells a good key from a bad one, where that is not the list of models; else ""."""
        return self._moved(self._row.key_check)

    def _said_urls(self) -> dict[str, str]:
        """The row's URLs by operation, as the settings choose them."""
        found = dict(self._row.urls)
        for condition, urls in self._row.urls_when.items():
            name, equals, value = condition.partition("=")
            has = self._settings.get(name, "")
            if has and (not equals or has.casefold() == value.casefold()):
                found |= urls
        return found

    def _openai_surface(self) -> str:
        row = self._row
        if self._given and row.openai_surface == row.base_url:
            return self._given
        when = (row.openai_url_when.get(f"{name}={value}") for name, value in self._settings.items())
        return self._moved(next((url for url in when if url), row.openai_surface))

    def _anthropic_surface(self) -> str:
        """With its version prefix."""
        url = self._anthropic or self._moved(self._row.anthropic_url)
        if not url or self._row.protocol == "demo":
            return url
        return url.removesuffix("/v1") + "/v1"

    def _moved(self, url: str) -> str:
        """*url* of the row, filled. Where the operator gave a base_url: the same path on that server, below the same root; ""
        when the row has it on another server than its base_url, for then nobody has said where it is."""
        row, root = self._row, self._given
        if not url:
            return ""
        if url.startswith("/"):
            return (root or self._filled(row.base_url)) + url
        if not root:
            return self._filled(url)
        old, new = urlsplit(row.base_url), urlsplit(url)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return ""
        # "http://host:11434/v1" is said as often as "http://host:11434": both of the row's surfaces tell where the root is.
        own = sorted({old.path, urlsplit(row.openai_surface).path}, key=len, reverse=True)
        found = next((path for path in own if path and root.endswith(path)), None)
        if found is None and old.path and row.protocol != "anthropic":
            return ""
        return root.removesuffix(found or "") + self._filled(new.path) + (f"?{new.query}" if new.query else "")

    def _filled(self, url: str) -> str:
        for name in dict.fromkeys(_PLACE.findall(url)):
            if name == "model":  # each request's own
                continue
            value = self._settings.get(name, "").removeprefix("https://").rstrip("/")
            key = f"{self._place}.settings.{name}"
            if not value:
                setting = next((setting for setting in self._row.settings if setting.name == name), None)
                variable = f", or set {setting.env}" if setting and setting.env else ""
                raise ConfigError(f"{self._row.name} needs this to find its address{variable}", key=key)
            if not _PLACE_VALUE.fullmatch(value):
                raise ConfigError("expected letters, digits, dots and dashes: it becomes a part of the address", key=key)
            url = url.replace(f"{{{name}}}", value)
        return url


def _door(name: str) -> bool:
    """Whether callers can ask for the operation *name* ("triton:stream" is "triton")."""
    operation = OPERATIONS.get(name.partition(":")[0])
    return operation is None or operation.door


def checked_url(url: str, key: str) -> str:
    """*url* without a final slash, its host in ASCII; raises ConfigError without repeating it (it may hold a password)."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise ConfigError('expected a URL such as "https://host/v1"', key=key) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError('expected a URL that begins with "http://" or "https://"', key=key)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("credentials belong into keys, not into the URL", key=key)
    if parts.query or parts.fragment:
        raise ConfigError("a query (?) or fragment (#) cannot be a part of it: paths are put behind it", key=key)
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    if not re.fullmatch(r"[!-~]*", shown + path) or any(step in {".", ".."} for step in path.split("/")):
        raise ConfigError("it holds a space, a control character, a step upwards, or a letter beyond ASCII", key=key)
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{path}"
