"""What a finding is, and that every code of the doctor is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aigw.cli.findings.finding import CODES, Finding, Level, Words, ok, problem, warning

ROOT = Path(__file__).resolve().parents[3]


def test_two_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """People read theirs; programs read English, whatever the locale."""
    finding = warning("disk_low", ("little room", "空间不足"), ("soon full", "即将用尽"), "df -h")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setattr("sys.stderr", __import__("io").TextIOWrapper(__import__("io").BytesIO(), encoding="utf-8"))
    assert str(finding.what) == "空间不足"
    expected = {"code": "disk_low", "level": "warning", "what": "little room", "means": "soon full", "next": "df -h"}
    assert finding.plain() == expected
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert str(finding.what) == "little room"


def test_levels() -> None:
    """Three of them, and what is not said is null."""
    assert ok("port_free", "free", "空闲").plain()["means"] is None
    assert problem("port_held", ("held", "占用")).level is Level.PROBLEM
    assert Finding("port_held", Level.OK, Words("only English")).what == ("only English", "")


def test_every_code_is_used_and_documented() -> None:
    """The closed list is the list: no code in the source is missing from it, none on it is unused, and docs/troubleshooting.md
    explains each that is not good news."""
    folder = ROOT / "aigw/cli/findings"
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "finding.py")
    for code in CODES:
        assert f'"{code}"' in source, code
    said = set(re.findall(r'(?:ok|warning|problem|say|Way)\(\s*"([a-z_]+)"', source))
    assert said <= CODES
    page = (ROOT / "docs/troubleshooting.md").read_text()
    explained = set(re.findall(r"^\| `([a-z_]+)`", page, re.MULTILINE))
    good = {code for code in CODES if code.endswith("_ok")}
    good |= {"port_free", "server_none", "database_none", "database_older", "provider_unchecked", "config_missing"}
    assert explained == CODES - good
