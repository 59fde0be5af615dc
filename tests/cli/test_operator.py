from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aigw.access.consumer_keys import id_in, looks_valid, mint
from aigw.cli import operator
from aigw.cli.locations import Locations
from aigw.config.schema import Config
from aigw.errors import StoreError
from aigw.storage.open import open_store

if TYPE_CHECKING:
    from conftest import CommandLine


@pytest.fixture
def where(tmp_path: Path) -> Locations:
    places = Locations()
    places.data_dir = str(tmp_path / "data")
    return places


def key_file(where: Locations) -> Path:
    return where.data_path() / "operator.key"


def states(where: Locations) -> dict[str, bool]:
    """Every key of the store's one consumer by id: is it live?"""

    async def look() -> dict[str, bool]:
        store = open_store("sqlite:", where.data_path())
        try:
            consumers, keys, _ = await store.consumers()
        finally:
            await store.close()
        assert [consumer.name for consumer in consumers] == ["operator"]
        return {key.id: key.revoked is None for key in keys}

    return asyncio.run(look())


def test_it_is_made_once_and_kept_for_its_owner_alone(where: Locations) -> None:
    """The first use makes it; later ones find it. Nobody else may read the file."""
    first = operator.credential(where, Config())
    assert first.fresh
    assert looks_valid(first.key)
    assert operator.credential(where, Config()) == (first.key, False)
    assert operator.operator_key(where, Config()) == first.key
    assert key_file(where).read_text() == first.key + "\n"
    assert stat.S_IMODE(key_file(where).stat().st_mode) == 0o600
    assert states(where) == {id_in(first.key): True}


def test_a_revoked_one_is_replaced(where: Locations, aigw: CommandLine) -> None:
    """`aigw keys revoke operator` ends it; the next use has a new one."""
    first = operator.operator_key(where, Config())
    done = aigw("keys", "revoke", "operator", "--yes", "--data-dir", str(where.data_path()))
    assert done.returncode == 0, done.stderr
    second = operator.operator_key(where, Config())
    assert second != first
    assert states(where) == {id_in(first): False, id_in(second): True}


@pytest.mark.parametrize("content", [None, "", "sk-aigw-", "nonsense\n", mint("x", now=0)[0]])
def test_a_missing_or_foreign_one_is_replaced(where: Locations, content: str | None) -> None:
    """Lost, cut off, or from another database: it would open nothing, so it is made anew."""
    first = operator.operator_key(where, Config())
    key_file(where).unlink()
    if content is not None:
        key_file(where).write_text(content)
        key_file(where).chmod(0o600)
    second = operator.credential(where, Config())
    assert second.fresh
    assert second.key != first
    assert states(where)[id_in(second.key)]
    assert operator.credential(where, Config()) == (second.key, False)


def test_another_consumers_key_is_not_taken_for_it(where: Locations, aigw: CommandLine) -> None:
    """A live key of alice in that file does not make the operator spend in her name; hers goes on working."""
    operator.operator_key(where, Config())
    alices = aigw("keys", "create", "alice", "--data-dir", str(where.data_path())).stdout.strip()
    key_file(where).write_text(alices)
    second = operator.operator_key(where, Config())
    assert second != alices
    listed = json.loads(aigw("keys", "--json", "--data-dir", str(where.data_path())).stdout)
    assert {fact["key_id"]: fact["state"] for fact in listed}[id_in(alices)] == "live"


def test_one_that_others_could_read_is_ended(where: Locations) -> None:
    """Mode 0640: the key is revoked, and a new one is in a new file."""
    first = operator.operator_key(where, Config())
    key_file(where).chmod(0o640)
    with key_file(where).open() as opened_before:
        second = operator.operator_key(where, Config())
        assert opened_before.read() == first + "\n"
    assert states(where) == {id_in(first): False, id_in(second): True}
    assert stat.S_IMODE(key_file(where).stat().st_mode) == 0o600


def test_a_link_is_not_followed(where: Locations, tmp_path: Path) -> None:
    """Whoever can write there must not make us write somewhere else."""
    operator.operator_key(where, Config())
    target = tmp_path / "precious"
    target.write_text("precious")
    key_file(where).unlink()
    key_file(where).symlink_to(target)
    with pytest.raises(StoreError, match=r"operator's key .* cannot be kept"):
        operator.operator_key(where, Config())
    assert target.read_text() == "precious"


def test_many_at_once_agree(where: Locations) -> None:
    """Processes that start together, with nothing there yet, end with one key that all of them have."""
    program = (
        "import sys\n"
        "from aigw.cli.locations import Locations\n"
        "from aigw.cli.operator import operator_key\n"
        "from aigw.config.schema import Config\n"
        "where = Locations()\n"
        "where.data_dir = sys.argv[1]\n"
        "print(operator_key(where, Config()))\n"
    )

    def run(_: int) -> str:
        command = [sys.executable, "-W", "error", "-c", program, str(where.data_path())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with ThreadPoolExecutor(6) as pool:
        keys = set(pool.map(run, range(6)))
    assert len(keys) == 1
    assert states(where) == {id_in(keys.pop()): True}


def test_the_name_is_reserved(aigw: CommandLine) -> None:
    """`keys create operator` is wrong usage, says what the name is for, and makes nothing."""
    done = aigw("keys", "create", "operator")
    assert done.returncode == 2
    assert "'operator' is reserved" in done.stderr
    assert "operator.key" in done.stderr
    assert done.stdout == ""
    assert aigw("keys", "list", "--json").stdout == "[]\n"


def test_lists_say_what_it_is(where: Locations, aigw: CommandLine) -> None:
    """In `keys list`: its source for programs, a line for people."""
    key = operator.operator_key(where, Config())
    listed = json.loads(aigw("keys", "--json", "--data-dir", str(where.data_path())).stdout)
    assert [(fact["name"], fact["key_id"], fact["source"]) for fact in listed] == [("operator", id_in(key), "operator")]
    done = aigw("keys", "--data-dir", str(where.data_path()))
    assert "operator: this machine's own key" in done.stderr
    assert key not in done.stdout + done.stderr
