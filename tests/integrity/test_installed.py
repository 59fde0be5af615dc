"""What is installed here: as packages, in real environments that are then tampered with; as a tree, see tests/packaging."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aigw.integrity import installed
from aigw.integrity.installed import Check, Installation, Kind
from tests.packaging.home import ROOT

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def record(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """What pip would write for a package."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    rows = []
    for path, text in {**files, f"{info.name}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """site-packages of an environment with two packages, which is the one that this process seems to run in."""
    site = tmp_path / SITE
    site.mkdir(parents=True)
    record(
        site, "aigw", "0.1.0", {"aigw/__init__.py": "a = 1\n", "aigw/integrity/requirements.lock": "Idna==3.1 \\\n  --hash=x\n"}
    )
    record(site, "idna", "3.1", {"idna/__init__.py": "b = 2\n", "idna/data.bin": "x"})
    subprocess.run([sys.executable, "-m", "compileall", "-q", site], check=True)
    monkeypatch.setattr(sys, "path", [str(site)])
    return site


def checks(site: Path, **options: Any) -> list[Check]:
    return list(installed.check(Installation(Kind.PACKAGES, None, site), site, (), **options))


def flaws(site: Path, **options: Any) -> list[str]:
    found = (flaw for one in checks(site, **options) for flaw in one.flaws)
    return [f"{Path(flaw.path).name} {flaw.what}" for flaw in found]


def test_as_installed(site: Path) -> None:
    found = checks(site, deep=True)
    assert [(one.name, one.state) for one in found] == [("signature", "note"), ("packages", "ok"), ("lock", "ok")]
    assert found[1].text == "8 files of 2 packages as their packages say, and what is compiled of them is theirs"


def compiled(site: Path) -> None:
    """Code that is not in the source."""
    path = next((site / "idna/__pycache__").iterdir())
    (site / "x.py").write_text("b = 3\n")
    subprocess.run(
        [sys.executable, "-c", f"import py_compile; py_compile.compile({str(site / 'x.py')!r}, {str(path)!r})"], check=True
    )
    (site / "x.py").unlink()


def pyc_alone(site: Path) -> None:
    (site / "idna/__pycache__/evil.cpython-311.pyc").write_bytes(b"")


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a source": (lambda site: (site / "idna/__init__.py").write_text("import evil\n"), "__init__.py was changed"),
    "data": (lambda site: (site / "idna/data.bin").write_text("y"), "data.bin was changed"),
    "missing": (lambda site: (site / "idna/data.bin").unlink(), "data.bin is missing, or cannot be read"),
    "a module of nobody": (lambda site: (site / "evil.py").write_text(""), "evil.py belongs to no package"),
    "a library of nobody": (lambda site: (site / "idna/evil.so").write_text(""), "evil.so belongs to no package"),
    "code at every start": (
        lambda site: (site / "evil.pth").write_text("import os; os.system('x')\n"),
        "evil.pth runs code at every start of this Python",
    ),
    "a compiled file of nobody": (pyc_alone, "evil.cpython-311.pyc belongs to no package"),
    "writable by all": (lambda site: (site / "idna/data.bin").chmod(0o666), "data.bin may be changed by others (mode 0666)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found(site: Path, name: str) -> None:
    change, expected = CHANGES[name]
    change(site)
    assert flaws(site) == [expected]


def test_a_compiled_file_that_is_something_else(site: Path) -> None:
    compiled(site)
    assert flaws(site) == []
    assert flaws(site, deep=True) == [f"__init__.{sys.implementation.cache_tag}.pyc is not what its source compiles to"]


def test_code_in_a_path_file_of_a_package(site: Path) -> None:
    """That it is in its package's list makes it no better: so did LiteLLM's."""
    record(site, "litellm", "1.82.8", {"litellm_init.pth": "import subprocess; subprocess.Popen(['x'])\n"})
    assert flaws(site) == ["litellm_init.pth runs code at every start of this Python"]


def test_a_package_without_a_list(site: Path) -> None:
    (site / "idna-3.1.dist-info/RECORD").unlink()
    assert "idna has no list of its files (RECORD)" in flaws(site)


def test_other_versions(site: Path) -> None:
    (site / "aigw/integrity/requirements.lock").write_text("idna==3.2 \\\n")
    assert [(one.state, one.text) for one in checks(site) if one.name == "lock"] == [
        ("note", "other versions than the tested ones: idna 3.1 (tested with 3.2)")
    ]


def test_where_it_runs_from(tmp_path: Path) -> None:
    """The environment alone makes no single file: the interpreter has to lie in the folder that it names."""
    assert installed.find({}).kind is Kind.CHECKOUT
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    said = {"AIGW_RUNTIME": str(tree), "AIGW_LAUNCHER": "/usr/local/bin/aigw"}
    assert installed.find(said).kind is Kind.CHECKOUT
    assert installed.find(said, str(tree / "bin/python3")) == Installation(Kind.FILE, Path("/usr/local/bin/aigw"), tree)
    assert installed.find(said | {"AIGW_RUNTIME": "/other"}, str(tree / "bin/python3")).kind is Kind.CHECKOUT
    (tree / "manifest.json").write_text("{}")
    assert installed.find({}, str(tree / "bin/python3")) == Installation(Kind.TREE, None, tree)


def test_who_may_change_and_read(tmp_path: Path) -> None:
    for name, mode in (("good", 0o644), ("open", 0o666), ("private", 0o600), ("read", 0o640), ("group", 0o660)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    files = [tmp_path / name for name in ("good", "open", "missing")]
    private = [tmp_path / name for name in ("private", "read", "group")]
    assert [(Path(one.path).name, one.what, one.next) for one in installed.reach(files, private)] == [
        ("group", "may be changed by others (mode 0660)", "chmod go-w"),
        ("open", "may be changed by others (mode 0666)", "chmod go-w"),
        ("read", "may be read by others (mode 0640)", "chmod 600"),
    ]


def test_this_checkout() -> None:
    """Its packages can be checked, itself cannot: it is told so."""
    found = list(installed.check(installed.find(), ROOT, ()))
    assert found[0].state == "unknown"
    changed = [flaw.path for one in found for flaw in one.flaws]
    assert [path for path in changed if not path.endswith("cacert.pem")] == []  # which some environments add an authority to
    assert os.path.isabs(found[0].text.rpartition("checkout ")[2].partition(":")[0])  # noqa: PTH117
