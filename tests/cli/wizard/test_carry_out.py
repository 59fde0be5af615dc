"""A plan is carried out whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aigw.cli.locations import Locations
from aigw.cli.wizard import carry_out as room
from aigw.cli.wizard.carry_out import Done, carry_out, have_keys, unwritable
from aigw.cli.wizard.plan import Key, Model, Plan, Provider
from aigw.config import load, secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError, StoreError

SECRET = "sk-test-0123456789abcdef"


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Locations:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Locations()
    found.config, found.data_dir = str(tmp_path / "etc" / "aigw" / "config.toml"), str(tmp_path / "data")
    return found


def plan_for(where: Locations) -> Plan:
    provider = Provider("openai", keys=[Key(secret=SECRET), Key("env:OPENAI_API_KEY")])
    return Plan(where.config_path(), [provider], Model("openai", "gpt-6-sol"), consumer="me")


def done(plan: Plan, where: Locations) -> Done:
    return carry_out(plan, ConfigFile.read(plan.path), where)


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but the store's, with its content; directories too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if "data" not in path.relative_to(folder).parts
    }


def test_all_of_it(where: Locations) -> None:
    """The key's file (0600), the config, the consumer's key."""
    plan = plan_for(where)
    made = done(plan, where)
    folder = plan.path.parent
    assert made.files == ("file:~/etc/aigw/keys/openai",)
    assert secrets.resolve(made.files[0], key="") == SECRET
    assert stat.S_IMODE((folder / "keys" / "openai").stat().st_mode) == 0o600
    assert stat.S_IMODE(plan.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert load.load(plan.path).providers["openai"].keys == (made.files[0], "env:OPENAI_API_KEY")
    assert SECRET not in plan.path.read_text()
    assert made.key.startswith(f"sk-aigw-{made.key_id}-")

    async def stored() -> list[str]:
        async with where.store(made.config) as store:
            consumer = await store.consumer("me")
            assert consumer is not None
            return [key.id for key in await store.keys_of(consumer.id)]

    assert asyncio.run(stored()) == [made.key_id]
    assert have_keys(where, made.config)


def test_nobody_has_a_key_yet(where: Locations) -> None:
    """And looking makes no store."""
    assert not have_keys(where, load.parse(""))
    assert not where.data_path().exists()


def fail(error: BaseException) -> object:
    async def consumer_key(*_: object) -> tuple[str, str]:
        raise error

    return consumer_key


@pytest.mark.parametrize("error", [StoreError("no room"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_the_last_step_fails_for_a_new_config(
    where: Locations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Nothing is left, not even a directory."""
    monkeypatch.setattr(room, "_consumer_key", fail(error))
    with pytest.raises(type(error)):
        done(plan_for(where), where)
    assert everything(tmp_path) == {}


def test_the_last_step_fails_for_a_standing_config(where: Locations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is byte for byte what it was, and others' key files stay."""
    plan = plan_for(where)
    (plan.path.parent / "keys").mkdir(parents=True)
    (plan.path.parent / "keys" / "openai").write_text("old\n")
    plan.path.write_text("# mine\r\n[server]\r\nport = 9000\r\n")
    before = everything(tmp_path)
    monkeypatch.setattr(room, "_consumer_key", fail(StoreError("no")))
    with pytest.raises(StoreError):
        done(plan, where)
    assert everything(tmp_path) == before


def test_a_config_that_was_changed_meanwhile(where: Locations, tmp_path: Path) -> None:
    """Is not overwritten, and no key file stays behind."""
    plan = plan_for(where)
    plan.path.parent.mkdir(parents=True)
    plan.path.write_text("")
    file = ConfigFile.read(plan.path)
    plan.path.write_text("# somebody else\n")
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="changed"):
        carry_out(plan, file, where)
    assert everything(tmp_path) == before


@contextmanager
def small_files() -> Iterator[None]:
    """A disk on which no file gets more than a few bytes: what a full one does to writers. (No fixture: what pytest itself
    writes may go to a file.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_without_room(where: Locations, tmp_path: Path) -> None:
    """The key's file goes in, the config does not: neither stays."""
    plan = plan_for(where)
    with small_files(), pytest.raises((ConfigError, OSError)):
        done(plan, where)
    assert everything(tmp_path) == {}


def test_ctrl_c_waits_for_the_end(where: Locations, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a moment is not left half done."""
    save = ConfigFile.save

    def interrupted(file: ConfigFile) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(file)

    monkeypatch.setattr(ConfigFile, "save", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert done(plan_for(where), where).key
    assert signal.getsignal(signal.SIGINT) is before


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Is found before anybody answers questions."""
    assert unwritable(tmp_path / "new" / "config.toml") == ""
    assert "is a directory" in unwritable(tmp_path)
    (tmp_path / "file").touch()
    assert "no directory" in unwritable(tmp_path / "file" / "config.toml")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written" in unwritable(tmp_path / "locked" / "config.toml")
