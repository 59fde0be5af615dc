"""`aigw serve` that cannot start says why in one plain sentence and ends: 2 for what the operator wrote, 1 for the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.world import DEMO, HELLO, Gateway, eventually

Own = Callable[..., Gateway]

WRONG = {
    "an unknown table": ("colour = 1", r"{file}:1: colour: unknown key; expected one of server, "),
    "an unknown key": ("[server]\nprot = 1", r"{file}:2: server.prot: unknown key"),
    "a wrong type": ('[server]\nport = "x"', r"{file}:2: server.port: expected a whole number, got a string"),
    "a missing variable": (
        '[providers.openai]\nkeys = ["env:NOBODY_SET_ME"]',
        r"{file}:2: providers.openai.keys[0]: the environment variable NOBODY_SET_ME is not set",
    ),
    "a missing file": ('[providers.openai]\nkeys = ["file:/nowhere/key"]', "{file}:2: providers.openai.keys[0]: cannot read"),
    "no key": ("[providers.openai]", '{file}:1: providers.openai.keys: OpenAI needs a key: keys = ["env:OPENAI_API_KEY"]'),
    "an unknown provider": ("[providers.opneai]", "{file}:1: providers.opneai: no provider of this name is known"),
    "a duplicate route": (
        '[providers.demo]\n[routes.a]\ntargets=[{provider="demo"}]\n[routes.a]\ntargets=[{provider="demo"}]',
        "{file}:4: routes.a: is written twice (first in line 2)",
    ),
    "a bad pattern": (
        '[providers.demo]\n[routes."re:("]\ntargets=[{provider="demo"}]',
        '{file}:2: routes."re:(": not a regular expression',
    ),
    "a route to nowhere": (
        '[providers.demo]\n[routes.a]\ntargets=[{provider="dmo"}]',
        '{file}:3: routes.a.targets[0].provider: no provider "dmo" is configured',
    ),
    "no TOML": ("[server\n", "{file}:1: not TOML"),
    "open to the world": ('[server]\nhost = "0.0.0.0"\n[auth]\nrequired = false', "{file}:4: auth.required: false is allowed"),
    "two mistakes": ("a = 1\nb = 2", "{file}:2: b: unknown key"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Gateway, subprocess.CompletedProcess[str]]]:
    """How `aigw serve` ended with each of the wrong configs. Run side by side, for speed."""

    def serve(name: str) -> tuple[Gateway, subprocess.CompletedProcess[str]]:
        gateway = Gateway(tmp_path_factory.mktemp("wrong"))
        gateway.config.write_text(WRONG[name][0])
        return gateway, gateway.aigw("serve")

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(WRONG, pool.map(serve, WRONG), strict=True))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_config_names_file_line_and_key(
    ended: dict[str, tuple[Gateway, subprocess.CompletedProcess[str]]], name: str
) -> None:
    """And what was expected; exit code 2, nothing on stdout, no traceback."""
    gateway, done = ended[name]
    assert done.returncode == 2
    assert WRONG[name][1].replace("{file}", str(gateway.config)) in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_missing_config_file_that_was_named(own: Own) -> None:
    """Whoever names a file means it."""
    done = own().aigw("serve", "--config", "/nowhere/aigw.toml")
    assert done.returncode == 2
    assert "/nowhere/aigw.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("table", ["[server]", "[admin]"])
def test_a_port_in_use(own: Own, table: str) -> None:
    """One sentence: which address, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = own()
        other = "[admin]" if table == "[server]" else "[server]"
        gateway.config.write_text(f"{table}\nport = {port}\n{other}\nport = 0\n{DEMO}")
        done = gateway.aigw("serve")
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is taken by another program" in done.stderr
    assert table in done.stderr
    assert "Traceback" not in done.stderr


def test_the_default_admin_port_gives_way(own: Own) -> None:
    """Nobody wrote 8081: when it is taken the next free one is used, and said."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody has it already: as good
            stack.enter_context(socket.create_server(("127.0.0.1", 8081)))
        gateway = own()
        gateway.config.write_text(f"[server]\nport = 0\n{DEMO}")
        gateway.start()
        assert gateway.admin_port > 8081
        assert gateway.ask(None, "/healthz", method="GET", port=gateway.admin_port).status == 200


@pytest.mark.parametrize("place", ["/proc/aigw", "a file"])
def test_a_data_directory_that_cannot_be_written(own: Own, tmp_path: Path, place: str) -> None:
    """Exit code 1, and the sentence names the place."""
    if place == "a file":
        (tmp_path / "file").write_text("")
        place = str(tmp_path / "file" / "data")
    done = own(AIGW_DATA_DIR=place).aigw("serve")
    assert done.returncode == 1
    assert place in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_read_only_data_directory(own: Own, tmp_path: Path) -> None:
    """The same of a directory with a database in it that is not ours to write: serve says so at its start."""
    gateway = own()
    assert gateway.create_key("me")
    for path in [gateway.data_dir, *gateway.data_dir.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in [gateway.folder, *gateway.folder.parents]:
        if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    gateway.config.chmod(0o644)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "aigw", "serve"],
        env=gateway.environment,
        user=65534,
        group=65534,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd="/",
    )
    assert done.returncode == 1, done.stderr
    assert str(gateway.data_dir) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_from_a_newer_version(own: Own) -> None:
    """It is left alone, and the sentence says what to do."""
    gateway = own()
    assert gateway.create_key("me")
    with contextlib.closing(sqlite3.connect(gateway.database)) as connection, connection:
        connection.execute("INSERT INTO schema_version VALUES (999, 999, 0)")
        connection.execute("PRAGMA user_version = 999")
    for command in (("serve",), ("stats",), ("keys", "list")):
        done = gateway.aigw(*command)
        assert done.returncode == 1
        assert "newer" in done.stderr
        assert "Traceback" not in done.stderr


def test_what_is_no_database(own: Own) -> None:
    """A file that is something else is not overwritten."""
    gateway = own()
    gateway.data_dir.mkdir()
    gateway.database.write_bytes(b"this is a letter to my aunt, not a database" * 100)
    done = gateway.aigw("serve")
    assert done.returncode == 1
    assert "aigw.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.database.read_bytes().startswith(b"this is a letter")


def test_no_provider_yet(own: Own) -> None:
    """Serve starts all the same, says where to add one, is not ready, and serves it as soon as the file is saved."""
    gateway = own("")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    gateway.said(f"no provider is configured: add one to {gateway.config}")
    assert gateway.ask(None, "/healthz", method="GET").status == 200
    assert gateway.ask(None, "/readyz", method="GET").status == 503
    refused = gateway.ask(HELLO)
    assert (refused.status, refused.headers["x-aigw-error"]) in {
        (404, "caller_model_not_found"),
        (503, "gateway_no_provider"),
    }
    assert refused.id == refused.error["request_id"]
    assert gateway.record(refused.id).status == refused.status
    gateway.write_config(DEMO)
    eventually(lambda: gateway.ask(None, "/readyz", method="GET").status == 200)
    assert gateway.ask(HELLO).status == 200


def test_flags_win_over_the_file(own: Own) -> None:
    """--port says where, also after a reload."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gateway = own().start("--port", str(port))
    assert gateway.port == port
    begin = len(gateway.lines)
    gateway.write_config(DEMO + "[log]\nexchanges = 'all'\n")
    gateway.signal(signal.SIGHUP)
    gateway.said("reloaded", begin)
    assert gateway.ask(None, "/healthz", method="GET").status == 200
