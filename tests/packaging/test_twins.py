"""The twin check sees what it should: a module without tests, and an exception that is none any more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def twins() -> ModuleType:
    spec = importlib.util.spec_from_file_location("twins", ROOT / "tests/twins.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twins(twins: ModuleType, tmp_path: Path) -> None:
    """No twin: named. On the list: fine, until the twin appears or the module goes."""
    (tmp_path / "aigw/room").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "room/__init__.py", "room/door.py", "wall.py"):
        (tmp_path / "aigw" / name).touch()
    assert twins.complaints(tmp_path, {"wall.py": "a wall"}) == ["aigw/room/door.py has no tests/room/test_door.py"]
    (tmp_path / "tests/room").mkdir(parents=True)
    (tmp_path / "tests/room/test_door.py").touch()
    assert twins.complaints(tmp_path, {"wall.py": "a wall"}) == []
    (tmp_path / "tests/test_wall.py").touch()
    assert len(twins.complaints(tmp_path, {"wall.py": "a wall"})) == 1
    assert len(twins.complaints(tmp_path, {"roof.py": "gone"})) == 1
