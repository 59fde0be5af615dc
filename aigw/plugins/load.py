"""From `[plugins.NAME]` tables to plugins: whose code it is, whether it may run, and whether its config makes sense.

`kind` says which plugin a table is for (its own name, unless it says otherwise): a built-in one, one that an installed package
offers (entry point `aigw.plugins`), or, with `file`, a single file in the plugin folder beside the config.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import msgspec

from aigw.errors import ConfigError
from aigw.hooks import PHASES, Host, Plugin
from aigw.plugins import BUILT_IN, trust
from aigw.plugins.entry import Counts, Entry
from aigw.plugins.scope import Scope

GROUP = "aigw.plugins"
"""Entry points by which installed packages offer plugins."""

FOLDER = "plugins"
"""Beside the config file: single-file plugins."""


class Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What may stand in every plugin's table, besides its own settings."""

    kind: str = ""  # which plugin; the table's name, where nothing is said
    file: str = ""  # a single-file plugin: its name in the plugin folder, or a path
    enabled: bool = True
    order: int = 0  # among plugins of one phase: smaller ones see a request first; then the config's order
    fail: Literal["", "open", "closed"] = ""  # when it fails: go on without it, or refuse; the plugin's own choice where unsaid
    timeout: float | None = None  # seconds for each of its asynchronous hooks; unsaid: the plugin's own choice, mostly 5
    uncovered: Literal["refuse", "pass"] = "refuse"  # requests that a "closed" plugin cannot look into
    routes: tuple[str, ...] = ()  # names or globs, here and below; none: all
    models: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # "name=value"


COMMON = frozenset(field.name for field in msgspec.structs.fields(Common))

SCOPE = ("routes", "models", "consumers", "groups", "tags")


class Source(NamedTuple):
    """A plugin's class and where it is from: "built in", "package NAME VERSION", or "file PATH (DIGEST)"."""

    plugin: type[Plugin]
    said: str


class Places(NamedTuple):
    """Where single-file plugins lie, where what is trusted is written, and whether any file may run (`[plugins] watch`)."""

    folder: Path
    data_dir: Path
    watch: bool = False


def offered() -> dict[str, importlib.metadata.EntryPoint]:
    """What installed packages offer, by name; built-in names are not theirs to take."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP) if point.name not in BUILT_IN}


def tables(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of `[plugins]`, by name; `watch` is none."""
    return {name: table for name, table in config.items() if isinstance(table, dict)}


def entry(
    name: str, table: Mapping[str, Any], number: int, places: Places, host: Callable[[str], Host], counts: dict[str, Counts]
) -> Entry | None:
    """The plugin of one table (the config's *number*th), or None when it is not enabled. Raises ConfigError with the key."""
    common, own = split(name, table)
    if not common.enabled:
        return None
    source = find(name, common, places)
    if common.routes and source.plugin.body is not Plugin.body:
        raise ConfigError("it sees requests before a route is known; use `models`", key=f"plugins.{name}.routes")
    settings = configured(name, source.plugin, own)
    try:
        plugin = source.plugin(settings, host(name))
    except ConfigError as error:
        raise ConfigError(error.message, key=error.key or f"plugins.{name}") from None
    except Exception as error:  # noqa: BLE001 - somebody else's code
        raise ConfigError(f"could not be made: {type(error).__name__}: {str(error)[:300]}", key=f"plugins.{name}") from None
    return Entry(
        name,
        plugin,
        scope=Scope(**{field: getattr(common, field) for field in SCOPE}),
        fail=common.fail or source.plugin.fail,
        timeout=common.timeout or source.plugin.timeout,
        uncovered=common.uncovered,
        order=common.order * 10_000 + number,
        counts=counts.setdefault(name, Counts()),
        source=source.said,
    )


def split(name: str, table: Mapping[str, Any]) -> tuple[Common, dict[str, Any]]:
    """What every table may say, and the plugin's own settings. Raises ConfigError."""
    own = {key: value for key, value in table.items() if key not in COMMON}
    said = {key: value for key, value in table.items() if key in COMMON}
    common = _converted(f"plugins.{name}", said, Common)
    if common.timeout is not None and not common.timeout > 0:
        raise ConfigError("expected a number of seconds above 0", key=f"plugins.{name}.timeout")
    for number, tag in enumerate(common.tags):
        if "=" not in tag:
            raise ConfigError('expected "name=value"', key=f"plugins.{name}.tags[{number}]")
    return common, own


def configured(name: str, plugin: type[Plugin], own: Mapping[str, Any]) -> msgspec.Struct:
    """*own* as the plugin's `Config`. Raises ConfigError with the key that is wrong."""
    known = [field.encode_name for field in msgspec.structs.fields(plugin.Config)]
    for key in own:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *COMMON], 1, 0.7)
            hint = f'; did you mean "{near[0]}"?' if near else f"; expected one of {', '.join(sorted([*known, *COMMON]))}"
            raise ConfigError(f"unknown key{hint}", key=f"plugins.{name}.{key}")
    found: msgspec.Struct = _converted(f"plugins.{name}", own, plugin.Config)
    return found


def _converted(where: str, values: Mapping[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        key = where + path.rstrip("`").replace("[...]", "")
        raise ConfigError(_lower(said), key=key) from None
    except (TypeError, ValueError) as error:  # a struct's own __post_init__
        raise ConfigError(str(error)[:300] or type(error).__name__, key=where) from None


def _lower(said: str) -> str:
    return said[:1].lower() + said[1:]


# --- whose code it is ---


def find(name: str, common: Common, places: Places) -> Source:
    """The class behind a table. Raises ConfigError, also for a file that nobody trusts."""
    if common.file:
        return from_file(name, common.file, places)
    kind = common.kind or name
    if kind in BUILT_IN:
        module, _, cls = BUILT_IN[kind].partition(":")
        return Source(getattr(import_module(module), cls), "built in")
    point = offered().get(kind)
    if point is not None:
        try:
            found = point.load()
        except Exception as error:  # noqa: BLE001 - somebody else's code
            raise ConfigError(
                f"the package {_package(point)} does not load: {type(error).__name__}: {str(error)[:300]}",
                key=f"plugins.{name}",
            ) from None
        return Source(_class(found, name, f"the package {_package(point)}"), f"package {_package(point)}")
    path = places.folder / f"{kind}.py"
    if path.is_file():
        return from_file(name, path.name, places)
    known = sorted([*BUILT_IN, *offered()])
    near = difflib.get_close_matches(kind, known, 1, 0.6)
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known) or 'none'}"
    raise ConfigError(
        f"no plugin is called {kind!r} ({hint}); one of your own is a file {kind}.py in {places.folder}",
        key=f"plugins.{name}.kind" if common.kind else f"plugins.{name}",
    )


def from_file(name: str, file: str, places: Places) -> Source:
    """The plugin in one file. Its content is read once: what was trusted is what runs."""
    path = Path(file).expanduser()
    if not path.is_absolute():
        path = places.folder / path
    key = f"plugins.{name}.file"
    try:
        with path.open("rb") as opened:
            content = opened.read(trust.LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", key=key) from None
    if len(content) > trust.LARGEST:
        raise ConfigError(f"{path} is larger than {trust.LARGEST // 1024} KiB; is this a plugin?", key=key)
    digest = trust.digest(content)
    if not places.watch:
        try:
            known = trust.read(places.data_dir)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"what is trusted cannot be read: {error}", key=key) from None
        if digest not in known:
            before = "has changed since it was trusted" if path.name in known.values() else "is not trusted"
            raise ConfigError(f"{path} {before}; read it, then run: aigw plugins trust {path}", key=key)
    return Source(_class(_module(content, digest, path, key), name, str(path)), f"file {path} ({digest[:12]})")


def _module(content: bytes, digest: str, path: Path, key: str) -> ModuleType:
    """*content* as a module, once for each content: a reload with the same file goes on with the same classes."""
    called = f"aigw_plugin_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest[:16]}"
    known = sys.modules.get(called)
    if known is not None:
        return known
    module = ModuleType(called)
    module.__file__ = str(path)
    sys.modules[called] = module  # dataclasses and the like look for it there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 - trusted by its hash
    except SyntaxError as error:
        del sys.modules[called]
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}", key=key) from None
    except BaseException as error:
        del sys.modules[called]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(f"{path} does not load: {type(error).__name__}: {str(error)[:300]}", key=key) from None
    return module


def _class(found: Any, name: str, where: str) -> type[Plugin]:
    """The plugin class that *found* is, or holds."""
    if isinstance(found, ModuleType):
        offers = [
            one
            for one in vars(found).values()
            if isinstance(one, type) and issubclass(one, Plugin) and one is not Plugin and one.__module__ == found.__name__
        ]
        if len(offers) > 1:
            offers = [one for one in offers if one.name] or offers
        if len(offers) != 1:
            many = "no class" if not offers else "several classes"
            raise ConfigError(f"{where} has {many} made from aigw.hooks.Plugin; expected one", key=f"plugins.{name}")
        found = offers[0]
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise ConfigError(f"{where} offers no class made from aigw.hooks.Plugin", key=f"plugins.{name}")
    check(found, name)
    return found


def check(plugin: type[Plugin], name: str) -> None:
    """Whether a class keeps the contract. Raises ConfigError."""
    key = f"plugins.{name}"
    if plugin.phase not in PHASES:
        raise ConfigError(f"its phase is {plugin.phase!r}; expected one of {', '.join(PHASES)}", key=key)
    if not (isinstance(plugin.Config, type) and issubclass(plugin.Config, msgspec.Struct)):
        raise ConfigError("its Config is no msgspec.Struct", key=key)
    strange = set(plugin.reads) - {"request", "answer", "stream"}
    if strange:
        raise ConfigError(f"it reads {', '.join(sorted(strange))}; expected request, answer, stream", key=key)
    needs = {"event": "stream", "events": "stream", "answer": "answer", "complete": "answer"}
    for hook, what in needs.items():
        if getattr(plugin, hook) is not getattr(Plugin, hook) and what not in plugin.reads:
            raise ConfigError(f'it has the hook {hook!r}, and does not say that it reads "{what}"', key=key)
    if plugin.event is not Plugin.event and plugin.events is not Plugin.events:
        raise ConfigError("it has both hooks event and events; expected one", key=key)


def _package(point: importlib.metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
