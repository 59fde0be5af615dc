"""The control socket of a server in this process, asked as commands ask it."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.control import ask
from aigw.config.control_socket import socket_path
from aigw.server.control import AlreadyServedError, Control
from aigw.server.lifecycle import CannotListenError
from tests.data_port import DEMO, serving


async def asked(folder: Path, path: str = "/state", method: str = "GET") -> dict[str, Any] | None:
    return await asyncio.to_thread(ask, folder / "data", path, method=method)


async def test_it_is_for_its_owner_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    """0600 in a directory of 0700; gone at the end."""
    async with serving(tmp_path):
        path = socket_path(tmp_path / "data")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await asked(tmp_path) or {})["pid"] == os.getpid()
    assert not path.exists()
    assert await asked(tmp_path) is None


async def test_reload_is_answered_with_what_is_wrong(tmp_path: Path) -> None:
    """File, line and key, as in the log; the state says that the file is not what serves."""
    async with serving(tmp_path) as port:
        assert await asked(tmp_path, "/reload", "POST") == {"reloaded": True, "problems": []}
        loaded = (await asked(tmp_path) or {})["config"]
        assert (loaded["path"], loaded["changed"], loaded["problem"]) == (str(port.config), False, "")
        port.config.write_text(DEMO + "[routes.x]\ntarget = 1\n")
        answer = await asked(tmp_path, "/reload", "POST")
        assert answer is not None
        assert answer["reloaded"] is False
        assert "config.toml" in answer["problems"][0]
        broken = (await asked(tmp_path) or {})["config"]
        assert (broken["changed"], broken["hash"]) == (True, loaded["hash"])
        assert broken["problem"] == "\n".join(answer["problems"])
        port.config.write_text(DEMO + "[limits]\nrpm = 9\n")
        assert (await asked(tmp_path, "/reload", "POST") or {})["reloaded"] is True
        mended = (await asked(tmp_path) or {})["config"]
        assert (mended["changed"], mended["problem"]) == (False, "")
        assert mended["hash"] != loaded["hash"]
        assert mended["loaded_at"] > loaded["loaded_at"]


async def test_drain_ends_the_server(tmp_path: Path) -> None:
    """As SIGTERM does; asked twice it is no second, impatient stop."""
    async with serving(tmp_path) as port:
        assert await asked(tmp_path, "/drain", "POST") == {"draining": True}
        async with asyncio.timeout(5):
            await port.task


async def test_two_servers_of_one_directory(tmp_path: Path) -> None:
    """The second one is told who was first, and disturbs nothing."""
    async with serving(tmp_path):
        with pytest.raises(CannotListenError, match=rf"already running for .*data \(process {os.getpid()}\); stop it \(kill"):
            async with serving(tmp_path):
                pass
        assert (await asked(tmp_path) or {})["pid"] == os.getpid()
    async with serving(tmp_path):
        assert await asked(tmp_path)


async def test_a_dead_servers_socket_is_replaced(tmp_path: Path) -> None:
    """A process that was killed leaves socket and lock file behind; neither keeps the next one out."""
    (tmp_path / "data").mkdir(mode=0o700)
    script = f"""
import asyncio, sys
from pathlib import Path
from aigw.server.control import Control
async def main():
    control = Control(Path({str(tmp_path / "data")!r}))
    control.claim()
    await control.start(dict, list, lambda: None)
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        with pytest.raises(AlreadyServedError) as caught:
            Control(tmp_path / "data").claim()
        assert caught.value.pid == other.pid
        other.kill()
    assert socket_path(tmp_path / "data").is_socket()
    assert await asked(tmp_path) is None
    async with serving(tmp_path):
        assert (await asked(tmp_path) or {})["pid"] == os.getpid()


async def test_a_directory_with_a_long_name(tmp_path: Path) -> None:
    """A socket's address has 108 bytes; data directories have more."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    async with serving(folder):
        assert (await asked(folder) or {})["data_dir"] == str(folder / "data")


async def test_without_a_socket_callers_are_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Something else in its place: said in the log, and no reason not to serve."""
    (tmp_path / "data" / "control.sock").mkdir(parents=True)
    async with serving(tmp_path) as port:
        assert (await port.ask("GET", "/healthz")).status == 200
    assert "no control socket" in capsys.readouterr().err


async def test_what_is_not_served(tmp_path: Path) -> None:
    """Another path, another method: an error that says so, no traceback."""
    async with serving(tmp_path):
        for path, method in (("/nothing", "GET"), ("/reload", "GET"), ("/state", "POST")):
            with pytest.raises(OSError, match="is it another version"):
                await asked(tmp_path, path, method)


async def test_asking_is_cheap(tmp_path: Path) -> None:
    """A state is there in milliseconds."""
    async with serving(tmp_path):
        await asked(tmp_path)
        began = time.perf_counter()
        for _ in range(20):
            await asked(tmp_path)
        assert (time.perf_counter() - began) / 20 < 0.05
