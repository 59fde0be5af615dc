"""A config that is kept in the store, as a node has it: `config.store.toml` in the data directory, and the node's own tables.

With `[storage] config = "store"` a node's file says only where it stands: `[server]`, `[admin]`, `[storage]` and `[log]`. All
else comes from what `aigw config apply` has put into the store. The copy on the disk is served from when the store is away.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from aigw.config.load import Loaded, config_hash, decode, load_text, read
from aigw.config.schema import Config

FILE_NAME = "config.store.toml"

OWN = ("server", "admin", "storage", "log")
"""Tables that belong to a node, and stay in its own file."""


def follows(config: Config) -> bool:
    """Whether the node with this config takes the rest of it from the store."""
    return config.storage.config == "store"


def merged(loaded: Loaded, data_dir: Path) -> Loaded:
    """What the node serves whose own file is *loaded*: that, or its own tables and the store's rest. Raises ConfigErrors."""
    config = loaded.config
    if not follows(config):
        return loaded
    path = data_dir / FILE_NAME
    warnings = loaded.warnings
    ignored = [
        name for name in Config.__struct_fields__ if name not in OWN and getattr(config, name) != getattr(Config(), name)
    ]
    if ignored:
        tables = ", ".join(f"[{name}]" for name in ignored)
        warnings += (f'{loaded.path}: {tables}: not used, for [storage] config is "store"; aigw config apply brings it there',)
    try:
        text = decode(read(path)[0], str(path))
    except FileNotFoundError:
        warnings += ('the store has no config yet ([storage] config is "store"): aigw config apply FILE',)
        return loaded._replace(config=_with_own(Config(), config), warnings=warnings)
    stored = load_text(text, path)
    both = _with_own(stored.config, config)
    return loaded._replace(
        config=both, warnings=warnings + stored.warnings, hash=config_hash(both), exists=True, located=stored.located
    )


def _with_own(stored: Config, own: Config) -> Config:
    return msgspec.structs.replace(stored, **{name: getattr(own, name) for name in OWN})


def keep(text: str, data_dir: Path) -> bool:
    """Write down what the store says, for its owner alone; False when it stands there already. Raises OSError."""
    path = data_dir / FILE_NAME
    content = text.encode()
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=data_dir)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    return True
