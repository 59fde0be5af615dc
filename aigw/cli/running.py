"""What the server that runs on this machine, if one does, makes of a config that was just saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigw.cli import control, output
from aigw.cli.locations import Locations

RELOADED = {
    "server": (
        "max_body",
        "max_upload",
        "timeout",
        "stall_timeout",
        "head_timeout",
        "body_timeout",
        "body_rate",
        "keep_alive",
        "keep_alive_requests",
        "max_connections",
        "max_connections_per_address",
        "trusted",
    ),
    "storage": ("client_ip", "client_agent"),
    "admin": (),
}
"""Of tables that are read when a server starts, the keys that a reload changes all the same."""


def tell(where: Locations, before: Mapping[str, Any] | None = None) -> bool:
    """Have the running server read its config now, and say on stderr what became of it. False when it refused. *before*: the
    file's plain values before the change, to tell what needs a restart; not needed where only other tables were touched."""
    from aigw.config.edit import ConfigFile

    path = where.config_path()
    try:
        state = control.ask(where.data_path())
        if state is None:
            output.note("No server runs here; 'aigw serve' will read it.")
            return True
        pid, used = state.get("pid"), _path_of(state)
        if used is not None and used.absolute() != path.absolute():
            output.note(f"The running server (process {pid}) uses another config: {used}")
            return True
        answer = control.ask(where.data_path(), "/reload", method="POST", timeout=10.0)
    except OSError as error:
        output.warn(f"the running server could not be asked: {error.strerror}; it looks at its config every second by itself")
        return True
    if answer is None:
        output.note("The server ended meanwhile; 'aigw serve' will read it.")
        return True
    if answer.get("reloaded"):
        output.note(f"The running server (process {pid}) has taken it over.")
        late = [] if before is None else _static_changes(before, ConfigFile.read(path).get())
        if late:
            output.warn(f"{', '.join(late)}: takes effect when it is started again")
        return True
    output.fail(f"the running server (process {pid}) did not take it over, and serves on with the config it had:")
    for problem in answer.get("problems", ()):
        output.note(f"  {problem}")
    return False


def _static_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for table, reloaded in RELOADED.items():
        one, other = old.get(table, {}), new.get(table, {})
        found += [f"{table}.{key}" for key in {**one, **other} if key not in reloaded and one.get(key) != other.get(key)]
    return found


def _path_of(state: dict[str, Any]) -> Path | None:
    config = state.get("config")
    path = config.get("path") if isinstance(config, dict) else None
    return Path(path) if isinstance(path, str) and path else None
