"""The two READMEs say the same, and what they show works: against a real `aigw serve`, with the real SDKs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog
from tests.docs.pages import READMES, ROOT, Block, blocks, headings, links, spans

ENGLISH, CHINESE = (path.read_text(encoding="utf-8") for path in READMES)


class Served(NamedTuple):
    """A running `aigw serve` with the demo provider: its address, a key, and the variables that lead commands to it."""

    address: str
    key: str
    environment: dict[str, str]

    def script(self, text: str) -> str:
        """*text* with this server's address and key in the places of the README's."""
        return text.replace("http://127.0.0.1:8080", self.address).replace("sk-aigw-...", self.key)

    def run(self, *command: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run(
            command, env=environment, cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("readme")
    config = folder / "config.toml"
    config.write_text("[providers.demo]\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AIGW_CONFIG": str(config), "AIGW_DATA_DIR": str(folder)}
    aigw = [sys.executable, "-m", "aigw"]
    made = subprocess.run(
        [*aigw, "keys", "create", "alice"], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen([*aigw, "serve", "--port", "0"], env=environment, cwd=ROOT, stderr=stderr) as server,
    ):
        try:
            yield Served(_address(log, server), made.stdout.strip(), environment)
        finally:
            server.terminate()
        assert server.wait(30) == 0


def _address(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"listening on (http://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def code(block: Block) -> str:
    """A block without what is said in it to people: comments, and the words beside the house's files."""
    if not block.language:
        return re.sub(r"^(\s*\S+(?: \w+\.py)*)\s.*$", r"\1", block.text, flags=re.MULTILINE)
    return re.sub(r"\s*# .*$", "", block.text, flags=re.MULTILINE)


def test_the_same_in_both_languages() -> None:
    """The same headings in number and depth, the same blocks but for their comments, the same links, the same names."""
    assert [heading.level for heading in headings(CHINESE)] == [heading.level for heading in headings(ENGLISH)]
    assert [block.language for block in blocks(CHINESE)] == [block.language for block in blocks(ENGLISH)]
    assert [code(block) for block in blocks(CHINESE)] == [code(block) for block in blocks(ENGLISH)]
    assert sorted(page_links(CHINESE)) == sorted(page_links(ENGLISH))
    assert set(re.findall(r"/v1[\w/]*|/\w+z\b", CHINESE)) == set(re.findall(r"/v1[\w/]*|/\w+z\b", ENGLISH))
    assert {word for word in spans(CHINESE) if word.isascii()} <= set(spans(ENGLISH))


def page_links(text: str) -> list[str]:
    return [link for link in links(text) if not link.startswith(("#", "README"))]


def test_they_lead_to_each_other() -> None:
    """Whoever opened the wrong one finds the other in the first lines."""
    assert "README.zh-CN.md" in "".join(ENGLISH.splitlines()[:4])
    assert "README.md" in "".join(CHINESE.splitlines()[:4])


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_counts_of_providers(text: str) -> None:
    """The two numbers are those of the catalog, the demo and the generic row left out."""
    rows = [
        row for row in map(catalog.row, catalog.ids()) if row.served and row.category != "generic" and row.protocol != "demo"
    ]
    with_messages = sum(bool(row.anthropic_url) for row in rows)
    assert re.search(rf"\b{len(rows)} (?:of which|家)", text)
    assert re.search(rf"\b{with_messages} (?:of the known|家)", text)


def test_endpoints() -> None:
    """What is said to be served is what is served."""
    section = ENGLISH.partition("## Limits of this version")[2].partition("## ")[0]
    listed = set(re.findall(r"`(/[^`]+)`", section))
    asked = [one for one in OPERATIONS.values() if one.door and one.method == "POST" and "{" not in one.path]
    whole = {f"/v1{one.path}" for one in asked if not one.below} | {"/v1/models", "/v1/realtime", "/healthz", "/readyz"}
    assert listed == whole  # every one of the others: docs/endpoints.md


def test_the_house() -> None:
    """The drawing shows every room and every file at the door, and none that is not there."""
    (drawing,) = (block.text for block in blocks(ENGLISH) if block.text.startswith("aigw/\n"))
    drawn = set(re.findall(r"(?:^  |(?<=\.py ))(\w+(?:\.py|/))", drawing, re.MULTILINE))
    real = {path.name for path in (ROOT / "aigw").glob("*.py")} | {
        f"{path.parent.name}/" for path in (ROOT / "aigw").glob("*/__init__.py")
    }
    assert drawn == real - {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("number", [0, 1], ids=["openai", "anthropic"])
def test_sdk_examples(served: Served, number: int) -> None:
    """They run as they stand, with the two variables that are exported above them."""
    example = blocks(ENGLISH, "python")[number].text
    exports = dict(re.findall(r"^export (\w+)=(\S+)", served.script(ENGLISH), re.MULTILINE))
    ran = served.run(sys.executable, "-", text=example, **exports)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("You said: Hello")


def first_call(served: Served) -> str:
    """What the README's first curl prints, with the answer's head before it."""
    example = next(block.text for block in blocks(ENGLISH, "bash") if "curl" in block.text)
    ran = served.run("bash", "-eu", text=served.script(example).replace("curl ", "curl -sSi "))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_first_curl(served: Served) -> None:
    """It is answered, with the header that is promised."""
    answer = first_call(served)
    assert answer.startswith("HTTP/1.1 200")
    assert "x-request-id: req_" in answer
    assert "You said: Hello" in answer


def test_stats(served: Served) -> None:
    """The table that is shown has the columns of the real one."""
    (table,) = (block.text for block in blocks(ENGLISH) if block.text.startswith("consumer "))
    first_call(served)  # something to show
    time.sleep(0.6)
    ran = served.run(sys.executable, "-m", "aigw", "stats", "--by", "consumer", "--since", "30d", COLUMNS="120")
    assert ran.stdout.splitlines()[0].split() == table.splitlines()[0].split()
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["consumer", "alice", "total"]
