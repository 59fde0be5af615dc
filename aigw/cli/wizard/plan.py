"""What is to be set up: a plain object that questions or flags fill, and that nothing has been done for yet.

`write` puts it into a config that is being edited; it says what a config means that has not been saved (`meaning`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aigw.cli.language import say
from aigw.config import load, schema, secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.providers.catalog import Row

DEFAULT = "default"
"""The name by which callers get the default model: `[routes.default]`."""

PORT = 8080


@dataclass
class Key:
    """One key of a provider: a reference that is written as it is, or a secret that gets a file of its own. `found`: in the
    environment, not named by anybody."""

    reference: str = ""
    secret: str = field(default="", repr=False)
    found: bool = False


@dataclass
class Provider:
    """A provider that is added or changed. `kind` "" is the catalog's row of that name; `old`: the config has it already.

    `keys` are the new ones; those of an old provider stay unless `replace`. `models` are those it listed just now.
    """

    name: str
    kind: str = ""
    base_url: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    old: bool = False
    replace: bool = False
    models: tuple[str, ...] = ()
    learned: dict[str, Any] = field(default_factory=dict)  # keys of its table that were found out by asking it

    def row(self) -> Row:
        """What the catalog knows of it. Raises ConfigError with the nearest names."""
        from aigw.providers import catalog

        if not self.kind and self.base_url and self.name not in catalog.ids():
            return catalog.row("openai-compatible")
        return catalog.row(self.kind or self.name)

    def table(self) -> dict[str, Any]:
        """Its keys of the config, without those for `keys`."""
        known = (("kind", self.kind), ("base_url", self.base_url), ("settings", self.settings))
        return {name: value for name, value in known if value} | self.learned


class Model(NamedTuple):
    """An upstream model at a provider."""

    provider: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"


@dataclass
class Plan:
    """What `aigw init` is about to do. `None` leaves what the config has (or its default)."""

    path: Path
    providers: list[Provider] = field(default_factory=list)
    default: Model | None = None
    fallback: Model | None = None
    no_fallback: bool = False
    port: int | None = None
    consumer: str = ""  # who gets a key; "": nobody

    def named(self, name: str) -> Provider | None:
        return next((provider for provider in self.providers if provider.name == name), None)


Reference = Callable[[Provider, Key], str]
"""The reference by which a key is written."""


def expected(plan: Plan) -> Reference:
    """References as they will be, if nobody else makes files there meanwhile."""
    folder = plan.path.absolute().parent / "keys"
    given: dict[int, str] = {}

    def reference(provider: Provider, key: Key) -> str:
        if key.reference:
            return key.reference
        if id(key) not in given:
            names = (provider.name if number == 1 else f"{provider.name}-{number}" for number in count(1))
            paths = (folder / name for name in names)
            given[id(key)] = next(
                text for path in paths if (text := f"file:{secrets.tilde(path)}") not in given.values() and not path.exists()
            )
        return given[id(key)]

    return reference


def write(plan: Plan, file: ConfigFile, reference: Reference) -> None:
    """Put *plan* into *file*, in memory. Raises ConfigError for a layout that cannot be edited."""
    new = not file.text().strip()
    port = plan.port if plan.port is not None else PORT if new else None
    if port is not None and port != (file.get("server", "port") or PORT if not new else None):
        file.set(port, "server", "port", comment=_header() if new else "")
    for provider in plan.providers:
        _provider(provider, file, reference)
    if plan.default is not None:
        target = {"provider": plan.default.provider, "model": plan.default.name}
        if file.get("routes", DEFAULT) is None:
            file.set({"targets": [target]}, "routes", DEFAULT, comment=_about_default())
        else:
            file.set([target], "routes", DEFAULT, "targets")
    if plan.fallback is not None:
        file.set([{"provider": plan.fallback.provider, "model": plan.fallback.name}], "routes", DEFAULT, "fallback")
    elif plan.no_fallback:
        file.remove("routes", DEFAULT, "fallback")


def _provider(provider: Provider, file: ConfigFile, reference: Reference) -> None:
    place = ("providers", provider.name)
    added = [reference(provider, key) for key in provider.keys]
    if file.get(*place) is None:
        table = provider.table() | ({"keys": added} if added else {})
        file.set(table, *place, comment=_about(provider))
        return
    for name, value in provider.table().items():
        file.set(value, *place, name)
    if added:
        before = [] if provider.replace else list(file.get(*place, "keys") or [])
        standing = {secrets.written(one) for one in before}
        file.set([*before, *(one for one in dict.fromkeys(added) if one not in standing)], *place, "keys")


def _header() -> str:
    return say(
        "The config of aigw. `aigw init` edits it and keeps your comments; so may you: a running server takes a saved change\n"
        "over within two seconds. `aigw config check` says what is wrong with it, or what it means. Keys are references:\n"
        "env:NAME is a variable of the server's environment, file:PATH a file that holds one key.\n"
        "\n"
        "Where models' APIs are served; only this machine reaches it.",
        "aigw 的配置。`aigw init` 会修改本文件并保留您的注释；您也可以直接编辑，运行中的服务在两秒内生效。\n"
        "`aigw config check` 检查错误并说明含义。密钥写成引用：\n"
        "env:NAME 是服务进程的环境变量，file:PATH 是只含一个密钥的文件。\n"
        "\n"
        "模型 API 的监听端口；只有本机可以访问。",
    )


def _about(provider: Provider) -> str:
    row = provider.row()
    return f"{row.name}{f' {row.name_zh}' if row.name_zh and row.name_zh not in row.name else ''}" + (
        f"; {row.docs_url}" if row.docs_url else ""
    )


def _about_default() -> str:
    return say(
        'What callers get who ask for the model "default". The fallback is asked when the targets fail.',
        "调用方请求模型 “default” 时使用；targets 失败时改用 fallback。",
    )


def schema_of(provider: Provider, file: ConfigFile) -> schema.Provider:
    """The provider's table as it will stand in the config, without keys: what a key is checked with. Raises ConfigError."""
    standing = file.get("providers", provider.name)
    values = {**(standing if isinstance(standing, dict) else {}), **provider.table(), "keys": ()}
    try:
        return msgspec.convert(values, schema.Provider)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), key=f"providers.{provider.name}") from None


def meaning(plan: Plan, file: ConfigFile, data_dir: Path) -> Names:
    """What *file* with *plan* in it would mean to a server: its providers, its names. Raises ConfigErrors with all that is
    wrong."""
    from aigw.cli.names import understood

    file = scratch(plan, file)
    config = load.parse(file.text(), str(file.path))
    names = understood(load.Loaded(config, (), "", file.path, exists=True), data_dir)
    listed = dict(names.listed)
    for name, models in ((one.name, one.models) for one in plan.providers):
        if models and name in names.providers:
            names.table.set_live(name, models)
            own = config.providers[name].models
            listed[name] = list(dict.fromkeys([*own, *models]))
    return names._replace(listed=listed)


def scratch(plan: Plan, file: ConfigFile) -> ConfigFile:
    """A copy of *file* with *plan* in it: what would be saved."""
    copied = copy.deepcopy(file)
    write(plan, copied, expected(plan))
    return copied
