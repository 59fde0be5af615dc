"""`aigw keys import`: all of a table, or nothing of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from aigw.cli.keys_import import read
from aigw.config.schema import Config
from tests.cli.conftest import CommandLine

NOW = 1_800_000_000.0
TABLE = """name,group,tags,models,budget,rpm,expires,hard,key
alice,search,team=core;room=4,"gpt-*;claude-*",5usd/day;50usd/month,60,90d,yes,

bob,,,,,,,,sk-somebody-has-this-already
"""


def table(aigw: CommandLine, text: str, name: str = "people.csv") -> Path:
    path = aigw.folder / name
    path.write_text(text)
    return path


def listed(aigw: CommandLine) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(aigw("keys", "--json").stdout)}


def test_a_table(aigw: CommandLine) -> None:
    """Its keys come out as one, in the order of its lines; a given key is not repeated."""
    path = table(aigw, TABLE)
    tried = aigw("keys", "import", str(path), "--dry-run")
    assert "would make 2 keys" in tried.stderr
    assert listed(aigw) == {}
    done = aigw("keys", "import", str(path))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["name"] for row in rows] == ["alice", "bob"]
    assert rows[0]["key"].startswith("sk-aigw-")
    assert rows[1]["key"] == ""
    assert "somebody" not in done.stdout + done.stderr
    shown = json.loads(aigw("keys", "show", "alice", "--json").stdout)
    assert shown["group"] == "search"
    assert shown["tags"] == {"team": "core", "room": "4"}
    assert shown["terms"]["models"] == ["gpt-*", "claude-*"]
    assert shown["terms"]["budgets"] == ["5 usd/day", "50 usd/month"]
    assert (shown["terms"]["rpm"], shown["terms"]["hard"]) == (60, True)
    assert shown["keys"][0]["expires"] is not None
    again = aigw("keys", "import", str(path))
    assert (again.returncode, "line 2: alice exists already" in again.stderr) == (1, True)
    assert "There is nothing to make" in aigw("keys", "import", str(path), "--existing", "skip").stderr


def test_into_a_file(aigw: CommandLine) -> None:
    """For its owner alone, and never over another."""
    path, out = table(aigw, "name\ncarol\n"), aigw.folder / "keys.csv"
    assert aigw("keys", "import", str(path), "--output", str(out)).stdout == ""
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_text().startswith("name,key_id,key\ncarol,")
    other = table(aigw, "name\ndave\n", "other.csv")
    refused = aigw("keys", "import", str(other), "--output", str(out))
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    assert set(listed(aigw)) == {"carol"}, "nothing was made whose key could not be written down"


def test_one_mistake_and_nothing_is_made(aigw: CommandLine) -> None:
    """All of them are named, with line and column."""
    path = table(
        aigw,
        "name,rpm,budget,key,expires,allow_ip\n"
        "good,1,,,,\n"
        "a\x1b[2Jb,,,,,\n"
        "bob,-1,,,,\n"
        "carol,,5 yen/day,,,\n"
        "dave,,,short,,\n"
        "eve,,,,2001-01-01,\n"
        "frank,,,,,1.2.3.4/99\n"
        "good,,,,,\n"
        "few,1\n",
    )
    done = aigw("keys", "import", str(path))
    assert done.returncode == 1
    said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if "line " in line]
    assert [line.split(":")[0] for line in said] == [f"line {number}" for number in range(3, 11)]
    assert "line 4: rpm: expected a whole number" in done.stderr
    assert "line 5: budget: " in done.stderr
    assert "line 9: good is in line 2 already" in done.stderr
    assert "line 10: has 2 cells; expected 6" in done.stderr
    assert "\x1b" not in done.stderr
    assert listed(aigw) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no column `name`"),
        ("who\nalice\n", "names no column `name`"),
        ("name,rmp\nalice,1\n", "did you mean rpm?"),
        ("name,rpm,rpm\nalice,1,1\n", "is there twice"),
    ],
)
def test_no_table_of_ours(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        read(text, Config(), NOW)


def test_many_lines_are_read_quickly() -> None:
    text = "name,group,budget\n" + "".join(f"user-{number},,5usd/day\n" for number in range(5000))
    rows, mistakes = read(text, Config(), NOW)
    assert (len(rows), mistakes) == (5000, [])
    assert rows[4999].line == 5001
