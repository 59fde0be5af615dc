from __future__ import annotations

from pathlib import Path

import pytest

from aigw.config import followed
from aigw.config.load import ConfigErrors, Loaded, load_text

OWN = '[server]\nport = 9000\n[storage]\nconfig = "store"\n'


def loaded(text: str) -> Loaded:
    return load_text(text, Path("node.toml"))


def test_a_node_with_a_file_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """Whatever lies in the data directory."""
    own = loaded("[providers.demo]\n")
    followed.keep("[providers.other]\nkind = 'demo'\n", tmp_path)
    assert followed.merged(own, tmp_path) is own


def test_the_stores_config_with_the_nodes_own_tables(tmp_path: Path) -> None:
    """What the store says of ports or databases counts nowhere; records name the config that serves."""
    followed.keep("[server]\nport = 1\n[providers.demo]\n[routes.fast]\ntargets = [{provider = 'demo'}]\n", tmp_path)
    merged = followed.merged(loaded(OWN), tmp_path)
    assert merged.config.server.port == 9000
    assert list(merged.config.providers) == ["demo"]
    assert list(merged.config.routes) == ["fast"]
    assert merged.config.storage.config == "store"
    assert merged.hash != loaded(OWN).hash
    assert merged.warnings == ()


def test_nothing_was_applied_yet(tmp_path: Path) -> None:
    """It serves nothing, and says what to do; so it does of tables that are not used."""
    merged = followed.merged(loaded(OWN + "[providers.demo]\n"), tmp_path)
    assert not merged.config.providers
    assert "[providers]: not used" in merged.warnings[0]
    assert "aigw config apply" in merged.warnings[1]


def test_a_config_that_is_wrong_is_located(tmp_path: Path) -> None:
    """In the copy, where it can be looked at."""
    followed.keep("[providers.demo]\nbase = 1\n", tmp_path)
    with pytest.raises(ConfigErrors, match=r"config.store.toml:2: providers.demo.base: unknown key"):
        followed.merged(loaded(OWN), tmp_path)


def test_it_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    """In one step, with nothing left beside it; the same again is nothing new."""
    folder = tmp_path / "data"
    assert followed.keep("a = 1\n", folder)
    assert not followed.keep("a = 1\n", folder)
    assert followed.keep("a = 2\n", folder)
    path = folder / followed.FILE_NAME
    assert path.read_text() == "a = 2\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [path]
