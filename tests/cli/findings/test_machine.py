"""What the doctor says about this machine and this shell."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aigw import __version__
from aigw.cli.findings.finding import Finding
from aigw.cli.findings.machine import look


def script(folder: Path, text: str) -> Path:
    folder.mkdir()
    path = folder / "aigw"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def this(tmp_path: Path) -> Path:
    """A launcher of this very environment."""
    return script(tmp_path / "this", f"#!/bin/sh\nexec '{sys.executable}' -m aigw \"$@\"\n")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return script(tmp_path / "older", "#!/bin/sh\necho aigw 0.0.1\n")


def finding(*folders: Path, prefix: str = "command", **environ: str) -> Finding:
    search = os.pathsep.join(str(path.parent) for path in folders)
    found = [one for one in look({"PATH": search} | environ, None) if one.code.startswith(prefix)]
    assert len(found) == 1
    return found[0]


def test_this_one(this: Path) -> None:
    """The word aigw means this program; a folder that is twice on PATH is no second one."""
    assert finding(this, this).code == "command_ok"
    assert str(this) in finding(this).what.english


def test_none() -> None:
    """It is not on PATH: the line to add."""
    assert finding(Path("/nowhere/aigw")).code == "command_missing"


def test_another_one_first(this: Path, older: Path) -> None:
    """Its place, its version, and that it is older; also where this one is not on PATH at all."""
    for folders in ((older, this), (older,)):
        found = finding(*folders)
        assert found.code == "command_other"
        assert f"means another one, an older one: {older} (aigw 0.0.1)" in found.what.english
        assert __version__ in found.means.english


def test_another_one_behind(this: Path, older: Path) -> None:
    """It is not called, and yet worth knowing."""
    found = finding(this, older)
    assert found.code == "command_other"
    assert "there is another aigw" in found.what.english


def test_one_that_says_nothing(tmp_path: Path, this: Path) -> None:
    """A program that fails, and writes no text: no version, no crash."""
    other = script(tmp_path / "other", "#!/bin/sh\nprintf '\\377\\376'\nexit 1\n")
    assert "does not say its version" in finding(other, this).what.english


def findings_of(code: str, *, limit: int | None = None, **environ: str) -> list[str]:
    """The findings of a new process with that environment."""
    program = f"""
import os
from aigw.cli.findings.machine import look
print([one.code for one in look(os.environ, None) if one.code.startswith({code!r})])
"""
    command = ["bash", "-c", f'ulimit -n {limit}; exec "$0" "$@"'] if limit else []
    done = subprocess.run(
        [*command, sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin"} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(eval(done.stdout))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LANG": "C.UTF-8"}, "locale_ok"),
        ({}, "locale_ok"),
        ({"LC_ALL": "C"}, "locale_ok"),  # Python takes UTF-8 there (PEP 540)
        ({"LANG": "xx_XX.UTF-8"}, "locale_missing"),
        ({"LANG": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}, "locale_narrow"),
    ],
)
def test_locale(environ: dict[str, str], expected: str) -> None:
    """What the terminal can show."""
    assert findings_of("locale", **environ) == [expected]


@pytest.mark.parametrize(("limit", "expected"), [(4096, "files_ok"), (256, "files_few"), (64, "files_few")])
def test_open_files(limit: int, expected: str) -> None:
    """The limit of this shell."""
    assert findings_of("files", limit=limit) == [expected]


def test_open_files_of_the_server() -> None:
    """The running server's own limit counts, not this shell's; below the least it is a problem."""
    with subprocess.Popen(["bash", "-c", "ulimit -n 100; echo; exec sleep 60"], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            state: dict[str, Any] = {"pid": other.pid}
            (found,) = (one for one in look({"PATH": ""}, state) if one.code.startswith("files"))
            assert (found.code, found.level) == ("files_few", "problem")
            assert "the running server may open 100 files" in found.what.english
        finally:
            other.kill()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
