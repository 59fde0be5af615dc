"""From a config to its plugins."""

from __future__ import annotations

from aigw.config.load import ConfigErrors, Loaded
from aigw.errors import ConfigError
from aigw.plugins import load
from aigw.plugins.entry import Counts, Entry
from aigw.plugins.host import PluginHost, Ways
from aigw.plugins.manager import Manager


def manager(loaded: Loaded, ways: Ways, counts: dict[str, Counts]) -> Manager:
    """The plugins of `[plugins]`, made and not started. *counts* are the process's, by plugin. Raises ConfigErrors with all
    that is wrong with any of them."""
    config = loaded.config
    places = load.Places(ways.config_folder / load.FOLDER, ways.data_dir, watch=config.plugins.get("watch") is True)
    problems: list[ConfigError] = []
    entries: list[Entry] = []

    def host(name: str) -> PluginHost:
        return PluginHost(name, ways, counts.setdefault(name, Counts()))

    for number, (name, table) in enumerate(config.plugins.items()):
        if name == "watch" and isinstance(table, bool):
            continue
        if not isinstance(table, dict):
            problems.append(ConfigError("expected a table", key=f"plugins.{name}"))
            continue
        try:
            made = load.entry(name, table, number, places, host, counts)
        except ConfigError as error:
            problems.append(error)
            continue
        if made is not None:
            entries.append(made)
    if problems:
        raise ConfigErrors([loaded.located(problem) for problem in problems])
    return Manager(entries, counts)
